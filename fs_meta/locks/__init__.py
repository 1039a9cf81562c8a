"""Advisory locks: which are held, who waits, and in which order they are given."""
