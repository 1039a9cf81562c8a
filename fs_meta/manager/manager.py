"""The cluster manager: the shell around membership, placement, chains and routing.

Owns: the nodes' state, the routing and its versions, the chains' changes, the manager's lease, and one watching task.
It runs inside a metadata server; `start_manager` opens it together with its gRPC service. Page:
`docs/concurrency/manager.md`.

Invariants:

* What is published was committed before, by a transaction that found this server's lease record in place.
* Changes are published one after another (`_publishing`).
* A heartbeat is answered only after what it changed is published, and after what was being published when it came. So
  a node that holds a lease is UP in the routing, and has with it the chains by which it was judged.
* A store is told to serve only after its uuid and opening are kept (`stores`), so an old copy of it is known as such.

Commit point of a change: the transaction of `_publish`. A crash before it: the node has no answer and says it again.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from fs_common.endless import keep
from fs_common.errors import Code, EmberError, Retry
from fs_common.records.routing import Chain, NodeState, Routing, StoreVerdict
from fs_common.resolving import resolve
from fs_meta.kv.interface import KeyValueStore, Transaction
from fs_meta.manager.chain_watch import ChainWatch
from fs_meta.manager.cluster_config import ClusterConfig
from fs_meta.manager.lease import ManagerLease
from fs_meta.manager.manager_config import ManagerConfig
from fs_meta.manager.membership import Beat, Identity, Membership
from fs_meta.manager.move_watch import Look, MoveWatch
from fs_meta.manager.moves import Limits
from fs_meta.manager.operator_calls import OperatorCalls
from fs_meta.manager.records import REST_KEY, Move, Node, RestRecord, Store
from fs_meta.manager.resting import Resting
from fs_meta.manager.routing_state import (
    load,
    load_moves,
    load_rest,
    load_stores,
    placed,
    same_version,
    save,
    save_moves,
    with_first_table,
    with_nodes,
)
from fs_meta.manager.standings import Standings
from fs_meta.manager.stores import Judged, StoreReport, judge
from fs_meta.manager.target_ids import TargetIds

T = TypeVar("T")
_log = logging.getLogger(__name__)

TICKS_PER_HEARTBEAT = 4
"""How often the watching task looks, in the time between two heartbeats: a failure is seen that much late at most."""
PROBE_TIMEOUT_S = 1.0


class Manager(OperatorCalls):
    """Use `start_manager`. All methods are called on one event loop."""

    def __init__(
        self,
        kv: KeyValueStore,
        config: ManagerConfig,
        clock: Callable[[], float] = time.monotonic,
        refuses: Callable[[str, int], Awaitable[bool]] | None = None,
        cluster_uuid: bytes = b"",
    ) -> None:
        self._kv = kv
        self.cluster_uuid = cluster_uuid
        """b"": not known, and not compared."""
        self.config = config
        self._clock = clock
        self._refuses = refuses or _refuses_connections
        self.lease = ManagerLease(kv, config.lease_ms, clock)
        self.cluster_config = ClusterConfig(kv, self.lease)
        self.membership = Membership(config.lease_ms, config.failure_ms)
        self._chains = self._new_watch(None)
        self._routing = Routing(0, config.cluster, [], [], [], config.replicas)
        """What was committed last."""
        self._node_of: dict[int, int] = {}
        """Target id to node: of the routing's chains."""
        self._stored: dict[int, Node] = {}
        """The nodes' records in the store."""
        self._stores: dict[int, Store] = {}
        """By target id: the records in the store."""
        self._learned: dict[int, Store] = {}
        """The same, to be kept with the next publication."""
        self._heard: dict[int, StoreReport] = {}
        """By target id: the last report that was answered with SERVE by this manager."""
        self.move_watch = self._new_move_watch(())
        self.target_ids = TargetIds(self._stores)
        self._loaded = False
        """Whether the state in memory is that of the store: from winning the lease to losing it."""
        self._publishing = asyncio.Lock()
        """Held from looking at what to publish until it is published."""
        self._publications: set[asyncio.Task[Any]] = set()
        """Running `_publish_now`. Tasks of their own, because a caller that goes away must not tear one apart."""
        self._published = asyncio.Event()
        """Set, and replaced, at each publication."""
        self._subscribers: list[Callable[[Routing], None]] = []
        self._closing = asyncio.Event()
        self._watch_task: asyncio.Task[None] | None = None

    # --- what the metadata service uses ----------------------------------------------------------------------

    @property
    def routing(self) -> Routing:
        """The newest routing. Nodes' capacity and used bytes are those of their last heartbeats."""
        return self._routing

    def subscribe(self, callback: Callable[[Routing], None]) -> None:
        """Call `callback` at each new version, on the loop. It must not raise."""
        self._subscribers.append(callback)

    @property
    def ready(self) -> bool:
        """There is a chain table: files can be made."""
        return bool(self._routing.tables)

    async def wait_ready(self) -> None:
        """Until there is a chain table. Raises CLOSING."""
        await self._wait(lambda: self.ready)

    async def wait_newer(self, version: int) -> Routing:
        """The routing, as soon as its version is above `version`. Raises CLOSING."""
        await self._wait(lambda: self._routing.version > version)
        return self._routing

    async def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._closing.is_set():
                raise EmberError(Code.CLOSING, "the manager shuts down")
            await self._published.wait()

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the lease if it is free and load the state. Raises WRONG_CLUSTER, INVALID: store and configuration."""
        await self._take_over()
        self._watch_task = keep(self._watch, "manager watch", end_on=(), stop=self._closing)

    async def close(self) -> None:
        """Stop watching, wake those who wait, give the lease up. The store stays open."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake_waiters()
        if self._watch_task is not None:
            await self._watch_task
        if self._publications:
            await asyncio.wait(self._publications)
        if self._loaded:
            with contextlib.suppress(EmberError):  # it expires by itself
                await self.lease.release()

    async def _take_over(self) -> None:
        """Acquire or renew the lease; load the state when it was just won. Without it, follow the manager's routing."""
        config = self.config
        if not await self.lease.try_acquire():
            self._loaded = False
            routing, _ = await self._kv.read(lambda txn: load(txn, config.cluster, config.replicas))
            self._set_routing(routing)
        elif not self._loaded:

            async def state(
                txn: Transaction,
            ) -> tuple[Routing, list[Node], dict[int, Store], RestRecord | None, list[Move]]:
                routing, nodes = await load(txn, config.cluster, config.replicas)
                return routing, nodes, await load_stores(txn), await load_rest(txn), await load_moves(txn)

            await self.cluster_config.load()
            routing, nodes, self._stores, rest, moves = await self._kv.transact(state)
            self.move_watch = self._new_move_watch(moves)
            placed_now = [member.target for chain in routing.chains for member in chain.targets]
            self.target_ids = TargetIds(self._stores, [*placed_now, *(move.joins for move in moves)])
            self._learned = {}
            self._heard = {}
            now_ms = self._now_ms()
            self.membership = Membership(config.lease_ms, config.failure_ms)
            for node in nodes:
                self.membership.restore(node, now_ms)
            self._stored = {node.node: node for node in nodes}
            self._chains = self._new_watch(rest)
            self._chains.follow(routing)
            self._loaded = True
            self._set_routing(routing)

    def reconfigure(self, config: ManagerConfig) -> None:
        """What of it takes effect at once does: bounds of moves, how many targets a node is meant to have."""
        self.config = config
        self.move_watch.limits = self._limits()
        self.move_watch.lost_after_ms = config.replace_lost_after_ms

    def _limits(self) -> Limits:
        config = self.config
        return Limits(config.replicas, config.moves_per_node, config.moves_at_once)

    def _new_move_watch(self, moves: Iterable[Move]) -> MoveWatch:
        return MoveWatch(moves, self._limits(), self.config.replace_lost_after_ms)

    def _new_watch(self, rest: RestRecord | None) -> ChainWatch:
        config, now_ms = self.config, self._now_ms()
        resting = None if rest is None else Resting(rest, config.failure_ms, now_ms)
        return ChainWatch(Standings(now_ms, config.failure_ms, config.opening_ms), resting)

    @property
    def acts(self) -> bool:
        """This server is the manager."""
        return self._loaded and self.lease.held() and not self._closing.is_set()

    def _check_manager(self) -> None:
        if self._closing.is_set():
            raise EmberError(Code.CLOSING, "the manager shuts down")
        if not self.acts:
            raise EmberError(Code.NOT_MANAGER)

    def _check_cluster(self, cluster: str, identity: Identity) -> None:
        if cluster != self.config.cluster:
            raise EmberError(
                Code.WRONG_CLUSTER,
                f"node {identity.node} belongs to cluster {cluster!r}, this manager to {self.config.cluster!r}",
            )

    # --- what nodes say --------------------------------------------------------------------------------------

    def open_stream(self, cluster: str, identity: Identity, cluster_uuid: bytes = b"") -> "NodeStream":
        """A node's heartbeat stream begins. `cluster_uuid`: of the cluster that the node's directory is of; b"": it has
        met no manager yet. Raises WRONG_CLUSTER, NOT_MANAGER, CLOSING."""
        self._check_manager()
        self._check_cluster(cluster, identity)
        if cluster_uuid and self.cluster_uuid and cluster_uuid != self.cluster_uuid:
            raise EmberError(
                Code.WRONG_CLUSTER,
                f"the data of node {identity.node} is of another cluster of the name {cluster!r} "
                f"({cluster_uuid.hex()}, this is {self.cluster_uuid.hex()}): its metadata store is elsewhere, or lost",
            )
        return NodeStream(self, self.membership, identity)

    async def take(self, stream: "NodeStream", beat: Beat) -> Routing:
        """See `NodeStream.heartbeat`."""
        self._check_manager()
        identity = stream.identity
        if stream.membership is not self.membership:
            raise EmberError(Code.NOT_MANAGER, "this server has become the manager anew: open a new stream")
        known = self.membership.members.get(identity.node)
        was = known.state if known is not None else None
        before = (known.targets, known.judged) if known is not None else None
        member = self.membership.heartbeat(identity, beat, self._now_ms())
        stream.opened()
        if was is not NodeState.UP or known is not member:
            _log.info("node %s is up at %s:%s", identity.node, identity.host, identity.port)
            before = None
        verdicts = self._judge(identity, beat)
        member.judged = {judged.target: judged for judged in verdicts}
        moves = self._chains.heard(member, before)
        # What is being published may have been made before this heartbeat came, and tell of its node as it was then.
        if moves or self._learned or self._stored.get(identity.node) != member.record() or self._publishing.locked():
            await self._publish(waiting=False)
        stream.verdicts = self._retire(verdicts, beat)
        return self._routing

    def _judge(self, identity: Identity, beat: Beat) -> list[Judged]:
        """What becomes of the stores that a node reports; what is learned of them is published next."""
        verdicts = []
        for target, report in beat.stores.items():
            if self._node_of.get(target) != identity.node:
                continue  # on no chain, or another node's
            known = self._learned.get(target) or self._stores.get(target)
            judged = judge(target, report, identity.incarnation, known, self._heard.get(target))
            if judged.verdict is StoreVerdict.SERVE:
                self._heard[target] = report
            if judged.learned is not None:
                self._learned[target] = judged.learned
            verdicts.append(judged)
        return verdicts

    def _retire(self, verdicts: Sequence[Judged], beat: Beat) -> list[Judged]:
        """The verdicts as they are told: who is to leave its chain retires, what has left is not needed."""
        watch = self.move_watch
        watch.tell(self._routing.chains, self.able)
        told = [
            judged._replace(verdict=StoreVerdict.RETIRE, reason=f"target {judged.target} is to leave its chain")
            if judged.target in watch.told and judged.verdict is StoreVerdict.SERVE
            else judged
            for judged in verdicts
        ]
        for target in beat.targets:
            store = self._stores.get(target)
            if store is not None and store.retired:
                reason = f"target {target} is on no chain any more"
                opening = beat.stores[target].opening if target in beat.stores else 0
                told.append(Judged(target, StoreVerdict.RETIRE, opening, store, reason, None, True))
        return told

    async def let_go(self, stream: "NodeStream") -> None:
        """See `NodeStream.leave`."""
        self._check_manager()
        if stream.membership is not self.membership:
            raise EmberError(Code.NOT_MANAGER, "this server has become the manager anew: open a new stream")
        self.membership.leave(stream.identity)
        self._chains.touch_node(stream.identity.node)
        _log.info("node %s has left", stream.identity.node)
        await self._publish()

    # --- watching --------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Renew the lease, fail silent and vanished nodes, refresh live figures, until `close`."""
        tick_s = self.config.heartbeat_interval_ms / 1000 / TICKS_PER_HEARTBEAT
        renew_s = self.config.lease_ms / 1000 / 4
        renewed_s = self._clock()
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(tick_s):
                    await self._closing.wait()
                return
            try:
                renew = not self._kv.exclusive and self._clock() - renewed_s >= renew_s
                if renew or not self._loaded:
                    renewed_s = self._clock()
                    await self._take_over()
                if self._loaded and self.lease.held():
                    await self.look()
            except EmberError as error:
                _log.error("the manager could not publish, and tries again: %s", error)

    async def look(self) -> None:
        """One look at all nodes: what the watching task does each tick."""
        for member in self.membership.expire(self._now_ms()):
            self._chains.touch_node(member.identity.node)
            _log.warning("node %s has failed: silent for %s ms", member.identity.node, self.membership.failure_ms)
        suspects = [member.identity for member in self.membership.suspects()]
        refused = await asyncio.gather(*(self._refuses(who.host, who.port) for who in suspects))
        for who, gone in zip(suspects, refused, strict=True):
            if gone and self.membership.gone(who):
                self._chains.touch_node(who.node)
                _log.warning("node %s has failed: %s:%s refuses connections", who.node, who.host, who.port)
        if self.membership.members:
            await self._publish_now()

    # --- publishing ------------------------------------------------------------------------------------------

    async def _publish(self, *, waiting: bool = True) -> None:
        """Commit and publish what the nodes' state makes of the routing. `waiting`: see `ChainWatch.look`."""
        await self._to_its_end(self._publish_now(waiting=waiting))

    async def _to_its_end(self, change: Coroutine[Any, Any, T]) -> T:
        """Run a change of what is stored, which goes on when the caller is cancelled: it must not end between its
        commit and what this process makes of it."""
        task = asyncio.get_running_loop().create_task(change, name="manager publish")
        self._publications.add(task)
        task.add_done_callback(self._publications.discard)
        return await asyncio.shield(task)

    def _check_loaded(self) -> None:
        """Under the lock: the change before may have left nobody knows what in the store, which has to be loaded."""
        if not self._loaded:
            raise EmberError(Code.NOT_MANAGER, "the state of the cluster is being loaded again")

    async def _publish_now(self, *, waiting: bool = True) -> None:
        async with self._publishing:
            self._check_loaded()
            old, now_ms = self._routing, self._now_ms()
            members = self.membership.members
            changed = [
                record for node, member in members.items() if self._stored.get(node) != (record := member.record())
            ]
            watch = self._chains
            resting = watch.resting
            rested = resting is not None and resting.over(members, now_ms)
            if rested:
                watch.resting = None
                watch.touch_all()
            config = self.config
            new = with_first_table(with_nodes(old, members.values()), config.storage_nodes, config.targets_per_node)
            chains, looked = watch.look(new.chains, self.membership, now_ms, waiting=waiting)
            moved = self._moved(new, chains, now_ms)
            if moved.chains is not new.chains or moved.tables is not new.tables:
                new = msgspec.structs.replace(new, chains=moved.chains, tables=moved.tables)
            stores = {store.target: store for store in placed(old, new)} | self._reached(changed) | self._learned
            stores |= {store.target: store for store in moved.stores}
            same = same_version(old, new)
            if same and not (changed or stores or rested or moved.moves or moved.over):
                self._set_routing(new)  # live figures
                return
            if not same:
                new = msgspec.structs.replace(new, version=old.version + 1)

            async def put(txn: Transaction) -> None:
                await self.lease.validate(txn)
                save(txn, old, new, changed, stores.values())
                save_moves(txn, moved.moves.values(), moved.over)
                if rested:
                    txn.delete(REST_KEY)

            try:
                await self._commit(put)
            except BaseException:
                watch.touch(looked)
                if rested:
                    watch.resting = resting
                raise
            self._stored |= {record.node: record for record in changed}
            self._stores.update(stores)
            self.move_watch.committed(moved, self.able)
            self._learned = {
                target: store for target, store in self._learned.items() if store is not stores.get(target)
            }
            if new.tables and not old.tables:
                _log.info("the first chain table: %s chains of %s replicas", len(new.chains), new.replicas)
            if rested:
                _log.info("the cluster is back: its chains change again")
            _log_changes(old.chains, new.chains)
            _log_moves(moved.moves.values())
            self._set_routing(new)

    def _moved(self, routing: Routing, chains: list[Chain], now_ms: int) -> Look:
        """What the moves make of the chains; nothing while the cluster rests."""
        if self._chains.resting is not None:
            return Look(chains, routing.tables, {}, [], [])
        return self.move_watch.look(routing, chains, self.able, self.rooms(), self.target_ids, now_ms, self.size_of)

    async def _commit(self, put: Callable[[Transaction], Awaitable[None]]) -> None:
        """Durable on return. On an error nobody knows about, the state is to be loaded again."""
        try:
            await self._kv.transact(put)
        except EmberError as error:
            if error.retry is Retry.MAYBE_APPLIED or error.code is Code.NOT_MANAGER:
                self._loaded = False  # what the store holds is not what this process thinks: load it again
            raise

    def _reached(self, changed: Sequence[Node]) -> dict[int, Store]:
        """How far the stores of nodes that went down had come: their next openings have to be as far."""
        down = {node.node for node in changed if node.state is not NodeState.UP}
        reached = {}
        for target, heard in self._heard.items():
            store = self._stores.get(target)
            if store is None or self._node_of.get(target) not in down:
                continue
            if heard[:2] == (store.uuid, store.opening) and heard.position > store.position:
                reached[target] = msgspec.structs.replace(store, position=heard.position)
        return reached

    def _set_routing(self, routing: Routing) -> None:
        news = routing.version != self._routing.version
        self._routing = routing
        if news:
            self._node_of = {member.target: member.node for chain in routing.chains for member in chain.targets}
            self._chains.follow(routing)
            self._wake_waiters()
            for callback in self._subscribers:
                callback(routing)

    def _wake_waiters(self) -> None:
        published, self._published = self._published, asyncio.Event()
        published.set()

    def heartbeat_ages_s(self) -> dict[int, float]:
        """By node: since this manager heard it last."""
        now_ms = self._now_ms()
        members = self.membership.members
        return {node: (now_ms - member.heard_ms) / 1000 for node, member in members.items() if member.beat}

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


class NodeStream:
    """One heartbeat stream, from its first message to its end."""

    def __init__(self, manager: Manager, membership: Membership, identity: Identity) -> None:
        self._manager = manager
        self.membership = membership
        """The one it counts in: the manager's, unless that was loaded anew."""
        self.identity = identity
        self.verdicts: Sequence[Judged] = ()
        """On the stores of the heartbeat taken last."""
        self._counted = False

    async def heartbeat(self, beat: Beat) -> Routing:
        """Take a heartbeat; the routing as it is after it.

        On return the node may hold a lease, counted from when it sent the heartbeat. Raises INVALID, NODE_TAKEN,
        CLOSING, NOT_MANAGER, and what the store raises.
        """
        return await self._manager.take(self, beat)

    async def leave(self) -> None:
        """The node says goodbye, on a stream of its own process; published on return. Others do not know its
        incarnation. Raises NODE_UNKNOWN, NODE_TAKEN, NOT_MANAGER, CLOSING."""
        await self._manager.let_go(self)

    def opened(self) -> None:
        """The membership has taken a heartbeat of it."""
        if not self._counted:
            self._counted = True
            self.membership.stream_opened(self.identity)

    def close(self) -> None:
        if self._counted:
            self._counted = False
            self.membership.stream_closed(self.identity)


def _log_changes(old: Sequence[Chain], new: Sequence[Chain]) -> None:
    """A line for each chain that has changed. Those of the first table are none."""
    for before, after in zip(old, new, strict=False):
        if after is not before and after.version > before.version:
            targets = ", ".join(f"{member.target} {member.state.name.lower()}" for member in after.targets)
            _log.info("chain %s at version %s: %s", after.chain, after.version, targets)


def _log_moves(moves: Iterable[Move]) -> None:
    for move in moves:
        joins = f"target {move.joins} joins on node {move.node}" if move.joins else "none joins"
        leaves = f"target {move.leaves} leaves" if move.leaves else "none leaves"
        _log.info("move %s of chain %s is %s: %s, %s", move.move, move.chain, move.state.name.lower(), joins, leaves)


async def _refuses_connections(host: str, port: int) -> bool:
    """Whether a connect to the port is refused: nobody listens there. Anything else is no: a timeout, any other error,
    a host that is none."""
    refused = False
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            for _, address in await resolve(host, port):
                try:
                    _, writer = await asyncio.open_connection(*address[:2])
                except ConnectionRefusedError:
                    refused = True
                    continue
                writer.close()
                with contextlib.suppress(Exception):
                    await writer.wait_closed()
                return False
    except Exception:  # of whatever kind: it proves nothing about the process
        return False
    return refused
