"""Lets a thread's reads of the disk come after everybody else's.

Only the disk's: a thread of low priority for the processor would keep the interpreter's lock while it waits for its
turn, and with it the event loop.
"""

import ctypes
import platform

_SYSTEM_CALLS = {"x86_64": 251, "aarch64": 30}
"""`ioprio_set`, which the C library does not have."""
_WHO_THREAD = 1
_LOWEST = (2 << 13) | 7
"""Best effort, the lowest of its priorities: the idle class could wait for ever."""


def give_way() -> None:
    """Of the calling thread. Where it cannot be had, nothing happens."""
    number = _SYSTEM_CALLS.get(platform.machine())
    if number is None:
        return
    ctypes.CDLL(None, use_errno=True).syscall(
        ctypes.c_long(number), ctypes.c_int(_WHO_THREAD), ctypes.c_int(0), ctypes.c_int(_LOWEST)
    )
