"""The pytest plugin (spec §16)."""
