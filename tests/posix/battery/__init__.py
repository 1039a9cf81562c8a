"""Programs that know nothing of the file system, each with a verdict. `python -m tests.posix.battery --help`.

A trial is a function that gets a place to work in and raises `Failed`. What it needs is installed from Debian.
"""
