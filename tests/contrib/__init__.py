"""The glue, each with real apps of its framework, and what server code and operators use."""
