"""What is made from an open device, for all bindings: closed once each, in the order that verbs need, and given up in a
forked child.

A binding's object frees what the kernel holds when it is collected. In a child that would free the parent's: so a fork
makes every such object of the child immortal, and closes the child's copies of the descriptors; without that a child
would keep its dead parent's queue pairs alive. At the end of the process what is open is closed in order, not by the
collector.

`Made` holds its parts strongly: one that is dropped lives on until its device is closed.
"""

import atexit
import contextlib
import ctypes
import errno
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from fs_common.transports.rdma.verbs import Counts, VerbsError


class Part(ABC):
    """A queue pair, completion queue or region. `raw` is the binding's object; None: it is closed."""

    raw: Any

    @abstractmethod
    def end(self) -> None:
        """Free what the kernel holds; called once. Raises whatever the binding does."""

    @abstractmethod
    def raws(self) -> list[object]:
        """All objects of the binding that free something when they are collected."""


class Made:
    """The parts of one open device."""

    def __init__(self, end_device: Callable[[], None]) -> None:
        self._end_device = end_device
        self.pairs: dict[int, Part] = {}
        self.queues: dict[int, Part] = {}
        self.regions: dict[int, Part] = {}
        self.descriptors: set[int] = set()
        """Opened with the device and its completion queues."""
        self.own: list[object] = []
        """The binding's objects of the device itself."""
        self.over = False
        """Closed, or in a forked child."""
        self._lock = threading.Lock()
        _open.add(self)

    def counts(self) -> Counts:
        return Counts(len(self.pairs), len(self.queues), len(self.regions))

    def close(self, parts: dict[int, Part], part: Part) -> None:
        """The first of those who call ends it."""
        with self._lock:
            ours = parts.pop(id(part), None) is not None
        if not ours:
            return
        try:
            part.end()
        except VerbsError:
            raise
        except Exception as error:
            raise VerbsError(
                f"closing failed: {error}", getattr(error, "error_code", getattr(error, "errno", None))
            ) from error
        finally:
            part.raw = None

    def close_all(self) -> None:
        """Queue pairs, regions, completion queues, then the device. What cannot be freed by itself goes with that."""
        with self._lock:
            if self.over:
                return
            self.over = True
        _open.discard(self)
        for parts in (self.pairs, self.regions, self.queues):
            for part in list(parts.values()):
                with contextlib.suppress(VerbsError):
                    self.close(parts, part)
        self._end_device()
        self.descriptors.clear()

    def check_open(self) -> None:
        if self.over:
            raise VerbsError("the device is closed", errno.EBADF)

    def abandon(self) -> None:
        """In a forked child."""
        self.over = True
        self._lock = threading.Lock()
        immortal = list(self.own)
        for parts in (self.pairs, self.regions, self.queues):
            for part in parts.values():
                immortal += part.raws()
                part.raw = None
            parts.clear()
        for raw in immortal:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(raw))
        for descriptor in self.descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.descriptors.clear()


_open: set[Made] = set()


def _abandon_all() -> None:
    for made in list(_open):
        made.abandon()
    _open.clear()


os.register_at_fork(after_in_child=_abandon_all)


@atexit.register
def _close_open() -> None:
    for made in list(_open):
        made.close_all()
