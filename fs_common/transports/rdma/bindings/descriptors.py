"""Which descriptor a call of libibverbs has opened, where the binding keeps it to itself.

Calls are made one at a time. Others of the process may open files meanwhile: what the library opens is known by where
its links in /proc lead.
"""

import os
import threading
from collections.abc import Callable
from typing import TypeVar

EVENTS = "anon_inode:[infinibandevent]"
DEVICE = "/dev/infiniband/"

T = TypeVar("T")
_lock = threading.Lock()


def opened_by(make: Callable[[], T]) -> tuple[T, list[int], list[int]]:
    """What `make` returned, its descriptors of events, and those of devices, in order of opening."""
    with _lock:
        before = _listed()
        made = make()
        after = _listed()
    new = sorted(descriptor for descriptor, target in after.items() if before.get(descriptor) != target)
    return (
        made,
        [descriptor for descriptor in new if after[descriptor] == EVENTS],
        [descriptor for descriptor in new if after[descriptor].startswith(DEVICE)],
    )


def event_opened_by(make: Callable[[], T]) -> tuple[T, int | None]:
    """The same for a call that opens one descriptor: the lowest free one. No listing, so it costs the same with ten
    thousand open. None: another thread was faster; make it again."""
    with _lock:
        lowest = os.open("/", os.O_PATH | os.O_CLOEXEC)
        os.close(lowest)
        made = make()
        return made, lowest if _target(lowest) == EVENTS else None


def _listed() -> dict[int, str]:
    return {int(name): _target(int(name)) for name in os.listdir("/proc/self/fd")}


def _target(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def _new_lock() -> None:
    """Another thread of the parent may have held it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)
