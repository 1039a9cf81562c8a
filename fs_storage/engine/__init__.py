"""The chunk engine: blocks, log, index, store."""
