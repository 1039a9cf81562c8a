"""How long a store has been open in all its life, in seconds: what decides what it may forget.

No step of a machine's clock moves it. It stands still while the store is closed, and goes back by what had not been
stored when a process dies: then things are remembered a little longer.
"""

from collections.abc import Callable


class Odometer:
    def __init__(self, seconds: int, clock: Callable[[], float]) -> None:
        """`seconds`: what it showed last. `clock`: seconds, never set, from any origin."""
        self._clock = clock
        self._start = seconds - clock()

    def now(self) -> int:
        return int(self._start + self._clock())
