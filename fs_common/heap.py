"""Python's collector of cycles in a process that serves for long."""

import gc

YOUNG_OBJECTS = 20_000
"""Records, requests and nodes come and go by the thousand and form no cycles: the collector need not look so often."""


def freeze() -> None:
    """From now on it serves: what exists lives as long as the process, and collections need not look at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)
