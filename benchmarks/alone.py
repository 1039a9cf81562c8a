"""A measurement that pays for nothing that others did, and leaves nothing to others."""

import os
from collections.abc import Callable

from benchmarks.space import Space
from benchmarks.warm_memory import WarmMemory


def alone(measure: Callable[[], float], space: Space, memory: WarmMemory) -> Callable[[], float]:
    """`measure`, begun with nothing left to write back and with warm memory, ended when what it removed is freed."""

    def run() -> float:
        os.sync()
        with memory.lent():
            value = measure()
            space.wait_until_free()
        return value

    return run
