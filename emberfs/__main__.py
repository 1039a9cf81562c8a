"""`python -m emberfs`: the `emberfs` command."""

from fs_client.cli.main import main

if __name__ == "__main__":
    main()
