"""The privacy core, pure: the standard library and msgspec only (spec §5 to §10)."""
