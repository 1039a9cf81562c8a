"""The replication core: what one replica of a chain does with an update, decided without clock, socket or disk."""
