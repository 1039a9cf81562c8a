"""`python -m fs_client.cli` is the `emberfs` command, for a source tree that is not installed."""

from fs_client.cli.main import main

main()
