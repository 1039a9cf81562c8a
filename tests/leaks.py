"""What a test may not leave behind: descriptors of files and sockets, child processes, shared-memory segments, and
handlers of signals."""

import contextlib
import gc
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

_IGNORED = ("anon_inode:", "pipe:", "/dev/", "/proc/", "/sys/", "/memfd:")
"""Descriptors that event loops, the standard library and imports keep for themselves."""
_ONE_FOR_EACH_PROCESS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Python's own helpers, which stay until the interpreter ends."""
SETTLE_S = 5.0
"""Waited only for something that is there and should not be."""


class Holdings(NamedTuple):
    descriptors: frozenset[tuple[int, str]]
    """(number, what it is) of open files and sockets."""
    children: frozenset[int]
    segments: frozenset[str]
    handlers: frozenset[tuple[int, str]]
    """(signal, what is done) of those that end programs. Others change what calls of the client do."""


def holdings() -> Holdings:
    """What this process has now. Costs less than a millisecond."""
    return Holdings(frozenset(_descriptors()), frozenset(_children()), frozenset(_segments()), frozenset(_handlers()))


def describe_leaks(before: Holdings, after: Holdings) -> list[str]:
    """One line for each thing that is there now and was not before."""
    return [
        *(f"descriptor {number} ({what}) is open" for number, what in sorted(after.descriptors - before.descriptors)),
        *(
            f"child process {pid} ({_command(pid)}) runs"
            for pid in sorted(after.children - before.children)
            if not any(module in _command(pid) for module in _ONE_FOR_EACH_PROCESS)
        ),
        *(f"shared-memory segment {name} exists" for name in sorted(after.segments - before.segments)),
        *(f"signal {number} is handled by {what}" for number, what in sorted(after.handlers - before.handlers)),
    ]


def settle(before: Holdings) -> list[str]:
    """What is still there after a moment: who was told to end, or lost its last reference, ends a little later."""
    gc.collect()
    deadline = time.monotonic() + SETTLE_S
    while (left := describe_leaks(before, holdings())) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def _descriptors() -> list[tuple[int, str]]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if not target.startswith(_IGNORED):
                found.append((int(name), target))
    return found


def _children() -> list[int]:
    found: list[int] = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/self/task/{task}/children").read_text().split())
    return found


def _segments() -> list[str]:
    """Those named after this process, as torch and our own code do; others come and go beside us."""
    return [name for name in os.listdir("/dev/shm") if str(os.getpid()) in name.replace("-", "_").split("_")]


def _handlers() -> list[tuple[int, str]]:
    return [(int(number), str(signal.getsignal(number))) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return "gone"
