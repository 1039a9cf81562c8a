"""One attempt to hand updates to the successor, and what its outcome means.

The successor gets the updates of one request in one frame, the payload straight from the memory it was received
into. A version that an interrupted update left pending is sent whole, from the store: whatever bytes a client sends
the second time, replicas get the ones that are here. A syncing successor is sent whole versions, too.

Who is asked is the successor of the place that the attempt is made from, whatever has become of the chain since.

Frames to different positions use different connections, because a connection has a bound on the bytes in work behind
it: frames for a tail must never wait behind frames that wait for a tail. What fills up a replica goes over connections
of its own, so that updates do not wait behind it. Connections to a node that routing does not call UP are ended: nobody
waits there for a timeout.

Called by: `updates`. Pure of protocol decisions: those are the core's.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple

from fs_common.buffers import BufferPool
from fs_common.checks import check
from fs_common.checksums import page_checksums
from fs_common.errors import Code, EmberError, Retry, code_of
from fs_common.ids import split_chunk_id
from fs_common.layout import Durability
from fs_common.limits import CHUNK_SIZE_MIN
from fs_common.methods import AT_VERSION, COMMITTED_VERSIONS, UPDATE_CHUNKS
from fs_common.peers import Address, MakePool, PeerPool
from fs_common.records.resync import AtVersion
from fs_common.records.routing import NodeState, Routing
from fs_common.records.storage import (
    CommittedVersions,
    CommittedVersionsReply,
    UpdateChunks,
    UpdateChunksReply,
    UpdateItem,
    UpdateKind,
)
from fs_common.rpc import Part
from fs_storage.craq.apportion import Told
from fs_storage.craq.operation import Failure, Operation, Step
from fs_storage.craq.position import Position
from fs_storage.engine.digest import NOTHING_DIGEST
from fs_storage.engine.interface import ChunkStore, WouldBlock
from fs_storage.into_memory import read_into
from fs_storage.target import Target
from fs_storage.targets import Targets

CALL_S_MIN = 0.005
"""With less time than this left an attempt is not begun."""
_FINAL = frozenset(
    (
        Code.NO_SPACE,
        Code.INVALID,
        Code.DISK_FAILED,
        Code.UPDATE_MISSING,
        Code.UPDATE_STALE,
        Code.REPLICAS_DIFFER,
        Code.TOO_LARGE,
        Code.BAD_BODY,
        Code.UNKNOWN_METHOD,
        Code.VERSION_MISMATCH,
        Code.WRONG_CLUSTER,
    )
)
"""Answers of a successor that another attempt would get again."""
_CORRUPT = frozenset((Code.CHECKSUM, Code.INTERNAL))
"""Answers that another attempt may change, but not many."""
CORRUPT_ATTEMPTS_MAX = 3
_UNCLEAR = frozenset((Code.BAD_FRAME, Code.BAD_BODY, Code.TOO_LARGE))
"""What a call may also end with because its connection did, whatever has become of its own request: that one may have
been applied, whatever the table promises of the answer."""
RESENDS_MAX = 4
"""Whole chunks on their way to successors at one position at the same time: their memory is not that of a request."""
PUSHES_MAX = 8
"""Frames on their way to fill up replicas at the same time."""
_TOLD = (_FINAL | {Code.CHECKSUM}) - _UNCLEAR
"""What the predecessor, or the client, is told under its own name."""


class Accepted(NamedTuple):
    """The successor has committed the update."""

    version: int
    length: int


class Refused(NamedTuple):
    """It has not, or did not say so."""

    failure: Failure
    final: bool
    """Another attempt would get the same answer."""
    silent: bool = False
    """There was no answer at all, so an earlier attempt's reason says more."""


Outcome = Accepted | Refused


class Forwarder:
    def __init__(self, make_pool: MakePool, targets: Targets, pool: BufferPool, threads: Executor) -> None:
        self._make_pool = make_pool
        self._targets = targets
        self._pool = pool
        self._threads = threads
        self._peers: dict[int, PeerPool] = {}
        """By the receiver's position."""
        self._resending: dict[int, asyncio.Semaphore] = {}
        """By the receiver's position, as memory is."""
        self._pushing = asyncio.Semaphore(PUSHES_MAX)
        """The receiver is the last one: it waits for nobody."""
        self._pushers = make_pool()
        self._askers = make_pool()
        """For questions to tails and predecessors: small, so they do not wait behind payloads."""
        self._up: dict[int, Address] = {}
        """The nodes that are UP by the newest routing."""
        self._ending: set[asyncio.Task[None]] = set()

    def follow(self, routing: Routing) -> None:
        """A new routing: whoever waits for an answer of a node that is gone has it now."""
        up = {node.node: (node.host, node.port) for node in routing.nodes if node.state == NodeState.UP}
        for node, address in self._up.items():
            if up.get(node) != address:
                for peers in (*self._peers.values(), self._pushers, self._askers):
                    task = asyncio.get_running_loop().create_task(peers.end(address), name=f"end {address[1]}")
                    self._ending.add(task)
                    task.add_done_callback(self._ending.discard)
        self._up = up

    async def close(self) -> None:
        for peers in (*self._peers.values(), self._pushers, self._askers):
            await peers.close()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def forward(
        self,
        target: Target,
        asked: Position | None,
        client: bytes,
        items: Sequence[UpdateItem],
        send: Sequence[Part],
        timeout: float,
        attempt: int = 1,
        *,
        pushed: bool = False,
    ) -> list[Outcome]:
        """Send `items`, versions set, to the successor of the place `asked`; one outcome for each."""
        try:
            reply = await self._call(target, asked, client, items, send, timeout)
        except EmberError as error:
            outcome = self._refused(target, asked, error.code, error.message, attempt, pushed=pushed)
            return [outcome] * len(items)
        outcomes: list[Outcome] = list(map(Accepted, reply.versions, reply.lengths))
        for failed in reply.errors:
            code = code_of(failed.code)
            outcomes[failed.index] = self._refused(target, asked, code, failed.message, attempt, pushed=pushed)
        return outcomes

    async def send_whole(self, target: Target, operation: Operation, timeout: float, attempt: int) -> Outcome:
        """Send a version of the chunk from the store: the leftover, or the update that is pending."""
        deadline = asyncio.get_running_loop().time() + timeout
        step, asked = operation.step, operation.asked
        # No `asyncio.timeout`: this may run before there is a task of its own (`eager`).
        async with self._turn(asked):
            if operation.asked is not asked or operation.step is not step:
                return Refused(Failure(Code.NOT_SERVING, "the chain has changed"), True)  # which nobody waits for
            try:
                version = operation.leftover if step is Step.RESEND else operation.version
                return await self._send_pending(target, operation.chunk, version, asked, deadline, attempt)
            except EmberError as error:
                return self._refused(target, asked, error.code, error.message, attempt)

    def _turn(self, asked: Position | None) -> asyncio.Semaphore:
        receiver = asked.index + 1 if asked is not None else 0
        turn = self._resending.get(receiver)
        if turn is None:
            turn = self._resending[receiver] = asyncio.Semaphore(RESENDS_MAX)
        return turn

    async def _send_pending(
        self, target: Target, chunk: bytes, version: int, asked: Position | None, deadline: float, attempt: int
    ) -> Outcome:
        left = target.store.pending_update(chunk)
        if left is None or left.version != version or asked is None:
            return Refused(Failure(Code.NOT_SERVING, f"target {target.id} is not where it was"), True)
        inode, index = split_chunk_id(chunk)
        kind = UpdateKind.REMOVE if left.removed else UpdateKind.REPLACE
        length = 0 if left.removed else left.length
        buffer = self._pool.take(max(length, 1))
        try:
            send: list[Part] = []
            checksums = b""
            if length:
                view = buffer.view
                await self._read_pending(target, chunk, view)
                send = [view]
                checksums = page_checksums(view, 0, left.chunk_size)
            item = UpdateItem(
                asked.chain,
                asked.version,
                inode,
                index,
                kind,
                0,
                length,
                left.chunk_size,
                left.channel,
                left.sequence,
                checksums,
                Durability.DISK,
                left.version,
                target.store.digest(chunk, pending=True),
                _base(target.store, chunk),
            )
            timeout = deadline - asyncio.get_running_loop().time()
            (outcome,) = await self.forward(target, asked, left.client, [item], send, timeout, attempt)
        finally:
            buffer.release()
        return outcome

    async def push(
        self, target: Target, asked: Position | None, operations: Sequence[Operation], timeout: float, attempt: int
    ) -> list[Outcome]:
        """What is committed of these chunks, to the syncing successor, in one frame; from block files into the socket
        where it is large. One outcome for each."""
        deadline = asyncio.get_running_loop().time() + timeout
        outcomes: list[Outcome] = [Refused(Failure(Code.NOT_SERVING, "the chain has changed"), True)] * len(operations)
        async with self._pushing:
            # Nobody waits for those that go their way without this attempt.
            places = [place for place, operation in enumerate(operations) if _is_pushed(operation, asked)]
            lengths = [operations[place].length for place in places]
            buffer = self._pool.take(max(sum(lengths), 1))
            release: list[Callable[[], None]] = [buffer.release]
            items: list[UpdateItem] = []
            sent: list[int] = []
            send: list[Part] = []
            try:
                begin = 0
                for place, length in zip(places, lengths, strict=True):
                    operation = operations[place]
                    assert asked is not None
                    try:
                        item = _whole_item(target.store, operation, asked)
                        view = buffer.view[begin : begin + length]
                        begin += length
                        if length:
                            send.append(await self._read_committed(target.store, operation.chunk, view, release))
                    except EmberError as error:
                        outcomes[place] = self._refused(target, asked, error.code, error.message, attempt, pushed=True)
                        continue
                    items.append(item)
                    sent.append(place)
                if items:
                    timeout = deadline - asyncio.get_running_loop().time()
                    answers = await self.forward(target, asked, b"", items, send, timeout, attempt, pushed=True)
                    for place, outcome in zip(sent, answers, strict=True):
                        outcomes[place] = outcome
                        if isinstance(outcome, Accepted):
                            target.pushed_chunks += 1
                            target.pushed_bytes += outcome.length
            finally:
                for give_back in release:
                    give_back()
        return outcomes

    async def _read_committed(
        self, store: ChunkStore, chunk: bytes, view: memoryview, release: list[Callable[[], None]]
    ) -> Part:
        """All of the committed version. The operation that asks holds the chunk, so it stays as it is."""
        try:
            read = store.read(chunk, 0, len(view), view)
        except WouldBlock:
            read = await asyncio.get_running_loop().run_in_executor(
                self._threads, partial(store.read_blocking, chunk, 0, len(view), view)
            )
        if read.release is not None:
            release.append(read.release)
        return read.part

    async def at_version(self, target: Target, position: Position, timeout: float) -> None:
        """Return when the predecessor acts at this version of the chain. Raises what it, or the way to it, says."""
        assert position.predecessor is not None
        address = self._targets.address(position.predecessor.node)
        await self._askers.call(address, AT_VERSION, AtVersion(position.chain, position.version), timeout=timeout)

    async def committed_versions(self, position: Position, chunks: list[bytes], timeout: float) -> list[Told]:
        """What the tail of a chain has committed of `chunks`, to a replica at `position`. Raises CHAIN_BROKEN,
        NOT_SERVING."""
        return await self._versions(position, position.tail.node, chunks, False, timeout)

    async def pending_before(self, position: Position, chunks: list[bytes], timeout: float) -> list[Told]:
        """What the predecessor of a replica at `position` has pending of `chunks`. Raises the same."""
        assert position.predecessor is not None
        return await self._versions(position, position.predecessor.node, chunks, True, timeout)

    async def _versions(
        self, position: Position, node: int, chunks: list[bytes], pending: bool, timeout: float
    ) -> list[Told]:
        request = CommittedVersions(position.chain, position.version, chunks, pending)
        try:
            address = self._targets.address(node)
            reply: CommittedVersionsReply = await self._askers.call(
                address, COMMITTED_VERSIONS, request, timeout=timeout
            )
        except EmberError as error:
            raise EmberError(
                Code.NOT_SERVING,
                f"chain {position.chain}: {'a replica on' if pending else 'its tail,'} node {node} cannot say what"
                f" is {'pending' if pending else 'committed'} there: {error}",
            ) from None
        if len(reply.versions) != len(chunks) or len(reply.digests) != len(chunks):
            raise EmberError(
                Code.NOT_SERVING, f"node {node} answered for {len(reply.versions)} of {len(chunks)} chunks"
            )
        return list(map(Told, reply.versions, reply.digests))

    async def _call(
        self,
        target: Target,
        asked: Position | None,
        client: bytes,
        items: Sequence[UpdateItem],
        send: Sequence[Part],
        timeout: float,
    ) -> UpdateChunksReply:
        if asked is None or asked.successor is None:
            raise EmberError(Code.NOT_SERVING, target.why_not())
        if timeout < CALL_S_MIN:
            raise EmberError(Code.BUSY, "no time is left to forward an update to it")
        address = self._targets.address(asked.successor.node)
        if asked.fills and not client:
            peers = self._pushers
        else:
            found = self._peers.get(asked.index + 1)
            if found is None:
                found = self._peers[asked.index + 1] = self._make_pool()
            peers = found
        request = UpdateChunks(client, list(items), target.id)
        reply: UpdateChunksReply = await peers.call(address, UPDATE_CHUNKS, request, send=send, timeout=timeout)
        if len(reply.versions) != len(items) or len(reply.lengths) != len(items):
            raise EmberError(Code.INTERNAL, f"it answered for {len(reply.versions)} of {len(items)} updates")
        if any(not 0 <= failed.index < len(items) for failed in reply.errors):
            raise EmberError(Code.INTERNAL, "it answered for an update it was not sent")
        if reply.holders and asked is target.position and not asked.fills:
            target.behind = reply.holders
        return reply

    def _refused(
        self, target: Target, asked: Position | None, code: Code, message: str, attempt: int, *, pushed: bool = False
    ) -> Refused:
        """The outcome, in words that name chain and node, with a code whose retry class is kept."""
        where = f"chain {asked.chain}" if asked is not None else f"target {target.id}"
        if asked is not None and asked.successor is not None:
            where += f": node {asked.successor.node}"
            try:
                host, port = self._targets.address(asked.successor.node)
                where += f" at {host}:{port}"
            except EmberError:
                pass
        final = code in _FINAL or (code in _CORRUPT and attempt >= CORRUPT_ATTEMPTS_MAX)
        if asked is None and target.position is None:
            final = True  # it is not a lease that may come back: the chain goes on without this target
        syncs = asked is not None and asked.fills and not pushed
        if syncs:
            # No update fails because of a replica that does not serve yet: either it takes it, or the chain goes on
            # without it.
            final = False
        if (code in _TOLD and not syncs) or code is Code.NEEDS_WHOLE:
            told = code
        elif code in _UNCLEAR or code.value.retry is Retry.MAYBE_APPLIED:
            told = Code.CHAIN_BROKEN
        else:
            told = Code.UNREACHABLE
        return Refused(Failure(told, f"{where}: {message}"), final, code is Code.TIMED_OUT)

    async def _read_pending(self, target: Target, chunk: bytes, view: memoryview) -> None:
        """All of the pending version into `view`. The operation that asks holds the chunk, so it stays as it is."""
        loop = asyncio.get_running_loop()
        read = await loop.run_in_executor(self._threads, partial(read_into, target.store, chunk, 0, view, pending=True))
        if read.release is not None:
            read.release()
        if read.length != len(view):
            raise EmberError(
                Code.DISK_FAILED, f"target {target.id} has {read.length} of {len(view)} bytes of chunk {chunk.hex()}"
            )


def _base(store: ChunkStore, chunk: bytes) -> int:
    """Digest of what the pending version follows."""
    state = store.state(chunk)
    return NOTHING_DIGEST if state is None or state.removed else store.digest(chunk)


def _is_pushed(operation: Operation, asked: Position | None) -> bool:
    return asked is not None and operation.step is Step.PUSH and operation.asked is asked


def _whole_item(store: ChunkStore, operation: Operation, asked: Position) -> UpdateItem:
    """What is committed of the chunk, as an update that goes over whatever the receiver has."""
    chunk = operation.chunk
    held = store.holding(chunk)
    check(held.version == operation.version, "a chunk stays as it is while it is pushed", operation)
    inode, index = split_chunk_id(chunk)
    return UpdateItem(
        asked.chain,
        asked.version,
        inode,
        index,
        UpdateKind.REMOVE if held.removed else UpdateKind.REPLACE if held.version else UpdateKind.FORGET,
        0,
        held.length,
        held.chunk_size or CHUNK_SIZE_MIN,
        0,
        0,
        store.checksums(chunk),
        Durability.MEMORY,  # it is synced before it counts (FINISH_SYNC)
        held.version,
        held.digest,
        NOTHING_DIGEST,
    )
