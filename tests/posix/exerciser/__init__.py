"""Random operations against a model in memory: of file contents (`player`) and of directory trees (`tree`).

Works on any directory, or on two that are the same one through two mounts. `python -m tests.posix.exerciser --help`.
"""
