"""The `emberfs` command."""
