"""Where users' choices are kept: the protocol, and a store for each place (spec §7)."""
