"""Where payloads wait: the protocol, and a store for memory, SQLite and Redis (spec §11)."""
