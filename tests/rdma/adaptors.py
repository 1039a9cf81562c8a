"""Bindings to test, and two connected ends over one of them."""

import ctypes
import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from fs_common.transports.rdma.verbs import (
    Access,
    Binding,
    Capacity,
    Completion,
    CompletionQueue,
    Context,
    Device,
    Gid,
    GidKind,
    Kind,
    Path,
    Persistence,
    Port,
    PortState,
    QueuePair,
    Region,
    RemoteEnd,
    Work,
)
from tests.support import PATIENCE

ROOMY = Capacity(64, 64)
ALL = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ
LIMIT_S = 30 * PATIENCE
"""For what comes at once but on a machine that is overloaded: then the test fails."""
PATIENT = Persistence()
HASTY = Persistence(timeout=12, retries=2, receiver_timer=1, receiver_retries=1)
"""Gives up soon."""
_numbers = count(1)


class Memory:
    """Bytes with an address."""

    def __init__(self, length: int) -> None:
        self.bytes = mmap.mmap(-1, length)
        self._pin = (ctypes.c_char * length).from_buffer(self.bytes)
        self.address = ctypes.addressof(self._pin)
        self.length = length

    def __getitem__(self, part: slice) -> bytes:
        return self.bytes[part]

    def __setitem__(self, part: slice, value: bytes) -> None:
        self.bytes[part] = value

    def close(self) -> None:
        del self._pin
        self.bytes.close()


class End:
    """One end of a connection, with memory of its own."""

    def __init__(self, context: Context, size: int, capacity: Capacity, depth: int) -> None:
        self.context = context
        self.memory = Memory(size)
        self.region: Region = context.register(self.memory.address, size, ALL)
        self.completions: CompletionQueue = context.completion_queue(depth)
        self.pair: QueuePair = context.queue_pair(self.completions, capacity)

    def connect(
        self,
        other: "End",
        persistence: Persistence = PATIENT,
        mtu_bytes: int | None = None,
        other_may: Access = ALL,
    ) -> None:
        """To one on the same device. `mtu_bytes` None: the port's."""
        device = self.context.device()
        port, gid = port_of(device)
        reads = min(device.reads_max, 16)
        mtu_bytes = mtu_bytes or port.mtu_bytes
        path = Path(port.number, gid, self.pair.number, mtu_bytes, reads, reads, persistence, other_may)
        self.pair.connect(path, RemoteEnd(other.pair.number, other.pair.number, gid.address))

    def work(
        self,
        kind: Kind,
        other: "End | None" = None,
        length: int = 64,
        *,
        offset: int = 0,
        to: int = 0,
        signalled: bool = True,
        inline: bool = False,
        id: int | None = None,
        lkey: int | None = None,
        rkey: int | None = None,
    ) -> Work:
        return Work(
            kind,
            next(_numbers) if id is None else id,
            self.memory.address + offset,
            length,
            self.region.lkey if lkey is None else lkey,
            0 if other is None else other.memory.address + to,
            (0 if other is None else other.region.rkey) if rkey is None else rkey,
            signalled,
            inline,
        )

    def wait(self, how_many: int = 1) -> list[Completion]:
        return wait(self.completions, how_many)

    def close(self) -> None:
        self.pair.close()
        self.region.close()
        self.completions.close()
        self.memory.close()


def wait(completions: CompletionQueue, how_many: int) -> list[Completion]:
    """That many completions, and no more are there by then."""
    got: list[Completion] = []
    end = time.monotonic() + LIMIT_S
    while len(got) < how_many:
        got += completions.poll(16)
        assert len(got) >= how_many or time.monotonic() < end, f"{len(got)} of {how_many} completions: {got}"
    assert len(got) == how_many, got
    return got


def port_of(device: Device) -> tuple[Port, Gid]:
    """The first that is active, and its GID: RoCE v2, of IPv4 where there is one."""
    for port in device.ports:
        gids = [gid for gid in port.gids if gid.kind is GidKind.ROCE_V2]
        if port.state is PortState.ACTIVE and gids:
            return port, min(gids, key=lambda gid: gid.ip.version)
    raise AssertionError(f"no port with a GID: {device}")


@contextmanager
def ends(
    binding: Binding,
    *,
    size: int = 1 << 20,
    capacity: Capacity = ROOMY,
    depth: int = 512,
    persistence: Persistence = PATIENT,
    mtu_bytes: int | None = None,
    one_may: Access = ALL,
) -> Iterator[tuple[End, End]]:
    """Two, connected, each with an open device of its own."""
    name = binding.devices()[0].name
    contexts = [binding.open(name) for _ in range(2)]
    try:
        one, other = (End(context, size, capacity, depth) for context in contexts)
        one.connect(other, persistence, mtu_bytes)
        other.connect(one, persistence, mtu_bytes, one_may)
        yield one, other
        one.close()
        other.close()
    finally:
        for context in contexts:
            context.close()
