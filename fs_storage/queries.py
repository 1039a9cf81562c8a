"""What a daemon answers beside reads and updates: committed versions, which chunks a file has, removals, syncs, space.

Called by: the service. Everything about a file is answered by the head of its chain, after the versions it has
pending are settled, so that an answer covers every update that was ever acknowledged or seen by a reader.
"""

import asyncio
import struct
from collections.abc import Callable

from fs_common.errors import Code, EmberError, code_of
from fs_common.ids import split_chunk_id
from fs_common.limits import CHUNK_SIZE_MIN, READ_ITEMS_MAX, REMOVE_FILES_MAX, UPDATE_ITEMS_MAX
from fs_common.records.resync import AtVersion
from fs_common.records.scrubbing import RefillTarget
from fs_common.records.session import Empty
from fs_common.records.storage import (
    CommittedVersions,
    CommittedVersionsReply,
    ListChunks,
    ListChunksReply,
    QueryLastChunk,
    QueryLastChunkReply,
    RemoveChunks,
    RemoveChunksReply,
    RemoveFiles,
    RemoveFilesReply,
    SpaceInfoReply,
    SyncChains,
    SyncChainsReply,
    TargetSpace,
    TargetTrouble,
    UpdateItem,
    UpdateKind,
)
from fs_common.rpc import Call, Reply
from fs_storage.craq.operation import Operation
from fs_storage.space import Disk
from fs_storage.target import Target
from fs_storage.targets import Targets
from fs_storage.update_request import UpdateRequest
from fs_storage.updates import Updates, patience_s

REMOVE_LIMIT_MAX = 4096
"""Chunks of one REMOVE_CHUNKS or, about, REMOVE_FILES."""
SYNC_CHAINS_MAX = 4096
"""Of one SYNC_CHAINS."""
REMOVALS_MAX = 1 << 16
"""Files whose last removal is remembered, for each chain."""
REMOVE_BATCH = 64
"""Chunks of one replicated batch of REMOVE_FILES: enough to share a sync, few enough for others not to wait long."""
LOOKS_IN_A_ROW = 64
"""Files looked up in the index without a break, so that reads need not wait: under a millisecond."""
_pack_inode = struct.Struct(">Q").pack


class Queries:
    def __init__(self, targets: Targets, updates: Updates, disk: Disk) -> None:
        self._targets = targets
        self._updates = updates
        self._disk = disk
        self.warnings: Callable[[Target], list[str]] = lambda target: []
        """What should be looked at of a target that serves: one line each."""
        """Capacity and free bytes of the node's disks."""
        self._removals: dict[tuple[int, bytes, int], tuple[int, RemoveChunksReply | None]] = {}
        """By chain, client and inode: the last sequence of a removal, and its answer once it is over; the oldest first.
        In memory alone: what may come late waits in a socket of this process."""

    def committed_versions(self, call: Call) -> Reply:
        """COMMITTED_VERSIONS, asked of the tail; of any replica for what is pending there. Raises CHAIN_UNKNOWN,
        CHAIN_VERSION, NOT_SERVING."""
        request: CommittedVersions = call.request
        if len(request.chunks) > READ_ITEMS_MAX:
            raise EmberError(Code.INVALID, f"{len(request.chunks)} chunks in one question; at most {READ_ITEMS_MAX}")
        target = self._targets.require(request.chain)
        position = target.require(request.chain_version)
        store = target.store
        if request.pending:
            left = [state.pending_version if state is not None else 0 for state in map(store.state, request.chunks)]
            return Reply(CommittedVersionsReply(left, [store.digest(chunk, pending=True) for chunk in request.chunks]))
        if not position.is_tail:
            raise EmberError(Code.CHAIN_VERSION, f"target {target.id} is not the tail of chain {request.chain}")
        versions = [state.version if state is not None else 0 for state in map(store.state, request.chunks)]
        return Reply(CommittedVersionsReply(versions, list(map(store.digest, request.chunks))))

    async def at_version(self, call: Call) -> Reply:
        """AT_VERSION: answered when this node's target acts at that version of the chain, or a newer one. The call's
        deadline bounds the wait."""
        request: AtVersion = call.request
        await self._targets.acts_at(request.chain, request.chain_version)
        return Reply(Empty())

    async def query_last_chunk(self, call: Call) -> Reply:
        """QUERY_LAST_CHUNK. Raises also NOT_HEAD, and CHAIN_BROKEN when a pending version cannot be settled."""
        request: QueryLastChunk = call.request
        target = self._head(request.chain, request.chain_version)
        await self._settle(call, target, _inode_prefix(request.inode), 0)
        target.require(request.chain_version)
        last = target.store.last_chunk(request.inode)
        return Reply(QueryLastChunkReply(last.index, last.length, last.chunks, last.total_bytes))

    async def list_chunks(self, call: Call) -> Reply:
        """LIST_CHUNKS. Raises as QUERY_LAST_CHUNK, and INVALID."""
        request: ListChunks = call.request
        if not 1 <= request.limit <= READ_ITEMS_MAX or request.first < 0:
            raise EmberError(Code.INVALID, f"a list of {request.limit} chunks from {request.first} on is not given")
        target = self._head(request.chain, request.chain_version)
        await self._settle(call, target, _inode_prefix(request.inode), request.first)
        target.require(request.chain_version)
        store = target.store
        chunks = store.chunks_of(request.inode, request.first, request.limit + 1)
        more = len(chunks) > request.limit
        if more:
            chunks.pop()
        states = map(store.state, chunks)
        lengths = [state.length if state is not None else 0 for state in states]
        return Reply(ListChunksReply([split_chunk_id(chunk)[1] for chunk in chunks], lengths, more))

    async def sync_chains(self, call: Call) -> Reply:
        """SYNC_CHAINS. All of them or an error: CHAIN_UNKNOWN, CHAIN_VERSION, NOT_SERVING, NO_SPACE, DISK_FAILED."""
        request: SyncChains = call.request
        if len(request.chains) != len(request.chain_versions) or len(request.chains) > SYNC_CHAINS_MAX:
            raise EmberError(
                Code.INVALID,
                f"{len(request.chains)} chains of {len(request.chain_versions)} versions; at most {SYNC_CHAINS_MAX}",
            )
        asked = [
            (self._targets.require(chain), version)
            for chain, version in zip(request.chains, request.chain_versions, strict=True)
        ]
        for target, version in asked:
            target.require(version)
        before = [target.holders[0] for target, _ in asked]
        lineage = [holder for target, _ in asked for holder in target.lineage]
        syncs = await asyncio.gather(*(target.store.sync() for target, _ in asked), return_exceptions=True)
        for (target, version), outcome in zip(asked, syncs, strict=True):
            if isinstance(outcome, BaseException):
                if isinstance(outcome, EmberError) and outcome.code is Code.DISK_FAILED:
                    # After a failed sync nobody knows what is on the disk.
                    target.fail(outcome.message)
                raise outcome
            # A replica that the chain went on without meanwhile does not have all that was acknowledged.
            target.require(version)
        after = [target.holders[0] for target, _ in asked]
        if any(one.incarnation != other.incarnation for one, other in zip(before, after, strict=True)):
            raise EmberError(Code.NOT_SERVING, "a target was found to have lost something while it was synced")
        return Reply(SyncChainsReply(before, lineage))

    async def remove_chunks(self, call: Call) -> Reply:
        """REMOVE_CHUNKS. Removes as one replicated batch after another; what a failure leaves is removed by a retry.

        Raises also UPDATE_STALE: the client has gone on with this file since.
        """
        request: RemoveChunks = call.request
        if not 1 <= request.limit <= REMOVE_LIMIT_MAX or request.first < 0:
            raise EmberError(Code.INVALID, f"removal of {request.limit} chunks from {request.first} on is not taken")
        target = self._head(request.chain, request.chain_version)
        self._look_at_removal(request)
        await self._settle(call, target, _inode_prefix(request.inode), request.first)
        removed = 0
        while removed < request.limit:
            over = self._look_at_removal(request)
            if over is not None:
                return Reply(over)
            batch = min(request.limit - removed, UPDATE_ITEMS_MAX)
            chunks = target.store.chunks_of(request.inode, request.first, batch)
            if not chunks:
                break
            await self._remove(call, target, request.chain_version, chunks)
            removed += len(chunks)
        reply = RemoveChunksReply(removed, bool(target.store.chunks_of(request.inode, request.first, 1)))
        if request.sequence:
            self._look_at_removal(request)
            self._removals[request.chain, request.client, request.inode] = request.sequence, reply
        return Reply(reply)

    def _look_at_removal(self, request: RemoveChunks) -> RemoveChunksReply | None:
        """Whether the client still wants it: its answer, if it has had one. Raises UPDATE_STALE."""
        if not request.sequence:
            return None
        key = request.chain, request.client, request.inode
        last, answer = self._removals.pop(key, (0, None))
        self._removals[key] = max((last, answer), (request.sequence, None), key=lambda known: known[0])
        if len(self._removals) > REMOVALS_MAX:
            del self._removals[next(iter(self._removals))]
        if last > request.sequence:
            raise EmberError(
                Code.UPDATE_STALE, f"removal {request.sequence} of inode {request.inode} comes after {last}"
            )
        return answer if last == request.sequence else None

    async def remove_files(self, call: Call) -> Reply:
        """REMOVE_FILES. As many files share a replicated batch as have chunks enough for one."""
        request: RemoveFiles = call.request
        inodes = request.inodes
        if not 1 <= len(inodes) <= REMOVE_FILES_MAX:
            raise EmberError(Code.INVALID, f"removal of {len(inodes)} files; 1 to {REMOVE_FILES_MAX}")
        target = self._head(request.chain, request.chain_version)
        prefixes = {_inode_prefix(inode) for inode in inodes}
        await self._settle_chunks(call, target, [c for c in target.replica.unsettled if c[:8] in prefixes])
        finished = removed = looked = 0
        while finished < len(inodes) and removed < REMOVE_LIMIT_MAX:
            chunks: list[bytes] = []
            while finished < len(inodes):
                room = REMOVE_BATCH - len(chunks)
                found = target.store.chunks_of(inodes[finished], 0, room)
                chunks += found
                looked += 1
                if len(found) == room:
                    break  # it may have more
                finished += 1
                if looked % LOOKS_IN_A_ROW == 0:
                    await asyncio.sleep(0)
            if chunks:
                await self._remove(call, target, request.chain_version, chunks)
            removed += len(chunks)
        return Reply(RemoveFilesReply(removed, finished))

    def refill_target(self, call: Call) -> Reply:
        """REFILL_TARGET. Raises CHAIN_UNKNOWN, CHAIN_VERSION, NOT_SERVING, INVALID."""
        request: RefillTarget = call.request
        self._targets.refill(request.chain, request.chain_version)
        return Reply(Empty())

    def space_info(self, call: Call) -> Reply:
        """SPACE_INFO."""
        capacity, free = self._disk.last_space()
        targets = []
        warnings: list[TargetTrouble] = []
        troubles = self._targets.troubles()
        for target in self._targets.all():
            try:
                space = target.store.space()
            except OSError as error:
                troubles.setdefault(target.id, f"the disk of target {target.id} does not answer: {error.strerror}")
                continue
            warnings += [TargetTrouble(target.id, reason) for reason in self.warnings(target)]
            chain = target.position.chain if target.position is not None else 0
            targets.append(TargetSpace(target.id, chain, space.capacity_bytes, space.used_bytes, space.chunks))
        return Reply(
            SpaceInfoReply(
                capacity, free, targets, [TargetTrouble(*trouble) for trouble in sorted(troubles.items())], warnings
            )
        )

    async def _remove(self, call: Call, target: Target, chain_version: int, chunks: list[bytes]) -> None:
        """Remove chunks on all replicas, as one batch."""
        position = target.require(chain_version)
        operations = []
        items: list[UpdateItem | None] = []
        for chunk in chunks:
            inode, index = split_chunk_id(chunk)
            operations.append(Operation(chunk, UpdateKind.REMOVE, chain_version=position.version))
            items.append(
                UpdateItem(
                    position.chain, position.version, inode, index, UpdateKind.REMOVE, 0, 0, CHUNK_SIZE_MIN, 0, 0
                )
            )
        done = await self._updates.perform(target, operations, items, _time_left_s(call))
        _raise_first(done)

    def _head(self, chain: int, chain_version: int) -> Target:
        target = self._targets.require(chain)
        if not target.require(chain_version).is_head:
            raise EmberError(Code.NOT_HEAD, f"target {target.id} is not the head of chain {chain}")
        return target

    async def _settle(self, call: Call, target: Target, prefix: bytes, first: int) -> None:
        """Every update of the file that had begun is at its end when this returns."""
        pending = [
            chunk
            for chunk in target.replica.unsettled
            if chunk.startswith(prefix) and split_chunk_id(chunk)[1] >= first
        ]
        await self._settle_chunks(call, target, pending)

    async def _settle_chunks(self, call: Call, target: Target, pending: list[bytes]) -> None:
        done = await self._updates.settle(target, pending, _time_left_s(call))
        if done is not None:
            _raise_first(done)


def _inode_prefix(inode: int) -> bytes:
    try:
        return _pack_inode(inode)
    except struct.error:
        raise EmberError(Code.INVALID, f"inode {inode} is none") from None


def _time_left_s(call: Call) -> float:
    return patience_s(call.deadline - asyncio.get_running_loop().time())


def _raise_first(request: UpdateRequest) -> None:
    if request.errors:
        failed = request.errors[0]
        raise EmberError(code_of(failed.code), failed.message)
