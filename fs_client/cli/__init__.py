"""The `emberfs` command.

`main` holds the table of commands and turns every failure into one line; each command is a module of its own,
imported only when it runs, so that `emberfs --help` and the start of any command stay under 0.3 s.
"""
