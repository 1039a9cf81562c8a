"""One attempt to hand updates to the successor, and what its outcome means.

The successor gets the updates of one request in one frame, the payload straight from the memory it was received
into. A version that an interrupted update left pending is sent whole, from the store: whatever bytes a client sends
the second time, replicas get the ones that are here.

Frames to different positions use different connections, because a connection has a bound on the bytes in work behind
it: frames for a tail must never wait behind frames that wait for a tail.

Called by: `updates`. Pure of protocol decisions: those are the core's.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple

from fs_common.buffers import BufferPool
from fs_common.checksums import page_checksums
from fs_common.errors import Code, EmberError, Retry, code_of
from fs_common.ids import split_chunk_id
from fs_common.layout import Durability
from fs_common.methods import COMMITTED_VERSIONS, UPDATE_CHUNKS
from fs_common.peers import PeerPool
from fs_common.records.session import Hello
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
from fs_storage.craq.operation import Failure, Operation
from fs_storage.engine.digest import NOTHING_DIGEST
from fs_storage.engine.interface import ChunkStore
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
"""Whole chunks on their way to successors at the same time: their memory is not that of a request."""
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
    def __init__(self, hello: Hello, targets: Targets, pool: BufferPool, threads: Executor) -> None:
        self._hello = hello
        self._targets = targets
        self._pool = pool
        self._threads = threads
        self._peers: dict[int, PeerPool] = {}
        """By the receiver's position."""
        self._resending = asyncio.Semaphore(RESENDS_MAX)
        self._askers = PeerPool(hello)
        """For questions to tails: small, so they do not wait behind payloads."""

    async def close(self) -> None:
        for peers in self._peers.values():
            await peers.close()
        await self._askers.close()

    async def forward(
        self,
        target: Target,
        client: bytes,
        items: Sequence[UpdateItem],
        send: Sequence[Part],
        timeout: float,
        attempt: int = 1,
    ) -> list[Outcome]:
        """Send `items`, versions set, to the successor of `target`; one outcome for each."""
        try:
            reply = await self._call(target, client, items, send, timeout)
        except EmberError as error:
            outcome = self._refused(target, error.code, error.message, attempt)
            return [outcome] * len(items)
        outcomes: list[Outcome] = list(map(Accepted, reply.versions, reply.lengths))
        for failed in reply.errors:
            outcomes[failed.index] = self._refused(target, code_of(failed.code), failed.message, attempt)
        return outcomes

    async def resend(self, target: Target, operation: Operation, timeout: float, attempt: int) -> Outcome:
        """Send the pending version `operation.leftover` whole, from the store."""
        deadline = asyncio.get_running_loop().time() + timeout
        # No `asyncio.timeout`: this may run before there is a task of its own (`eager`).
        async with self._resending:
            return await self._resend(target, operation, deadline, attempt)

    async def _resend(self, target: Target, operation: Operation, deadline: float, attempt: int) -> Outcome:
        left = target.store.pending_update(operation.chunk)
        if left is None or left.version != operation.leftover or target.position is None:
            return Refused(Failure(Code.NOT_SERVING, f"target {target.id} is not where it was"), True)
        inode, index = split_chunk_id(operation.chunk)
        kind = UpdateKind.REMOVE if left.removed else UpdateKind.REPLACE
        length = 0 if left.removed else left.length
        buffer = self._pool.take(max(length, 1))
        try:
            send: list[Part] = []
            checksums = b""
            if length:
                view = buffer.view
                await self._read_pending(target, operation.chunk, view)
                send = [view]
                checksums = page_checksums(view, 0, left.chunk_size)
            item = UpdateItem(
                target.position.chain,
                target.position.version,
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
                target.store.digest(operation.chunk, pending=True),
                _base(target.store, operation.chunk),
            )
            timeout = deadline - asyncio.get_running_loop().time()
            (outcome,) = await self.forward(target, left.client, [item], send, timeout, attempt)
        except EmberError as error:
            return self._refused(target, error.code, error.message, attempt)
        finally:
            buffer.release()
        return outcome

    async def committed_versions(self, target: Target, chunks: list[bytes], timeout: float) -> list[Told]:
        """What the tail of `target`'s chain has committed of `chunks`. Raises CHAIN_BROKEN, NOT_SERVING."""
        position = target.position
        if position is None:
            raise EmberError(Code.NOT_SERVING, target.why_not())
        request = CommittedVersions(position.chain, position.version, chunks)
        node = position.tail.node
        try:
            address = self._targets.address(node)
            reply: CommittedVersionsReply = await self._askers.call(
                address, COMMITTED_VERSIONS, request, timeout=timeout
            )
        except EmberError as error:
            raise EmberError(
                Code.NOT_SERVING,
                f"chain {position.chain}: its tail, node {node}, cannot say which version is committed: {error}",
            ) from None
        if len(reply.versions) != len(chunks) or len(reply.digests) != len(chunks):
            raise EmberError(
                Code.NOT_SERVING, f"node {node} answered for {len(reply.versions)} of {len(chunks)} chunks"
            )
        return list(map(Told, reply.versions, reply.digests))

    async def _call(
        self, target: Target, client: bytes, items: Sequence[UpdateItem], send: Sequence[Part], timeout: float
    ) -> UpdateChunksReply:
        position = target.position
        if position is None or position.successor is None:
            raise EmberError(Code.NOT_SERVING, target.why_not())
        if timeout < CALL_S_MIN:
            raise EmberError(Code.BUSY, "no time is left to forward an update to it")
        address = self._targets.address(position.successor.node)
        peers = self._peers.get(position.index + 1)
        if peers is None:
            peers = self._peers[position.index + 1] = PeerPool(self._hello)
        request = UpdateChunks(client, list(items), target.id)
        reply: UpdateChunksReply = await peers.call(address, UPDATE_CHUNKS, request, send=send, timeout=timeout)
        if len(reply.versions) != len(items) or len(reply.lengths) != len(items):
            raise EmberError(Code.INTERNAL, f"it answered for {len(reply.versions)} of {len(items)} updates")
        if any(not 0 <= failed.index < len(items) for failed in reply.errors):
            raise EmberError(Code.INTERNAL, "it answered for an update it was not sent")
        if reply.holders:
            target.behind = reply.holders
        return reply

    def _refused(self, target: Target, code: Code, message: str, attempt: int) -> Refused:
        """The outcome, in words that name chain and node, with a code whose retry class is kept."""
        position = target.position
        where = f"chain {position.chain}" if position is not None else f"target {target.id}"
        if position is not None and position.successor is not None:
            where += f": node {position.successor.node}"
            try:
                host, port = self._targets.address(position.successor.node)
                where += f" at {host}:{port}"
            except EmberError:
                pass
        final = code in _FINAL or (code in _CORRUPT and attempt >= CORRUPT_ATTEMPTS_MAX)
        if code in _TOLD:
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
