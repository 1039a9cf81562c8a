"""Users, their tokens, and the passes that the metadata service gives."""
