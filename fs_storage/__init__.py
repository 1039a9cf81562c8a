"""The storage daemon: chunk engine and chain replication."""
