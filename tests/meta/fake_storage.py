"""Storage daemons over real RPC: enough of them for the metadata service, with lengths instead of bytes."""

import asyncio
from collections.abc import Awaitable, Callable

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records.routing import Chain, ChainTable, ChainTarget, NodeInfo, NodeState, PublicState, Routing
from fs_common.records.storage import (
    ItemError,
    ListChunks,
    ListChunksReply,
    QueryLastChunk,
    QueryLastChunkReply,
    RemoveChunks,
    RemoveChunksReply,
    RemoveFiles,
    RemoveFilesReply,
    UpdateChunks,
    UpdateChunksReply,
    UpdateKind,
)
from fs_common.rpc import Call, Reply, Service
from fs_common.transports import tcp


class FakeStorage:
    """One daemon that heads some chains; its chunks by (chain, inode, index)."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.lengths: dict[tuple[int, int, int], int] = {}
        self.calls: list[str] = []
        self.updates: list[tuple[bytes, int, int]] = []
        """(client, channel, sequence) of each update, resends included."""
        self.refusals: list[EmberError] = []
        """Raised, one by one, before anything is done."""
        self.update_errors: list[Code] = []
        """Answered, one by one, as the error of an update's item."""
        self.remove_step = 1000
        """Chunks removed for each call, however many are asked for."""
        self.removals: list[int] = []
        """Sequences of removals of one file's chunks, resends included."""
        self.versions: set[int] = set()
        """Chain versions that callers named."""
        self.gate: asyncio.Event | None = None
        """Requests wait for it before anything is done."""
        self.arrived = asyncio.Event()
        """One waits at the gate."""
        self._server: tcp.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        assert self._server is not None
        return self._server.host, self._server.port

    async def start(self) -> None:
        service = Service("storage", "test", self.node)
        service.register(methods.QUERY_LAST_CHUNK, self._told(self._last))
        service.register(methods.LIST_CHUNKS, self._told(self._list))
        service.register(methods.REMOVE_CHUNKS, self._told(self._remove))
        service.register(methods.REMOVE_FILES, self._told(self._remove_files))
        service.register(methods.UPDATE_CHUNKS, self._told(self._update))
        self._server = await tcp.serve(service, "127.0.0.1", 0)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close(0)

    def of(self, inode: int) -> dict[int, int]:
        return {index: length for (_, owner, index), length in self.lengths.items() if owner == inode}

    def _told(self, handler: Callable[[Call], Reply]) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            self.calls.append(type(call.request).__name__)
            if self.gate is not None:
                self.arrived.set()
                await self.gate.wait()
            if isinstance(call.request, RemoveChunks):
                self.removals.append(call.request.sequence)
            if self.refusals:
                raise self.refusals.pop(0)
            return handler(call)

        return handle

    def _last(self, call: Call) -> Reply:
        request: QueryLastChunk = call.request
        self.versions.add(request.chain_version)
        found = {
            index: length
            for (chain, inode, index), length in self.lengths.items()
            if (chain, inode) == (request.chain, request.inode)
        }
        last = max(found, default=-1)
        return Reply(QueryLastChunkReply(last, found.get(last, 0), len(found), sum(found.values())))

    def _list(self, call: Call) -> Reply:
        request: ListChunks = call.request
        self.versions.add(request.chain_version)
        found = sorted(
            key for key in self.lengths if key[:2] == (request.chain, request.inode) and key[2] >= request.first
        )
        listed = found[: request.limit]
        lengths = [self.lengths[key] for key in listed]
        return Reply(ListChunksReply([key[2] for key in listed], lengths, len(listed) < len(found)))

    def _remove(self, call: Call) -> Reply:
        request: RemoveChunks = call.request
        self.versions.add(request.chain_version)
        found = sorted(
            key for key in self.lengths if key[:2] == (request.chain, request.inode) and key[2] >= request.first
        )
        doomed = found[: min(request.limit, self.remove_step)]
        for key in doomed:
            del self.lengths[key]
        return Reply(RemoveChunksReply(len(doomed), len(doomed) < len(found)))

    def _remove_files(self, call: Call) -> Reply:
        request: RemoveFiles = call.request
        self.versions.add(request.chain_version)
        removed = finished = 0
        for inode in request.inodes:
            found = [key for key in self.lengths if key[:2] == (request.chain, inode)]
            for key in found[: self.remove_step - removed]:
                del self.lengths[key]
                removed += 1
                found.remove(key)
            if found:
                break
            finished += 1
        return Reply(RemoveFilesReply(removed, finished))

    def _update(self, call: Call) -> Reply:
        request: UpdateChunks = call.request
        [item] = request.items
        self.versions.add(item.chain_version)
        self.updates.append((request.client, item.channel, item.sequence))
        if self.update_errors:
            code = self.update_errors.pop(0)
            return Reply(UpdateChunksReply([0], [0], [ItemError(0, code.value.number, "as told")]))
        assert item.kind == UpdateKind.TRUNCATE and item.length == 0
        self.lengths[item.chain, item.inode, item.index] = item.offset
        return Reply(UpdateChunksReply([1], [item.offset]))


def routing_of(daemons: list[FakeStorage], version: int = 1) -> Routing:
    """A chain of one target for each daemon: chain n is headed by the n-th."""
    return Routing(
        version,
        "test",
        [NodeInfo(daemon.node, *daemon.address, NodeState.UP, 10**9, 10**6) for daemon in daemons],
        [
            Chain(number, version, [ChainTarget(daemon.node * 100 + 1, daemon.node, PublicState.SERVING)])
            for number, daemon in enumerate(daemons, 1)
        ],
        [ChainTable(1, 1, list(range(1, len(daemons) + 1)))],
        replicas=1,
    )
