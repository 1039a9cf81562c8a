"""Python's heap in a process that serves for long: its collector of cycles, and memory that goes back to the system."""

import ctypes
import gc

YOUNG_OBJECTS = 20_000
"""Records, requests and nodes come and go by the thousand and form no cycles: the collector need not look so often."""
MANY = 4096
"""Of objects of about a kilobyte: what fewer of them leave is not worth a collection."""
LEFT_PART = 4
"""Few: at most this part (1 / LEFT_PART) of the most."""


def freeze() -> None:
    """From now on it serves: what exists lives as long as the process, and collections need not look at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)


def keep() -> None:
    """What was made since lives as long as the process, too. Takes no time: nothing is looked at first, which would
    hold up all threads; what happens to be garbage in cycles now is never given back."""
    gc.freeze()


class Watermark:
    """Watches how many objects of a kind live, and says when most of them are gone."""

    def __init__(self) -> None:
        self._most = 0
        """Since it said so last."""
        self._last = 0

    def passed(self, count: int) -> bool:
        """Called now and then with how many there are. True: many were, few are left, and no more go just now."""
        last, self._last = self._last, count
        if count >= self._most:
            self._most = count
            return False
        if self._most < MANY or count * LEFT_PART > self._most or count < last:
            return False
        self._most = count
        return True


def give_back() -> None:
    """Give memory back to the system that objects took which are gone. Takes a few milliseconds.

    Python gives back whole arenas. A full collection empties its free lists, whose entries lie all over the heap after
    many objects have gone, and hold arenas; `malloc_trim` does the same for the C library.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU C library
    if trim is not None:
        trim(0)
