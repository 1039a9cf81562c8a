"""Verbs in memory: a fabric of devices in one process, for tests where there is no device.

Bytes really move between registered regions, and what verbs refuse is refused here: keys of another protection domain,
bounds, access flags, messages longer than their slot, too much posted, queues that overflow. What verbs leave open is
left open too: a WRITE that ends in the middle has changed part of the memory, a flushed one may have been done, an
unsignalled one says nothing, a READ's bytes land after later works have begun, completions of a closed queue pair may
still be polled.

Nothing happens in `post`. The fabric takes *turns*: each lets one queue pair do one step. In an event loop turns follow
by themselves, some in each round of the loop; without one, `poll` takes them; a fabric that is `held` takes none but
those that the test asks for by `turn`. Without a seed, steps are whole works in order of posting; with one, the seed
chooses who steps, how large the pieces are, and how many turns late a completion is seen.

A fabric belongs to one thread, but for `register` and `Region.close`. Queue pairs: `soft_queue_pairs`.
"""

import asyncio
import contextlib
import ctypes
import errno
import heapq
import mmap
import os
import random
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, ip_address
from itertools import count

from fs_common.transports.rdma.verbs import (
    Access,
    AsyncEvent,
    Binding,
    Capacity,
    Completion,
    CompletionQueue,
    Counts,
    Device,
    DmaBuf,
    Gid,
    GidKind,
    Kind,
    Path,
    Port,
    PortState,
    RemoteEnd,
    VerbsError,
)
from tests.rdma.soft_queue_pairs import Entry, SoftQueuePair

INLINE_MOST = 512
_libc = ctypes.CDLL(None, use_errno=True)


class Fabric:
    """`devices`: address of each by its name. `seed`: of the order of turns; None: in order, whole works."""

    def __init__(
        self,
        devices: Mapping[str, str] | None = None,
        *,
        seed: int | None = None,
        late_turns: int = 0,
        locked_bytes_max: int | None = None,
        queue_pairs_max: int = 1 << 16,
        reads_max: int = 16,
        mtu_bytes: int = 4096,
    ) -> None:
        self.seed = seed
        self.late_turns = late_turns
        """A completion is seen at most so many turns after it is made; with a seed only."""
        self.locked_bytes_max = locked_bytes_max
        """Of all regions together; None: no limit."""
        self.queue_pairs_max = queue_pairs_max
        self.reads_max = reads_max
        self.mtu_bytes = mtu_bytes
        self.held = False
        self.addresses = {name: _gid(text) for name, text in (devices or {"soft0": "10.77.0.1"}).items()}
        self.down: set[str] = set()
        """Devices whose port is down."""
        self.contexts: list[SoftContext] = []
        self.queue_pairs: dict[int, SoftQueuePair] = {}
        self.locked_bytes = 0
        self.turns = 0
        self.posted: Counter[Kind] = Counter()
        """Work requests by kind, receives among them."""
        self.posts = 0
        """Calls of `post`."""
        self.signalled = 0
        self.moved_bytes: Counter[Kind] = Counter()
        self.faults: list[str] = []
        """What no test may leave here: memory that was gone before its region was closed."""
        self.random = random.Random(seed)
        self._numbers = count(17)
        self._keys = count(0x1001, 7)
        self._busy: dict[int, SoftQueuePair] = {}
        self._late: list[tuple[int, int, SoftCompletionQueue, Entry]] = []
        self._late_order = count()
        self._refusals: dict[str, list[tuple[int, int]]] = {}
        self._scheduled_in: asyncio.AbstractEventLoop | None = None

    # what tests do to it

    def binding(self) -> Binding:
        return SoftBinding(self)

    def turn(self) -> bool:
        """One step. False: there was nothing to do."""
        self.turns += 1
        while self._late and self._late[0][0] <= self.turns:
            _, _, queue, entry = heapq.heappop(self._late)
            queue.add(entry)
        if not self._busy:
            return bool(self._late)
        number = next(iter(self._busy)) if self.seed is None else self.random.choice(list(self._busy))
        pair = self._busy.pop(number)
        if pair.step():
            self._busy[number] = pair
        return True

    def settle(self, most: int = 100_000) -> None:
        """Take turns until there is nothing to do."""
        for _ in range(most):
            if not self.turn():
                return
        raise AssertionError(f"still busy after {most} turns (seed {self.seed})")

    def let_go(self) -> None:
        """The end of being `held`."""
        self.held = False
        self.kick()

    def port_down(self, name: str) -> None:
        self.down.add(name)
        self._tell(name, AsyncEvent.PORT_DOWN)

    def port_up(self, name: str) -> None:
        self.down.discard(name)
        self._tell(name, AsyncEvent.PORT_UP)

    def device_fails(self, name: str) -> None:
        """All its queue pairs fail."""
        for context in self.contexts:
            if context.name == name:
                for pair in list(context.pairs):
                    pair.fail()
        self._tell(name, AsyncEvent.DEVICE_FAILED)

    def refuse(self, call: str, number: int, *, after: int = 0, times: int = 1) -> None:
        """Let calls of that name ("open", "register", "queue_pair", "completion_queue", "connect", "post", "receive")
        fail with this errno: `times` of them, once `after` have passed."""
        self._refusals.setdefault(call, []).extend([(after, number)] + [(0, number)] * (times - 1))

    def counts(self) -> Counts:
        """Of all contexts."""
        each = [context.counts() for context in self.contexts]
        return Counts(*(sum(values) for values in zip(*each, strict=True))) if each else Counts(0, 0, 0)

    # what the parts call

    def check(self, call: str) -> None:
        waiting = self._refusals.get(call)
        if not waiting:
            return
        after, number = waiting[0]
        if after:
            waiting[0] = (after - 1, number)
            return
        waiting.pop(0)
        raise VerbsError(f"{call} was refused: {os.strerror(number)}", number)

    def next_number(self) -> int:
        return next(self._numbers)

    def next_key(self) -> int:
        return next(self._keys)

    def wake(self, pair: SoftQueuePair) -> None:
        """It may have something to do."""
        self._busy[pair.number] = pair
        self.kick()

    def sleep(self, pair: SoftQueuePair) -> None:
        self._busy.pop(pair.number, None)

    def kick(self) -> None:
        if self.held:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._scheduled_in is not loop:
            self._scheduled_in = loop
            loop.call_soon(self._round)

    def poll_round(self) -> None:
        """Without an event loop it is the polling that lets time pass."""
        if self.held:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._some_turns()

    def deliver(self, queue: "SoftCompletionQueue", entry: Entry) -> None:
        if self.seed is None or not self.late_turns:
            queue.add(entry)
            return
        due = max(entry.pair.last_due, self.turns + self.random.randrange(self.late_turns + 1))
        entry.pair.last_due = due
        heapq.heappush(self._late, (due, next(self._late_order), queue, entry))
        self.kick()

    def forget(self, pair: SoftQueuePair) -> None:
        """It is closed. Some devices take its completions with it, some leave them."""
        self.queue_pairs.pop(pair.number, None)
        self.sleep(pair)
        if self.seed is not None and self.random.random() < 0.5:
            self._late = [late for late in self._late if late[3].pair is not pair]
            heapq.heapify(self._late)
            pair.completions.drop(pair)

    def piece(self, length: int) -> int:
        """How much of a work one step moves."""
        if self.seed is None or length <= self.mtu_bytes:
            return length
        return min(length, self.mtu_bytes * self.random.randrange(1, 9))

    def _round(self) -> None:
        self._scheduled_in = None
        if not self.held and self._some_turns():
            self.kick()

    def _some_turns(self) -> bool:
        most = 256 if self.seed is None else self.random.randrange(1, 17)
        return all(self.turn() for _ in range(most))

    def _tell(self, name: str, event: AsyncEvent) -> None:
        for context in self.contexts:
            if context.name == name:
                context.tell(event)


class SoftBinding:
    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.name = "soft verbs"

    def devices(self) -> list[Device]:
        return [_device(self.fabric, name) for name in sorted(self.fabric.addresses)]

    def open(self, name: str) -> "SoftContext":
        self.fabric.check("open")
        if name not in self.fabric.addresses:
            raise VerbsError(f"there is no RDMA device {name}", errno.ENODEV)
        return SoftContext(self.fabric, name)


class SoftContext:
    def __init__(self, fabric: Fabric, name: str) -> None:
        self.fabric = fabric
        self.name = name
        self.by_lkey: dict[int, SoftRegion] = {}
        self.by_rkey: dict[int, SoftRegion] = {}
        self.pairs: list[SoftQueuePair] = []
        self.queues: list[SoftCompletionQueue] = []
        self._events: list[AsyncEvent] = []
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.closed = False
        fabric.contexts.append(self)

    def device(self) -> Device:
        self._open()
        return _device(self.fabric, self.name)

    def register(self, address: int, length: int, access: Access, dmabuf: DmaBuf | None = None) -> "SoftRegion":
        self._open()
        fabric = self.fabric
        fabric.check("register")
        if dmabuf is not None:
            raise VerbsError("memory in memory only: no dma-buf can be registered", errno.EOPNOTSUPP)
        if length < 1 or (access & Access.REMOTE_WRITE and not access & Access.LOCAL_WRITE):
            raise VerbsError(f"{length} bytes with {access!r} cannot be registered", errno.EINVAL)
        if not _mapped(address, length):
            raise VerbsError(f"there is no memory of {length} bytes at {address:#x}", errno.EFAULT)
        if fabric.locked_bytes_max is not None and fabric.locked_bytes + length > fabric.locked_bytes_max:
            raise VerbsError(f"{length} bytes are more than may be locked", errno.ENOMEM)
        return SoftRegion(self, address, length, access)

    def completion_queue(self, depth: int) -> "SoftCompletionQueue":
        self._open()
        self.fabric.check("completion_queue")
        return SoftCompletionQueue(self, depth)

    def queue_pair(self, completions: CompletionQueue, capacity: Capacity) -> SoftQueuePair:
        self._open()
        self.fabric.check("queue_pair")
        assert isinstance(completions, SoftCompletionQueue)
        if completions.closed or completions.context is not self:
            raise VerbsError("a queue pair reports into an open completion queue of its device", errno.EINVAL)
        if capacity.inline_bytes > INLINE_MOST:
            raise VerbsError(f"{capacity.inline_bytes} bytes inline are more than {INLINE_MOST}", errno.EINVAL)
        if len(self.fabric.queue_pairs) >= self.fabric.queue_pairs_max:
            raise VerbsError("no more queue pairs", errno.ENOMEM)
        return SoftQueuePair(self, completions, capacity)

    def async_fileno(self) -> int:
        self._open()
        return self._descriptor

    def take_async_events(self) -> list[AsyncEvent]:
        self._open()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)
        events, self._events = self._events, []
        return events

    def counts(self) -> Counts:
        return Counts(len(self.pairs), len(self.queues), len(self.by_lkey))

    def close(self) -> None:
        if self.closed:
            return
        closing: list[SoftQueuePair | SoftRegion | SoftCompletionQueue] = [*self.pairs]
        closing += self.by_lkey.values()
        closing += self.queues
        for part in closing:
            part.close()
        self.closed = True
        self.fabric.contexts.remove(self)
        os.close(self._descriptor)

    def tell(self, event: AsyncEvent) -> None:
        self._events.append(event)
        os.eventfd_write(self._descriptor, 1)

    def allows(self, regions: Mapping[int, "SoftRegion"], key: int, address: int, length: int, access: Access) -> bool:
        region = regions.get(key)
        return (
            region is not None
            and region.access & access == access
            and region.address <= address
            and address + length <= region.address + region.length
        )

    def _open(self) -> None:
        if self.closed:
            raise VerbsError(f"the device {self.name} is closed", errno.EBADF)


class SoftRegion:
    def __init__(self, context: SoftContext, address: int, length: int, access: Access) -> None:
        self.context = context
        self.address = address
        self.length = length
        self.access = access
        self.lkey = context.fabric.next_key()
        self.rkey = context.fabric.next_key()
        context.by_lkey[self.lkey] = self
        context.by_rkey[self.rkey] = self
        context.fabric.locked_bytes += length

    def close(self) -> None:
        if self.context.by_lkey.pop(self.lkey, None) is None:
            return
        del self.context.by_rkey[self.rkey]
        self.context.fabric.locked_bytes -= self.length
        if not _mapped(self.address, self.length):
            self.context.fabric.faults.append(f"{self.length} bytes at {self.address:#x} went before their region")


class SoftCompletionQueue:
    def __init__(self, context: SoftContext, depth: int) -> None:
        self.context = context
        self.depth = depth
        self.failed = False
        self.closed = False
        self._entries: deque[Entry] = deque()
        self._armed = False
        self._armed_solicited = False
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        context.queues.append(self)

    def fileno(self) -> int:
        self._open()
        return self._descriptor

    def arm(self, solicited: bool = False) -> None:
        self._open()
        if solicited:
            self._armed_solicited = True
        else:
            self._armed = True

    def take_events(self) -> int:
        self._open()
        try:
            return os.eventfd_read(self._descriptor)
        except BlockingIOError:
            return 0

    def poll(self, most: int) -> list[Completion]:
        self._open()
        self.context.fabric.poll_round()
        taken: list[Completion] = []
        while self._entries and len(taken) < most:
            entry = self._entries.popleft()
            if entry.sequence is not None:
                entry.pair.freed(entry.sequence)
            taken.append(entry.completion)
        return taken

    def close(self) -> None:
        if self.closed:
            return
        for pair in [pair for pair in self.context.pairs if pair.completions is self]:
            pair.close()
        self.closed = True
        self.context.queues.remove(self)
        os.close(self._descriptor)

    def add(self, entry: Entry) -> None:
        if self.failed or self.closed:
            return
        if len(self._entries) >= self.depth:
            self.failed = True
            self.context.tell(AsyncEvent.COMPLETION_QUEUE_FAILED)
            for pair in [pair for pair in self.context.pairs if pair.completions is self]:
                pair.fail()
            return
        self._entries.append(entry)
        if self._armed or (self._armed_solicited and entry.solicited):
            self._armed = self._armed_solicited = False
            os.eventfd_write(self._descriptor, 1)

    def drop(self, pair: SoftQueuePair) -> None:
        self._entries = deque(entry for entry in self._entries if entry.pair is not pair)

    def _open(self) -> None:
        if self.closed:
            raise VerbsError("the completion queue is closed", errno.EBADF)


def connect(pairs: Iterable[tuple[SoftQueuePair, SoftQueuePair]]) -> None:
    """Connect each pair to its other, as a setup over TCP does."""
    for one, other in pairs:
        one.connect(_path(one), _remote(other))
        other.connect(_path(other), _remote(one))


def _path(pair: SoftQueuePair) -> Path:
    fabric = pair.context.fabric
    gid = Gid(1, fabric.addresses[pair.context.name], GidKind.ROCE_V2)
    return Path(1, gid, pair.number, fabric.mtu_bytes, fabric.reads_max, fabric.reads_max)


def _remote(pair: SoftQueuePair) -> RemoteEnd:
    return RemoteEnd(pair.number, pair.number, pair.context.fabric.addresses[pair.context.name])


def _gid(text: str) -> bytes:
    address = ip_address(text)
    return b"\0" * 10 + b"\xff\xff" + address.packed if isinstance(address, IPv4Address) else address.packed


def _device(fabric: Fabric, name: str) -> Device:
    port = Port(
        number=1,
        state=PortState.DOWN if name in fabric.down else PortState.ACTIVE,
        mtu_bytes=fabric.mtu_bytes,
        lid=0,
        message_bytes_max=1 << 30,
        gids=(Gid(1, fabric.addresses[name], GidKind.ROCE_V2),),
    )
    return Device(
        name=name,
        ports=(port,),
        queue_pairs_max=fabric.queue_pairs_max,
        work_requests_max=1 << 14,
        completions_max=1 << 15,
        regions_max=1 << 20,
        region_bytes_max=1 << 40,
        reads_max=fabric.reads_max,
    )


def _mapped(address: int, length: int) -> bool:
    """There is memory in all of it."""
    start = address // mmap.PAGESIZE * mmap.PAGESIZE
    pages = (address + length - start + mmap.PAGESIZE - 1) // mmap.PAGESIZE
    return address > 0 and not _libc.mincore(
        ctypes.c_void_p(start), ctypes.c_size_t(pages * mmap.PAGESIZE), bytes(pages)
    )
