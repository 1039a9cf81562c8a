"""Registered memory of one open device: what an adapter may move bytes to and from.

Three kinds of regions:

* Lasting: memory that was announced by `fs_common.lasting`. Registered when it is first used, found by address.
* Kept: of `bytes` and numpy arrays that own their memory, registered for a call and kept for the next one that uses
  them, within `CACHE_BYTES_MAX` and `CACHE_AGE_S`. An export pins them; their owners notice no more of it than that
  their memory goes a little later.
* For one use alone: everything else. A bytearray can be resized and an `mmap` closed as soon as its use is over.

Invariants:

* No region outlives its memory: each holds its memory (a memoryview or the object itself) until it is deregistered. Of
  memory by address alone the owner's word stands: `lasting.Lasting.close` refuses while it is in use.
* What is used stays registered: a region has a count of uses; one that is over is deregistered with its last use.
* A region that is over is found by nobody any more, from the moment on that its end was told.
* In a forked child nothing is deregistered: what is registered is the parent's.

`local` and `remote` take the views of a whole call at once. In the common case, all of them in one region, no bytecode
runs for each view.

Any thread may tell of lasting memory; everything else runs on the device's loop.

Concurrency: docs/concurrency/registered_memory.md.
"""

import errno
import logging
import os
import threading
import weakref
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from operator import add
from typing import Any, NamedTuple, Protocol

from fs_common import lasting
from fs_common.checks import check, violated
from fs_common.errors import Code, EmberError
from fs_common.lasting import Lasting
from fs_common.limits import MIB
from fs_common.transports.rdma import locked_memory
from fs_common.transports.rdma.addresses import (
    View,
    address_of,
    addresses_of,
    addressof,
    from_buffer,
    owner_of,
    spans,
)
from fs_common.transports.rdma.verbs import Access, DmaBuf, Region, VerbsError

logger = logging.getLogger(__name__)

LOCAL_READ = 0
"""Every region allows it."""
LOCAL_WRITE = int(Access.LOCAL_WRITE)
REMOTE_WRITE = int(Access.REMOTE_WRITE)
REMOTE_READ = int(Access.REMOTE_READ)
"""Rights, as plain numbers: combining flags of an enum takes longer than finding a region."""
ALL_RIGHTS = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ

CACHE_BYTES_MAX = 256 * MIB
CACHE_REGIONS_MAX = 1024
CACHE_AGE_S = 5.0
"""Since their last use: so long an array that nobody else holds may keep its memory."""
CACHE_LOOK_S = 1.0
TOLD_MAX = 256
TOLD_WAIT_S = 1.0


class Registrar(Protocol):
    """What this needs of an open device; a `verbs.Context` is one."""

    def register(self, address: int, length: int, access: Access, dmabuf: DmaBuf | None = None) -> Region: ...


class Timers(Protocol):
    """What this needs of an event loop."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any: ...

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> Any: ...


class MemoryRefused(EmberError):
    """Memory could not be registered; nothing was sent. Its text says how much, what the limit is, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.UNREACHABLE, message)
        self.errno = errno.ENOMEM


class _Entry:
    """Memory that is, or can be, registered."""

    __slots__ = (
        "address",
        "dmabuf",
        "end",
        "kept_since",
        "lasts",
        "lkey",
        "over",
        "passing",
        "pin",
        "region",
        "rights",
        "rkey",
        "shift",
        "told_by",
        "uses",
    )

    def __init__(
        self, address: int, length: int, rights: int, pin: object, dmabuf: tuple[int, int] | None = None
    ) -> None:
        self.address = address
        self.end = address + length
        self.rights = rights
        self.pin = pin
        """Holds the memory; None: nothing does."""
        self.dmabuf = dmabuf
        self.region: Region | None = None
        """None: not registered, as yet or any more."""
        self.lkey = 0
        self.rkey = 0
        self.shift = 0
        """What keys and work requests count from may be another address, of a dma-buf's memory."""
        self.uses = 0
        """By work that may be outstanding."""
        self.over = False
        """Nothing new may use it; it goes with its last use."""
        self.lasts = False
        self.passing = False
        """It lasts for one operation."""
        self.told_by = 0
        """Id of the `Lasting`."""
        self.kept_since: float | None = None
        """When its last use ended, of one that is kept; None: it is not, or is in use."""


class Use:
    """Of the memory of one call or one piece of work: it stays registered until `release`."""

    __slots__ = ("_entries", "_memory")

    def __init__(self, memory: "RegisteredMemory", entries: Sequence[_Entry]) -> None:
        self._memory = memory
        self._entries: Sequence[_Entry] | None = entries

    def release(self) -> None:
        """No work with this memory is outstanding any more, or its queue pair is destroyed. Called once."""
        entries, self._entries = self._entries, None
        if entries is None:
            violated("a use of registered memory is released once")
        memory = self._memory
        if memory._closed:
            return
        with memory._lock:
            for entry in entries:
                entry.uses -= 1
                if not entry.uses and (entry.over or not entry.lasts):
                    memory._unused(entry)
        if memory._told:
            memory._take_in()


class UseOfOne(Use):
    """The usual one."""

    __slots__ = ("_entry",)

    def __init__(self, memory: "RegisteredMemory", entry: _Entry) -> None:
        self._memory = memory
        self._entry: _Entry | None = entry

    def release(self) -> None:
        entry, self._entry = self._entry, None
        if entry is None:
            violated("a use of registered memory is released once")
        memory = self._memory
        if memory._closed:
            return
        with memory._lock:
            entry.uses -= 1
            if not entry.uses and (entry.over or not entry.lasts):
                memory._unused(entry)
        if memory._told:
            memory._take_in()


class Lent(NamedTuple):
    """Registered memory, view by view; an empty view has address and key 0."""

    addresses: list[int]
    lengths: list[int]
    keys: Sequence[int]
    """Local or remote ones, as was asked for."""
    use: Use

    def pieces(self) -> list[tuple[int, int, int]]:
        """(address, length, key) of each view."""
        return list(zip(self.addresses, self.lengths, self.keys, strict=True))


class RegisteredMemory:
    """All regions of one open device. Made when it is opened; `close` before the device is."""

    def __init__(
        self,
        device: Registrar,
        timers: Timers,
        name: str = "",
        refused: Callable[[MemoryRefused], None] = lambda error: None,
    ) -> None:
        """`refused` is told of memory that links could not get registered; it must not ask for any."""
        self.name = name
        """Of the device, for messages."""
        self.regions = 0
        """Registered now."""
        self.bytes = 0
        """In them; memory that two regions cover counts twice."""
        self.registrations = 0
        """So far."""
        self.refusals = 0
        """Registrations that failed."""
        self.kept_bytes = 0
        """In regions that are kept for the next use."""
        self._device = device
        self._refused = refused
        self._timers = timers
        self._lock = threading.Lock()
        """Guards everything below, and the entries. Held for a few instructions, or for one registration. Who tells of
        lasting memory never waits for it: that may be a finalizer, in the midst of what is guarded."""
        self._told: deque[tuple[int, _Entry | None]] = deque()
        """Lasting memory that began or (None) ended, by id; taken in by whoever has the lock, in order."""
        self._lasting: dict[int, _Entry] = {}
        """By id of the `Lasting`."""
        self._starts: list[int] = []
        """Addresses of `_index`'s entries."""
        self._index: list[_Entry] = []
        """Entries that may be found, in order of address and end."""
        self._kept: OrderedDict[int, _Entry] = OrderedDict()
        """By id of the entry, of those that are kept; the one not used for longest is first."""
        self._ending: set[_Entry] = set()
        """Over, and in use."""
        self._stuck: list[object] = []
        """Holds memory whose region could not be deregistered."""
        self._timer: Any = None
        self._closed = False
        """Or all of it is a forked child's parent's."""
        _all.add(self)
        lasting.attach(self)

    # --- for links --------------------------------------------------------------------------------------------------

    def local(self, views: Sequence[View], rights: int = LOCAL_WRITE) -> Lent:
        """Memory for work of this side: with local keys. `rights` LOCAL_READ: it is only read.

        Raises `MemoryRefused`. The caller holds the views at least until it releases the use.
        """
        return self._lend(views, rights, remote=False)

    def remote(self, views: Sequence[View], rights: int) -> Lent:
        """Memory for the other side to use: with remote keys. `rights`: REMOTE_READ, or REMOTE_WRITE to be filled.

        Raises `MemoryRefused`. The caller holds the views at least until it releases the use.
        """
        return self._lend(views, rights, remote=True)

    def one(self, view: View, rights: int, remote: bool) -> tuple[int, int, Use]:
        """`local` or `remote` of a single view: its address, its key, its use. The usual call has one."""
        try:
            address = addressof(from_buffer(view))
        except (TypeError, ValueError):
            address = address_of(view)
        with self._lock:
            if self._told:
                self._take_in_locked()
            i = bisect_right(self._starts, address)
            if i:
                entry = self._index[i - 1]
                if (
                    address + len(view) <= entry.end
                    and entry.lasts
                    and entry.region is not None
                    and not rights & ~entry.rights
                ):
                    entry.uses += 1
                    return address + entry.shift, entry.rkey if remote else entry.lkey, UseOfOne(self, entry)
        lent = self._lend((view,), rights, remote=remote)
        return lent.addresses[0], lent.keys[0], lent.use

    def _lend(self, views: Sequence[View], rights: int, *, remote: bool) -> Lent:
        # Once for every call and every piece of work with payload: flat, and no bytecode for each view.
        rights = int(rights)
        lengths = list(map(len, views))
        addresses = addresses_of(views)
        if not addresses:
            return Lent([], [], (), Use(self, ()))
        low = min(addresses)
        high = max(map(add, addresses, lengths))
        with self._lock:
            if self._told:
                self._take_in_locked()
            entry: _Entry | None = None
            i = bisect_right(self._starts, low)
            if i:
                entry = self._index[i - 1]
                if high > entry.end or rights & ~entry.rights or entry.region is None:
                    entry = self._find(low, high, rights)
            if entry is not None:
                if entry.region is None or not entry.lasts:
                    self._use(entry)
                else:
                    entry.uses += 1
                if entry.shift:
                    addresses = [address + entry.shift for address in addresses]
                keys = [entry.rkey if remote else entry.lkey] * len(addresses)
                return Lent(addresses, lengths, keys, Use(self, (entry,)))
        return self._lend_each(views, addresses, lengths, rights, remote=remote)

    def _lend_each(
        self,
        views: Sequence[View],
        addresses: list[int],
        lengths: list[int],
        rights: int,
        *,
        remote: bool,
    ) -> Lent:
        """Each view in its own region, found or made."""
        keys = [0] * len(views)
        used: dict[int, _Entry] = {}
        unknown: dict[int, tuple[object, bool, list[int]]] = {}
        """By id of the object that has the memory: it, whether it may be kept, and which views are of it."""
        with self._lock:
            try:
                for i, (address, length) in enumerate(zip(addresses, lengths, strict=True)):
                    if not length:
                        continue
                    entry = self._find(address, address + length, rights)
                    if entry is None:
                        owner, keep = owner_of(views[i])
                        unknown.setdefault(id(owner), (owner, keep, []))[2].append(i)
                        continue
                    if id(entry) not in used:
                        used[id(entry)] = entry
                        self._use(entry)
                    keys[i] = entry.rkey if remote else entry.lkey
                    addresses[i] = address + entry.shift
                for owner, keep, members in unknown.values():
                    for low, high, group in spans(members, addresses, lengths):
                        pins = [memoryview(views[i]) for i in group]  # which nobody else releases
                        entry = self._register_span(low, high - low, rights, owner, pins, keep=keep)
                        used[id(entry)] = entry
                        key = entry.rkey if remote else entry.lkey
                        for i in group:
                            keys[i] = key
            except BaseException:
                for entry in used.values():
                    entry.uses -= 1
                    if not entry.uses:
                        self._unused(entry)
                raise
        return Lent(addresses, lengths, keys, Use(self, tuple(used.values())))

    def _find(self, low: int, high: int, rights: int) -> _Entry | None:
        """An entry that covers these bytes with these rights."""
        index = self._index
        i = bisect_right(self._starts, low)
        # Regions may overlap, so the nearest before it need not be the one. What is not found is registered once more.
        if i:
            entry = index[i - 1]
            if high <= entry.end and not rights & ~entry.rights:
                return entry
            if i > 1 and high <= (entry := index[i - 2]).end and not rights & ~entry.rights:
                return entry
        return None

    def _use(self, entry: _Entry) -> None:
        if entry.region is None:
            self._register(entry)
        entry.uses += 1
        if entry.kept_since is not None:
            entry.kept_since = None
            self._kept.move_to_end(id(entry))

    def _register_span(
        self, address: int, length: int, rights: int, owner: object, views: Sequence[object], *, keep: bool
    ) -> _Entry:
        """A region, with one use, for memory that nobody announced."""
        # What the other side may write to has to be writable for the adapter as well.
        if rights & REMOTE_WRITE:
            rights |= LOCAL_WRITE
        keep = keep and length <= CACHE_BYTES_MAX
        if keep:
            self._make_room(length)
        entry = _Entry(address, length, rights, owner if keep else views)
        self._register(entry)
        entry.uses = 1
        if keep:
            self._add_kept(entry)
            self._insert(entry)
            self._begin_looking()
        else:
            entry.over = True
        return entry

    def _keep(self, entry: _Entry) -> bool:
        """The operation is over that the entry was for. Keep it for the next one, if that may be."""
        length = entry.end - entry.address
        view = entry.pin
        if entry.region is None or length > CACHE_BYTES_MAX or type(view) is not memoryview or not owner_of(view)[1]:
            return False
        self._make_room(length)
        entry.lasts = entry.passing = False
        if not entry.uses:
            entry.kept_since = self._timers.time()
        self._add_kept(entry)
        # This may be another thread's doing.
        self._timers.call_soon_threadsafe(self._begin_looking)
        return True

    def _add_kept(self, entry: _Entry) -> None:
        self._kept[id(entry)] = entry
        self.kept_bytes += entry.end - entry.address

    def _begin_looking(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = self._timers.call_later(CACHE_LOOK_S, self._look)

    def _unused(self, entry: _Entry) -> None:
        """Its last use is over."""
        if entry.over:
            self._deregister(entry)
        elif not entry.lasts:
            entry.kept_since = self._timers.time()

    # --- what is kept -----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """End what was not used for too long; look again while something is kept."""
        with self._lock:
            old = self._timers.time() - CACHE_AGE_S
            for entry in tuple(self._kept.values()):
                if entry.kept_since is not None and entry.kept_since <= old:
                    self._end(entry)
            self._timer = self._timers.call_later(CACHE_LOOK_S, self._look) if self._kept else None
        self._take_in()

    def _make_room(self, length: int) -> None:
        """What is in use counts, but stays."""
        if self.kept_bytes + length <= CACHE_BYTES_MAX and len(self._kept) < CACHE_REGIONS_MAX:
            return
        for entry in tuple(self._kept.values()):
            if not entry.uses:
                self._end(entry)
                if self.kept_bytes + length <= CACHE_BYTES_MAX and len(self._kept) < CACHE_REGIONS_MAX:
                    return

    # --- lasting memory ---------------------------------------------------------------------------------------------

    def began(self, memory: Lasting) -> None:
        view = memory.view
        if not memory.length:
            return
        if view is None:
            entry = _Entry(memory.address, memory.length, ALL_RIGHTS, None, memory.dmabuf)
        else:
            rights = REMOTE_READ if view.readonly else LOCAL_WRITE | REMOTE_WRITE if memory.passing else ALL_RIGHTS
            entry = _Entry(address_of(view), memory.length, rights, view)
        entry.lasts = True
        entry.passing = memory.passing
        self._told.append((id(memory), entry))
        self._take_in()
        # Each holds memory. Whoever makes more of it, which finalizers do not, waits for others to keep up; not for
        # ever, should that be what he is called from.
        if len(self._told) > TOLD_MAX and self._lock.acquire(timeout=TOLD_WAIT_S):
            try:
                self._take_in_locked()
            finally:
                self._lock.release()

    def ended(self, memory: Lasting) -> None:
        self._told.append((id(memory), None))
        self._take_in()

    def holds(self, memory: Lasting) -> bool:
        with self._lock:
            self._take_in_locked()
            return id(memory) in self._lasting or any(entry.told_by == id(memory) for entry in self._ending)

    def prepare(self, memory: Lasting) -> None:
        """Register it now. Raises `MemoryRefused`."""
        with self._lock:
            self._take_in_locked()
            entry = self._lasting.get(id(memory))
        if entry is None or entry.region is not None:
            return
        # That takes long for much memory, and others need the lock.
        region = self._ask(entry)
        with self._lock:
            wanted = entry.region is None and not entry.over
            if wanted:
                self._registered(entry, region)
        if not wanted:
            region.close()
        self._take_in()

    def _take_in(self) -> None:
        """Unless somebody has the lock: he does it, having given it back."""
        while self._told and self._lock.acquire(blocking=False):
            try:
                self._take_in_locked()
            finally:
                self._lock.release()

    def _take_in_locked(self) -> None:
        # What is told meanwhile is for the next one: others may tell faster than this takes in.
        for _ in range(len(self._told)):
            number, entry = self._told.popleft()
            if entry is None:
                known = self._lasting.pop(number, None)
                if known is not None and not (known.passing and self._keep(known)):
                    self._end(known)
            elif number not in self._lasting and not self._closed:
                if entry.passing and self._find(entry.address, entry.end, entry.rights) is not None:
                    continue
                entry.told_by = number
                self._lasting[number] = entry
                self._insert(entry)

    # --- regions ----------------------------------------------------------------------------------------------------

    def _insert(self, entry: _Entry) -> None:
        i = bisect_right(self._starts, entry.address)
        while i and self._index[i - 1].address == entry.address and self._index[i - 1].end > entry.end:
            i -= 1
        self._starts.insert(i, entry.address)
        self._index.insert(i, entry)

    def _end(self, entry: _Entry) -> None:
        """Nobody finds it any more; it goes now, or with its last use."""
        i = bisect_left(self._starts, entry.address)
        while self._index[i] is not entry:
            i += 1
        del self._starts[i], self._index[i]
        entry.over = True
        if self._kept.pop(id(entry), None) is not None:
            self.kept_bytes -= entry.end - entry.address
        if entry.uses:
            self._ending.add(entry)
        else:
            self._deregister(entry)

    def _register(self, entry: _Entry) -> None:
        try:
            region = self._ask(entry)
        except MemoryRefused as error:
            self._refused(error)
            raise
        self._registered(entry, region)

    def _ask(self, entry: _Entry) -> Region:
        check(not self._closed, "memory is registered with an open device", self.name)
        length = entry.end - entry.address
        dmabuf = None if entry.dmabuf is None else DmaBuf(*entry.dmabuf)
        try:
            return self._device.register(entry.address, length, Access(entry.rights), dmabuf)
        except VerbsError as error:
            self.refusals += 1
            raise MemoryRefused(locked_memory.refusal(self.name, length, self.bytes, error)) from error

    def _registered(self, entry: _Entry, region: Region) -> None:
        entry.region = region
        entry.shift = region.address - entry.address
        entry.lkey = region.lkey
        entry.rkey = region.rkey
        self.regions += 1
        self.bytes += entry.end - entry.address
        self.registrations += 1

    def _deregister(self, entry: _Entry) -> None:
        region, entry.region = entry.region, None
        if region is not None:
            self.regions -= 1
            self.bytes -= entry.end - entry.address
            try:
                region.close()
            except VerbsError as error:
                logger.warning("memory of RDMA device %s: %s", self.name, error)
                self._stuck.append(entry.pin)
        self._ending.discard(entry)
        entry.pin = None

    # --- its end ----------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """This is a forked child: all of it is the parent's, and stays as it is, for ever."""
        self._lock = threading.Lock()
        self._closed = True
        self._told.clear()

    def close(self) -> None:
        """Deregister everything. All queue pairs of the device are destroyed: nothing is in use, whatever the counts
        say. Idempotent."""
        lasting.detach(self)
        with self._lock:
            if self._closed:
                return
            self._take_in_locked()
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            for entry in [*self._index, *self._ending]:
                entry.over = True
                self._deregister(entry)
            self._lasting.clear()
            self._kept.clear()
            self._starts.clear()
            self._index.clear()
            self.kept_bytes = 0

    def stats(self) -> dict[str, int]:
        return {
            "rdma_regions": self.regions,
            "rdma_registered_bytes": self.bytes,
            "rdma_kept_bytes": self.kept_bytes,
            "rdma_registrations": self.registrations,
            "rdma_registrations_refused": self.refusals,
        }


# --- forks ----------------------------------------------------------------------------------------------------------

_all: "weakref.WeakSet[RegisteredMemory]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """What the child inherits is the parent's, and its locks may be held by threads that the child does not have."""
    for memory in tuple(_all):
        memory.abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
