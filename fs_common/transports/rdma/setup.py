"""How a connection that began over TCP goes on over RDMA.

    client                                       server
    takes a device, makes a queue pair
    RDMA_CONNECT, its end          --TCP-->      takes a device, makes a queue pair, connects it, posts its slots
    connects its own, posts slots  <--TCP--      its end
    RDMA_READY                     --queue pair-->  moves: all its frames go over the queue pair from now on
    goes on                        <--queue pair--  the answer

So each side has its slots posted before the other knows where to send, and both directions have carried a frame before
anything else relies on them. What fails up to the answer of RDMA_CONNECT leaves the TCP connection as it was. What
fails behind it ends the connection: the server may have moved, and the client cannot know.

Raises to its callers: `EmberError` UNREACHABLE, with the reason.

Concurrency: docs/concurrency/rdma.md.
"""

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from fs_common.errors import Code, EmberError
from fs_common.methods import RDMA_CONNECT, RDMA_READY
from fs_common.records.rdma import QueuePairEnd
from fs_common.records.session import Empty
from fs_common.rpc import Call, Movable, Peer, Reply, Service
from fs_common.transports.rdma.endpoint import CAPACITY, COMPLETIONS, Endpoint, Slots, Traffic, close_all
from fs_common.transports.rdma.link import RdmaLink
from fs_common.transports.rdma.memory import RegisteredMemory
from fs_common.transports.rdma.slabs import SlabPool
from fs_common.transports.rdma.stream import CREDITS, SLOT_BYTES
from fs_common.transports.rdma.verbs import Access, Context, Gid, GidKind, Path, Persistence, RemoteEnd, VerbsError
from fs_common.transports.tcp import TcpLink

FORMAT = 2
"""Of messages: 2 says by which of them a side is to be woken."""
READS_MAX = 16
"""Under way at a time on one connection, if both devices can: with 1 MiB each they fill any wire."""
PERSISTENCE = Persistence()
"""A peer whose device has gone is given up after about half a second; one that died is heard of over TCP at once."""
SETUPS_MAX = 16
"""For one connection: a caller tries each of its ways once, and finding the way to an address may hold a server up."""
WAITING_S = 30.0
"""How long a server's queue pair waits for its first message. Its caller waits for `payload.MOVE_TIMEOUT_S`."""
NAME_MAX = 64
MTU_BYTES_MIN = 256
MTU_BYTES_MAX = 4096


class Local(NamedTuple):
    """This side of a connection: an open device, and the way out of it."""

    context: Context
    memory: RegisteredMemory
    slabs: SlabPool
    traffic: Traffic
    port: int
    gid: Gid
    mtu_bytes: int
    lid: int
    reads_max: int
    """Of the device."""
    opened: Callable[[], None] = lambda: None
    """Told of a queue pair that is made,"""
    closed: Callable[[], None] = lambda: None
    """and of its end;"""
    failed: Callable[[], None] = lambda: None
    """before that, of work that failed, on either side or between."""
    leaves: Callable[[], bool] = lambda: False
    """Asked when memory could not be registered: connections are over TCP for now, and this one is to end."""


class _Half:
    """A queue pair that is not connected yet."""

    def __init__(self, local: Local) -> None:
        """Raises `EmberError`."""
        self._local = local
        self._psn = secrets.randbelow(1 << 24)
        context = local.context
        try:
            self._completions = context.completion_queue(COMPLETIONS)
            try:
                self._queue_pair = context.queue_pair(self._completions, CAPACITY)
            except VerbsError:
                self._completions.close()
                raise
        except VerbsError as error:
            raise _unreachable(local, error) from None
        try:
            self._slots = Slots(local.memory)
        except BaseException:
            close_all(self._queue_pair, self._completions)
            raise

    @property
    def end(self) -> QueuePairEnd:
        local = self._local
        return QueuePairEnd(
            local.context.name,
            local.gid.kind.value,
            local.gid.address,
            self._queue_pair.number,
            self._psn,
            local.mtu_bytes,
            local.lid,
            CREDITS,
            SLOT_BYTES,
            min(local.reads_max, READS_MAX),
            FORMAT,
        )

    def connect(self, other: QueuePairEnd, other_may: Access) -> Endpoint:
        """Ready to send, with slots posted. Raises `EmberError`; nothing is left then.

        `other_may`: servers read and write what their callers lend. Callers do nothing with a server's memory, which
        others' data is in.
        """
        local = self._local
        endpoint = Endpoint(
            self._queue_pair,
            self._completions,
            self._slots,
            local.memory,
            local.slabs,
            local.traffic,
            local.closed,
            local.failed,
            local.leaves,
        )
        local.opened()
        try:
            _check_end(other, local)
            reads = max(min(other.reads_max, local.reads_max, READS_MAX), 1)
            mtu_bytes = min(local.mtu_bytes, other.mtu_bytes)
            path = Path(local.port, local.gid, self._psn, mtu_bytes, reads, reads, PERSISTENCE, other_may)
            self._queue_pair.connect(path, RemoteEnd(other.number, other.psn, other.gid, other.lid))
            self._queue_pair.receive(self._slots.receives)
        except VerbsError as error:
            endpoint.close()
            raise _unreachable(local, error) from None
        except BaseException:
            endpoint.close()
            raise
        return endpoint

    def close(self) -> None:
        close_all(self._queue_pair, self._completions)
        self._slots.close()


def _check_words(end: QueuePairEnd) -> None:
    """What is said of an end goes into messages."""
    for name in (end.device, end.kind):
        if len(name) > NAME_MAX or not name.isprintable():
            raise EmberError(Code.UNREACHABLE, f"{name[:NAME_MAX]!r} names no device and no kind of address")


def _check_end(other: QueuePairEnd, local: Local) -> None:
    _check_words(other)
    if other.format != FORMAT or (other.slots, other.slot_bytes) != (CREDITS, SLOT_BYTES):
        raise EmberError(
            Code.UNREACHABLE,
            f"the other side's messages over RDMA are of format {other.format} with {other.slots} slots of"
            f" {other.slot_bytes} bytes, not {FORMAT} with {CREDITS} of {SLOT_BYTES}; upgrade the older side",
        )
    if other.kind != local.gid.kind.value:
        raise EmberError(
            Code.UNREACHABLE,
            f"{other.device} has an address of {other.kind}, {local.context.name} one of {local.gid.kind.value}",
        )
    mtu_bytes = other.mtu_bytes
    good = (
        len(other.gid) == 16
        and 0 <= other.number < 1 << 24
        and 0 <= other.psn < 1 << 24
        and 0 <= other.lid < 1 << 16
        and MTU_BYTES_MIN <= mtu_bytes <= MTU_BYTES_MAX
        and mtu_bytes.bit_count() == 1
    )
    if not good:
        raise EmberError(Code.UNREACHABLE, f"{other.device} says what no queue pair can be")


def _unreachable(local: Local, error: VerbsError) -> EmberError:
    return EmberError(Code.UNREACHABLE, f"RDMA device {local.context.name}: {error}")


def other_gid(end: QueuePairEnd) -> Gid:
    """The other side's address, to choose a device by. Raises `EmberError`."""
    _check_words(end)
    try:
        kind = GidKind(end.kind)
    except ValueError:
        raise EmberError(Code.UNREACHABLE, f"{end.kind!r} is no kind of address that is known here") from None
    if len(end.gid) != 16:
        raise EmberError(Code.UNREACHABLE, f"an address of {len(end.gid)} bytes, not 16")
    return Gid(0, end.gid, kind)


# --- client ---------------------------------------------------------------------------------------------------------


class Broken(EmberError):
    """The connection cannot be used any more, over TCP either: connect again."""


async def upgrade(peer: Peer, local: Local, timeout: float) -> None:
    """Let a greeted connection over TCP go on over RDMA, within `timeout` seconds. No other call is under way on it.

    Raises `EmberError`, UNREACHABLE: it goes on over TCP. Raises `Broken`: it is closed.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    tcp = peer.link
    if type(tcp) is not TcpLink:
        raise EmberError(Code.UNREACHABLE, "RDMA is not encrypted: a connection over TLS does not move to it")
    half = _Half(local)
    try:
        answer = await peer.call(RDMA_CONNECT, half.end, timeout=timeout)
    except EmberError as error:
        half.close()
        if peer.closed:
            raise Broken(Code.UNREACHABLE, error.message) from None
        raise EmberError(Code.UNREACHABLE, f"RDMA: {error.message}") from None
    except BaseException:
        half.close()
        raise
    if peer.closed:
        # Behind the answer, and before this task went on.
        half.close()
        raise Broken(Code.UNREACHABLE, "the connection was closed while it was to move to RDMA")
    endpoint = half.connect(answer, Access.REMOTE_READ | Access.REMOTE_WRITE)
    link = RdmaLink(tcp, endpoint, loop)
    peer.move(link)
    link.start(peer)
    try:
        await peer.call(RDMA_READY, Empty(), timeout=max(deadline - loop.time(), 0.001))
    except EmberError as error:
        await peer.close()
        raise Broken(
            Code.UNREACHABLE,
            f"RDMA from {local.context.name} ({local.gid.ip}) to {answer.device} does not get through: {error.message}",
        ) from None
    except BaseException:
        await peer.close()
        raise


# --- server ---------------------------------------------------------------------------------------------------------

Choose = Callable[[QueuePairEnd, str], Local]
"""This side's device for a caller's end, and its name. Raises `EmberError`, UNREACHABLE: none reaches it."""


class _Waiting:
    """The queue pair of one connection on the server's side, from RDMA_CONNECT on."""

    def __init__(self, connection: Movable) -> None:
        self._connection = connection
        self._link: RdmaLink | None = None
        """None: there is none, or the connection has moved to it, and ends with it."""
        self._setups = 0
        self._timer: asyncio.TimerHandle | None = None

    def make(self, tcp: TcpLink, end: QueuePairEnd, choose: Callable[[], Local]) -> QueuePairEnd:
        """Another one for the caller's `end`. Raises `EmberError`."""
        # The caller could not use what it was answered, if it was, and tries another of its devices.
        self.close()
        self._setups += 1
        if self._setups > SETUPS_MAX:
            raise EmberError(Code.INVALID, f"this connection has tried to move to RDMA {SETUPS_MAX} times")
        loop = asyncio.get_running_loop()
        half = _Half(choose())
        ours = half.end
        self._link = RdmaLink(tcp, half.connect(end, Access.NOTHING), loop)
        self._link.stand_by(self._connection, self._move)
        self._timer = loop.call_later(WAITING_S, self.close)
        return ours

    def _move(self) -> None:
        link = self._taken()
        if link is not None:
            self._connection.move(link)

    def close(self) -> None:
        link = self._taken()
        if link is not None:
            link.abort(EmberError(Code.PEER_GONE, f"connection {link.name} is over"))

    def _taken(self) -> RdmaLink | None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        link, self._link = self._link, None
        return link


def offer(service: Service, choose: Choose) -> None:
    """Let callers of `service` go on over RDMA. Those that are connected already do not know of it."""

    def connect(call: Call) -> Reply:
        session = call.session
        connection = session.connection
        tcp = None if connection is None else connection.link
        if connection is None or type(tcp) is not TcpLink:
            raise EmberError(Code.INVALID, "this connection cannot move to RDMA")
        waiting = session.transport
        if waiting is None:
            session.transport = waiting = _Waiting(connection)
        assert isinstance(waiting, _Waiting)
        return Reply(waiting.make(tcp, call.request, partial(choose, call.request, session.address)))

    def ready(call: Call) -> Reply:
        return Reply(Empty())

    service.register(RDMA_CONNECT, connect)
    service.register(RDMA_READY, ready)
    service.transports = ("rdma",)
