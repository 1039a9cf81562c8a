"""Storage daemons in one process: real RPC on loopback, a manager under the test's control, stores that can be held.

Ports are kept over a restart, and so are the stores: what a killed process had been told is durable is there again.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from fs_common.checksums import matches, page_checksums
from fs_common.errors import EmberError, code_of
from fs_common.manager_client import NodeStatus, Security, TargetVerdict
from fs_common.methods import QUERY_LAST_CHUNK, READ_CHUNKS, UPDATE_CHUNKS
from fs_common.peers import PeerPool
from fs_common.records.routing import (
    Chain,
    ChainTable,
    ChainTarget,
    NodeInfo,
    NodeState,
    PublicState,
    Routing,
    StoreVerdict,
)
from fs_common.records.session import Hello
from fs_common.records.storage import (
    QueryLastChunk,
    QueryLastChunkReply,
    ReadChunks,
    ReadItem,
    UpdateChunks,
    UpdateItem,
    UpdateKind,
)
from fs_common.transports.choice import WHAT_THERE_IS
from fs_common.transports.payload import PayloadTransport
from fs_meta.manager.chains import Report, advance
from fs_storage.config import StorageConfig
from fs_storage.engine.interface import ChunkRead, ChunkStore, Prepared, Update, WouldBlock
from fs_storage.engine.memory_store import MemoryStore
from fs_storage.service import Daemon

CHUNK = 1 << 20
CLUSTER = "test-cluster"
CLIENT = b"client-number-01"
TIMEOUT_S = 20.0


class Gate:
    """A place where a store waits while the test holds it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.reached = asyncio.Event()
        """Set when somebody waits."""

    def hold(self) -> None:
        self._open.clear()
        self.reached.clear()

    def release(self) -> None:
        self._open.set()

    async def pass_through(self) -> None:
        if not self._open.is_set():
            self.reached.set()
            await self._open.wait()


class HeldStore(MemoryStore):
    """A store in memory that outlives its process, and that the test can stop before and after each step."""

    def __init__(self, *, capacity_bytes: int = 1 << 40) -> None:
        super().__init__(capacity_bytes=capacity_bytes)
        self.before_prepare = Gate()
        self.after_prepare = Gate()
        self.before_commit = Gate()
        self.after_commit = Gate()
        self.before_sync = Gate()
        self.uncached: set[bytes] = set()
        """Chunks whose bytes are not in the page cache."""
        self.sync_failure: EmberError | None = None
        """What the next sync raises."""
        self.syncs = 0
        """Syncs that succeeded."""
        self.prepares = 0
        """Updates this store was asked to prepare."""

    async def prepare(self, updates: Sequence[Update]) -> list[Prepared | EmberError]:
        await self.before_prepare.pass_through()
        self.prepares += len(updates)
        results = await super().prepare(updates)
        await self.after_prepare.pass_through()
        return results

    async def commit(self, chunks: Sequence[tuple[bytes, int]]) -> None:
        await self.before_commit.pass_through()
        await super().commit(chunks)
        await self.after_commit.pass_through()

    def read(self, chunk: bytes, offset: int, length: int, buffer: memoryview, *, pending: bool = False) -> ChunkRead:
        if chunk in self.uncached:
            raise WouldBlock
        return super().read(chunk, offset, length, buffer, pending=pending)

    def read_blocking(
        self, chunk: bytes, offset: int, length: int, buffer: memoryview, *, pending: bool = False
    ) -> ChunkRead:
        return super().read(chunk, offset, length, buffer, pending=pending)

    async def sync(self) -> None:
        await self.before_sync.pass_through()
        if self.sync_failure is not None:
            raise self.sync_failure
        await super().sync()
        self.syncs += 1

    async def close(self) -> None:
        pass


class FakeManager:
    """Says what the test says."""

    lease_left_s = 5.0
    heartbeat_age_s = 0.5
    beats_answered, beats_failed = 3, 0

    def __init__(self, chain: "ChainOfDaemons", status: Callable[[], NodeStatus] | None = None) -> None:
        self._chain = chain
        self._status = status
        self._judge: Callable[[list[TargetVerdict]], None] = lambda verdicts: None
        self._told = False
        self.lease = True
        self.left = False
        self._callbacks: list[Callable[[Routing], None]] = []

    @property
    def routing(self) -> Routing | None:
        return self._chain.routing

    def lease_valid(self) -> bool:
        return self.lease

    def on_routing(self, callback: Callable[[Routing], None]) -> None:
        self._callbacks.append(callback)
        if self._chain.routing is not None:
            callback(self._chain.routing)

    def on_verdicts(self, callback: Callable[[list[TargetVerdict]], None]) -> None:
        self._judge = callback

    def on_security(self, callback: Callable[[Security | None], None]) -> None:
        pass

    def start(self) -> None:
        pass

    def nudge(self) -> None:
        """As a heartbeat does, at once: every store is the right one."""
        if self._status is not None and not self._told:
            self._told = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._told = False
        assert self._status is not None
        self._judge(
            [
                TargetVerdict(
                    target.target,
                    StoreVerdict.FORMAT if target.no_store else StoreVerdict.SERVE,
                    target.opening,
                    0,
                    0,
                    "",
                )
                for target in self._status().targets
                if target.store or target.no_store
            ]
        )

    async def leave(self, timeout_s: float = 2.0) -> None:
        self.left = True
        self.lease = False

    def publish(self, routing: Routing) -> None:
        for callback in self._callbacks:
            callback(routing)


class ChainOfDaemons:
    """`nodes` daemons; chain i has nodes i, i+1, ... in order (1-based), `replicas` of them."""

    def __init__(
        self, directory: Path, nodes: int, replicas: int, make_store: Callable[[int], Awaitable[ChunkStore]] | None
    ) -> None:
        self.directory = directory
        self.nodes = nodes
        self.replicas = replicas
        self.make_store = make_store
        self.routing: Routing | None = None
        self.daemons: dict[int, Daemon] = {}
        self.managers: dict[int, FakeManager] = {}
        self.stores: dict[int, HeldStore] = {}
        """By target id; only for stores in memory."""
        self.ports: dict[int, int] = {}
        self.transport = PayloadTransport(WHAT_THERE_IS)
        self.pool = PeerPool(Hello([1], "client", CLIENT, CLUSTER), transport=self.transport)
        self.settings: dict[str, Any] = {}
        self.sequence = 0

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        for node in range(1, self.nodes + 1):
            await self.listen(node)
        self.routing = self.make_routing(1)
        for node in range(1, self.nodes + 1):
            self.join(node)
        await self.serving()

    async def listen(self, node: int) -> None:
        config = StorageConfig(
            cluster=CLUSTER,
            node=node,
            directory=str(self.directory),
            manager="127.0.0.1:1",
            port=self.ports.get(node, 0),
            **{"settle_interval_ms": 20, **self.settings},
        )
        daemon = Daemon(config, self.open_store)
        _, self.ports[node] = await daemon.start()
        self.daemons[node] = daemon

    def join(self, node: int) -> None:
        self.managers[node] = FakeManager(self, self.daemons[node].status)
        self.daemons[node].join(self.managers[node])

    async def open_store(self, target: int, make: bool) -> ChunkStore:
        if self.make_store is not None:
            return await self.make_store(target)
        return self.stores.setdefault(target, HeldStore())

    async def serving(self) -> None:
        """Wait until every daemon serves all its targets and nothing is pending anywhere."""
        await eventually(self._all_serve)

    def _all_serve(self) -> bool:
        return all(
            len(daemon.targets.by_chain) == self.replicas
            and all(target.serves and not target.replica.unsettled for target in daemon.targets.all())
            for daemon in self.daemons.values()
        )

    async def restart(self, node: int) -> None:
        await self.listen(node)
        self.join(node)

    async def crash(self, node: int) -> None:
        """End a daemon as SIGKILL does: nothing in work goes on, nobody is told."""
        daemon = self.daemons.pop(node)
        await daemon._settling.close()
        await daemon._mending.close()
        await daemon._disks.close()
        await daemon._scrub.close()
        await daemon._repairs.close()
        await daemon._resync.close()
        await daemon._finishing.close()
        for task in list(daemon.updates._tasks):
            task.cancel()
        assert daemon._server is not None
        await daemon._server.close(grace_s=0)
        await daemon.updates.close()
        await daemon._reads.close()
        await daemon._forwarder.close()
        await daemon.targets.close()
        daemon._transport.close()
        daemon._threads.shutdown()
        daemon._disk_thread.shutdown()
        for store in self.stores_of(node):
            for gate in (store.before_prepare, store.after_prepare, store.before_commit, store.after_commit):
                gate.release()

    async def close(self) -> None:
        await self.pool.close()
        for store in self.stores.values():
            for gate in (store.before_prepare, store.after_prepare, store.before_commit, store.after_commit):
                gate.release()
        for daemon in self.daemons.values():
            await daemon.close()
            assert not daemon.violation.done(), daemon.violation.result()
            assert daemon._pool.outstanding_bytes == 0, "payload memory has leaked"
            assert daemon._memory.used_bytes == 0
        self.transport.close()

    def make_routing(self, version: int, chain_version: int = 1) -> Routing:
        def member(chain: int, place: int) -> ChainTarget:
            node = (chain - 1 + place) % self.nodes + 1
            return ChainTarget(node * 100 + chain, node, PublicState.SERVING)

        chains = [
            Chain(chain, chain_version, [member(chain, place) for place in range(self.replicas)])
            for chain in range(1, self.nodes + 1)
        ]
        nodes = [NodeInfo(node, "127.0.0.1", self.ports[node], NodeState.UP) for node in range(1, self.nodes + 1)]
        return Routing(version, CLUSTER, nodes, chains, [ChainTable(1, 1, [chain.chain for chain in chains])])

    def change(
        self, serving: Sequence[int], syncing: int = 0, *, down: Sequence[int] = (), tell: Sequence[int] | None = None
    ) -> int:
        """Chain 1 has these nodes' targets from now on, under its next version, which is returned. Nodes in `down` are
        FAILED; `tell`: the nodes that hear of it now (all)."""
        assert self.routing is not None
        chain = self.routing.chains[0]
        members = [ChainTarget(node * 100 + 1, node, PublicState.SERVING) for node in serving]
        if syncing:
            members.append(ChainTarget(syncing * 100 + 1, syncing, PublicState.SYNCING))
        known = {member.target for member in members}
        members += [
            ChainTarget(member.target, member.node, PublicState.OFFLINE)
            for member in chain.targets
            if member.target not in known
        ]
        nodes = [
            NodeInfo(node.node, node.host, node.port, NodeState.FAILED if node.node in down else NodeState.UP)
            for node in self.routing.nodes
        ]
        changed = Chain(1, chain.version + 1, members)
        self.routing = Routing(
            self.routing.version + 1, CLUSTER, nodes, [changed, *self.routing.chains[1:]], self.routing.tables
        )
        self.tell(tell)
        return changed.version

    def tell(self, nodes: Sequence[int] | None = None) -> None:
        """Daemons hear of the newest routing."""
        assert self.routing is not None
        for node, manager in self.managers.items():
            if node in self.daemons and (nodes is None or node in nodes):
                manager.publish(self.routing)

    async def healed(self) -> None:
        """Wait until everything serves, while chains move as the manager moves them."""

        await eventually(lambda: not self.advance() and self._all_serve())

    def advance(self) -> bool:
        """Move the chains as the manager moves them, by what all targets would say now. Whether one has changed."""
        assert self.routing is not None
        chains = [advance(chain, self._reports(chain)) for chain in self.routing.chains]
        if chains == self.routing.chains:
            return False
        self.routing = msgspec.structs.replace(self.routing, version=self.routing.version + 1, chains=chains)
        self.tell()
        return True

    def _reports(self, chain: Chain) -> dict[int, Report]:
        reports = {}
        for member in chain.targets:
            said = {one.target: one for one in self.daemons[member.node].status().targets}.get(member.target)
            if said is not None:
                reports[member.target] = Report(said.state, said.chain_version, said.whole)
        return reports

    def target_on(self, node: int) -> Any:
        """That of chain 1."""
        return self.daemons[node].targets.by_chain[1]

    # -- looking inside --------------------------------------------------------------------------------------------

    def store(self, chain: int, place: int) -> HeldStore:
        """The store at `place` (0: head) of `chain`."""
        assert self.routing is not None
        return self.stores[self.routing.chains[chain - 1].targets[place].target]

    def node(self, chain: int, place: int) -> int:
        return (chain - 1 + place) % self.nodes + 1

    def stores_of(self, node: int) -> list[HeldStore]:
        return [store for target, store in self.stores.items() if target // 100 == node]

    def target(self, chain: int, place: int) -> Any:
        return self.daemons[self.node(chain, place)].targets.by_chain[chain]

    # -- a client --------------------------------------------------------------------------------------------------

    def version(self, chain: int) -> int:
        assert self.routing is not None
        return self.routing.chains[chain - 1].version

    def head(self, chain: int) -> int:
        """Its node."""
        assert self.routing is not None
        return self.routing.chains[chain - 1].targets[0].node

    def address(self, node: int) -> tuple[str, int]:
        return "127.0.0.1", self.ports[node]

    def item(
        self,
        data: bytes = b"",
        *,
        chain: int = 1,
        inode: int = 7,
        index: int = 0,
        kind: UpdateKind = UpdateKind.WRITE,
        offset: int = 0,
        channel: int = 1,
        sequence: int | None = None,
        chain_version: int | None = None,
        checksums: bytes | None = None,
    ) -> UpdateItem:
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        if checksums is None:
            checksums = page_checksums(memoryview(data), offset, CHUNK) if data else b""
        if chain_version is None:
            chain_version = self.version(chain)
        return UpdateItem(
            chain, chain_version, inode, index, kind, offset, len(data), CHUNK, channel, sequence, checksums
        )

    async def send(
        self,
        items: Sequence[UpdateItem],
        datas: Sequence[bytes],
        *,
        node: int | None = None,
        client: bytes = CLIENT,
        timeout: float = TIMEOUT_S,
    ) -> Any:
        """UPDATE_CHUNKS to the head of the first item's chain (or to `node`)."""
        address = self.address(node if node is not None else self.head(items[0].chain))
        send = [data for data in datas if data]
        return await self.pool.call(
            address, UPDATE_CHUNKS, UpdateChunks(client, list(items)), send=send, timeout=timeout
        )

    async def update(self, data: bytes = b"", *, timeout: float = TIMEOUT_S, **what: Any) -> tuple[int, int]:
        """One update; its version and the chunk's length. Raises its error."""
        client = what.pop("client", CLIENT)
        reply = await self.send([self.item(data, **what)], [data], timeout=timeout, client=client)
        if reply.errors:
            raise EmberError(code_of(reply.errors[0].code), reply.errors[0].message)
        return reply.versions[0], reply.lengths[0]

    async def read(
        self,
        *,
        place: int = 0,
        chain: int = 1,
        inode: int = 7,
        index: int = 0,
        offset: int = 0,
        length: int = CHUNK,
        chain_version: int | None = None,
    ) -> bytes:
        """One read from the replica that had `place` at first. Raises its error; verifies the checksums."""
        if chain_version is None:
            chain_version = self.version(chain)
        into = memoryview(bytearray(length))
        item = ReadItem(chain, chain_version, inode, index, offset, length, CHUNK)
        reply = await self.pool.call(
            self.address(self.node(chain, place)), READ_CHUNKS, ReadChunks([item]), into=[into], timeout=TIMEOUT_S
        )
        if reply.errors:
            raise EmberError(code_of(reply.errors[0].code), reply.errors[0].message)
        data = bytes(into[: reply.lengths[0]])
        if data:
            assert matches(memoryview(data), offset, CHUNK, reply.checksums[0])
        return data

    async def read_everywhere(self, **what: Any) -> bytes:
        """What every replica says, which must be the same."""
        answers = {await self.read(place=place, **what) for place in range(self.replicas)}
        assert len(answers) == 1, f"replicas differ: {answers}"
        return answers.pop()

    async def query(self, inode: int = 7, chain: int = 1, timeout: float = TIMEOUT_S) -> QueryLastChunkReply:
        reply: QueryLastChunkReply = await self.pool.call(
            self.address(chain), QUERY_LAST_CHUNK, QueryLastChunk(chain, 1, inode), timeout=timeout
        )
        return reply


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks bring about; the test's own timeout bounds it."""
    while not condition():
        await asyncio.sleep(0.001)


@asynccontextmanager
async def chain_of(
    directory: Path,
    nodes: int = 3,
    replicas: int = 3,
    make_store: Callable[[int], Awaitable[ChunkStore]] | None = None,
    **settings: Any,
) -> AsyncIterator[ChainOfDaemons]:
    os.makedirs(directory, exist_ok=True)
    chain = ChainOfDaemons(directory, nodes, replicas, make_store)
    chain.settings = settings
    try:
        await chain.start()
        yield chain
    finally:
        await chain.close()
