"""Memory that lasts: buffers that payload goes through again and again, or for as long as one large operation.

An adapter moves bytes only to and from memory that it was told of beforehand. To tell it costs about as much as copying
some pages, so memory that is used more than once is announced here by who owns it, whatever it is sent over. While no
device is open that costs one small object. A device that is open, or is opened later, learns of it (`Keeper`), and
registers it when it is first used.

Invariants:

* While a `Lasting` is not closed it holds its memory: that can neither be freed nor, an `mmap`, be closed.
* A keeper that was told `began` is told `ended` for the same object, or is gone (`detach`).
* Dropping the last reference to a `Lasting` closes it.
* Nothing of the parent's is ended in a forked child, where the registrations are not: it starts without keepers.

Any thread may call everything here; finalizers too. Knows no verbs.

Concurrency: docs/concurrency/registered_memory.md.
"""

import contextlib
import os
import weakref
from collections.abc import Iterator
from typing import Any, Protocol, Self

from fs_common.errors import Code, EmberError


class Keeper(Protocol):
    """What has registrations of lasting memory: an open device."""

    def began(self, memory: "Lasting") -> None:
        """It may be used from now on. Does not fail: what cannot be registered is told to who uses it."""

    def ended(self, memory: "Lasting") -> None:
        """It is not to be used for anything that begins from now on. Called in any thread, at any moment."""

    def holds(self, memory: "Lasting") -> bool:
        """It was ended, and work with it is still outstanding."""

    def prepare(self, memory: "Lasting") -> None:
        """Register it now. Raises `EmberError`."""


class Lasting:
    """Memory of which its owner says that it lasts until `close`, or until nobody holds this object."""

    __slots__ = ("__weakref__", "address", "dmabuf", "length", "passing", "view")

    def __init__(
        self, view: memoryview | None, address: int = 0, length: int = 0, dmabuf: tuple[int, int] | None = None
    ) -> None:
        self.view = view
        """Holds the memory; None: it is a device's, or the owner's word is all there is."""
        self.address = address
        """Of memory without a view."""
        self.passing = False
        """It lasts for one operation of several calls; see `passing`."""
        self.length = length if view is None else len(view)
        """Bytes."""
        self.dmabuf = dmabuf
        """File descriptor by which its device shares it, and where in that the memory begins; None: memory that the
        processor has."""

    def prepare(self) -> None:
        """Register it with the devices that are open, instead of when it is first used. Raises `EmberError`."""
        for keeper in tuple(_keepers):
            keeper.prepare(self)

    def close(self) -> None:
        """Its memory may go. Idempotent. Who uses it at the moment goes on holding what has a view.

        Memory without a view is held by nobody. Raises BUSY while it is in use: then nothing new uses it any more, and
        `close` is to be called again when all calls with it have returned.
        """
        self._end()
        if self.address and any(keeper.holds(self) for keeper in tuple(_keepers)):
            raise EmberError(
                Code.BUSY,
                f"{self.length} bytes at {self.address:#x} are still being read or written; wait until all operations"
                " with them have returned, and close them again before their memory is freed",
            )
        self.view = None

    def _end(self) -> None:
        if _everything.pop(id(self), None) is not None:
            for keeper in tuple(_keepers):
                keeper.ended(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # At the interpreter's end the names of this module may be None already.
        if _everything is not None and _keepers is not None:
            self._end()


_keepers: list[Keeper] = []
_everything: dict[int, "weakref.ref[Lasting]"] = {}
"""All that is not closed, by id of the object: a finalizer can take itself out without hashing or comparing."""


def lasting(memory: Any) -> Lasting:
    """Announce writable or readable memory (anything with a contiguous buffer) as lasting.

    It is held until the `Lasting` is closed or dropped: a bytearray cannot be resized, an `mmap` not be closed.
    """
    view = memoryview(memory)  # its own, which nobody else releases
    if not view.contiguous:
        raise ValueError("memory with gaps between its bytes cannot be registered; register what they lie in")
    if view.ndim != 1 or view.itemsize != 1:
        view = view.cast("B")
    return _announce(Lasting(view))


def anybody_keeps() -> bool:
    """A device is open. If not, what would be announced as `passing` need not be looked for."""
    return bool(_keepers)


def passing(view: memoryview) -> Lasting | None:
    """Announce memory that one operation of several calls fills: it is registered as a whole, not piece by piece.

    What could be kept registered after a single call is kept after this, too. None: no device is open, and memory for
    one operation is of no interest to one that will be.
    """
    if not _keepers or not view:
        return None
    memory = Lasting(memoryview(view))
    memory.passing = True
    return _announce(memory)


def lasting_address(address: int, length: int, dmabuf: tuple[int, int] | None = None) -> Lasting:
    """Announce `length` bytes at `address`, which the caller keeps there until the `Lasting` is closed.

    `dmabuf`: descriptor and offset, where it is another device's memory; it stays open as long.
    """
    return _announce(Lasting(None, address, length, dmabuf))


def _announce(memory: Lasting) -> Lasting:
    _everything[id(memory)] = weakref.ref(memory)
    for keeper in tuple(_keepers):
        keeper.began(memory)
    return memory


def attach(keeper: Keeper) -> None:
    """Tell `keeper` of what lasts, now and from now on."""
    _keepers.append(keeper)
    for memory in all_lasting():
        keeper.began(memory)


def detach(keeper: Keeper) -> None:
    """It is told nothing more. Idempotent."""
    with contextlib.suppress(ValueError):
        _keepers.remove(keeper)


def all_lasting() -> Iterator[Lasting]:
    for reference in tuple(_everything.values()):
        memory = reference()
        if memory is not None:
            yield memory


def _after_fork_in_child() -> None:
    _keepers.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
