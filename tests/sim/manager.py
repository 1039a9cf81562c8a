"""The cluster manager: the shell around the real `ChainWatch` (with `Standings` and `advance`), `Membership`, `judge`.

Its store survives it. A publication is one transaction, which takes time and may fail; a crash leaves it done or not. A
heartbeat is answered after every publication that was begun before it, or that it brings.
"""

import contextlib
from dataclasses import dataclass, field
from typing import Any

from fs_common.errors import Code, EmberError
from fs_common.records.routing import Chain, NodeState, PublicState, Routing, StoreVerdict
from fs_meta.manager.chain_watch import ChainWatch
from fs_meta.manager.membership import Beat, Identity, Membership
from fs_meta.manager.records import Node, Store
from fs_meta.manager.standings import Standings
from fs_meta.manager.stores import Judged, StoreReport, judge
from tests.sim.kernel import Future, Gate, Kernel, Machine, Process
from tests.sim.network import Network

LEASE_MS = 8_000
FAILURE_MS = 10_000
HEARTBEAT_MS = 1_000
TICK_MS = 400.0
OPENING_MS = 10_000


@dataclass(frozen=True)
class Table:
    """A routing: what is published."""

    version: int
    chains: dict[int, Chain]


@dataclass
class MetadataStore:
    """What the manager's store holds, durably."""

    table: Table
    nodes: dict[int, Node] = field(default_factory=dict)
    stores: dict[int, Store] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    lease_ms: int
    table: Table
    verdicts: list[Judged]


class Manager(Process):
    answers_before_it_publishes = False
    takes_late_heartbeats = False
    """Planted defects."""

    def __init__(self, kernel: Kernel, machine: Machine, network: Network, stored: MetadataStore, trace: Any) -> None:
        super().__init__(kernel, "manager", machine)
        self._network = network
        self._stored = stored
        self._trace = trace
        self.table = stored.table
        self._nodes = dict(stored.nodes)
        self._stores = dict(stored.stores)
        self._learned: dict[int, Store] = {}
        self._heard: dict[int, StoreReport] = {}
        self._node_of = {one.target: one.node for chain in self.table.chains.values() for one in chain.targets}
        self.membership = Membership(LEASE_MS, FAILURE_MS)
        for node in self._nodes.values():
            self.membership.restore(node, self._now_ms())
        self.watch = ChainWatch(self.standings(self._now_ms()))
        self.watch.follow(_routing(self.table))
        self._publishing: Future | None = None
        self.published = Gate()
        """Opened when a chain has changed."""

    def standings(self, now_ms: int) -> Standings:
        return Standings(now_ms, FAILURE_MS, OPENING_MS)

    def start(self) -> None:
        self.kernel.spawn(self, self._watch())

    def _now_ms(self) -> int:
        return int(self.clock_ms())

    async def handle(self, method: str, *arguments: Any) -> Any:
        match method:
            case "heartbeat":
                return await self._heartbeat(*arguments)
            case "goodbye":
                return await self._goodbye(*arguments)
            case "routing":
                return self.table
        raise AssertionError(method)

    async def _heartbeat(self, identity: Identity, beat: Beat) -> Reply:
        if self.takes_late_heartbeats:
            beat = beat._replace(sent_ms=0)
        known = self.membership.members.get(identity.node)
        was = known.state if known is not None else None
        before = (known.targets, known.judged) if known is not None else None
        member = self.membership.heartbeat(identity, beat, self._now_ms())
        if known is not member or member.streams == 0:
            self.membership.stream_opened(identity)
        if was is not NodeState.UP or known is not member:
            before = None
        verdicts = self._judge(identity, beat)
        member.judged = {judged.target: judged for judged in verdicts}
        moves = self.watch.heard(member, before)
        stale = self._learned or self._nodes.get(identity.node) != member.record() or self._publishing is not None
        if (moves or stale) and not self.answers_before_it_publishes:
            await self._publish()
        return Reply(LEASE_MS, self.table, verdicts)

    def _judge(self, identity: Identity, beat: Beat) -> list[Judged]:
        verdicts = []
        for target, report in beat.stores.items():
            if self._node_of.get(target) != identity.node:
                continue
            known = self._learned.get(target) or self._stores.get(target)
            judged = judge(target, report, identity.incarnation, known, self._heard.get(target))
            if judged.verdict is StoreVerdict.SERVE:
                self._heard[target] = report
            if judged.learned is not None:
                self._learned[target] = judged.learned
            verdicts.append(judged)
        return verdicts

    async def _goodbye(self, identity: Identity) -> None:
        self.membership.leave(identity)
        self.watch.touch_node(identity.node)
        await self._publish()

    def stream_closed(self, identity: Identity) -> None:
        """The connection of that process has ended."""
        member = self.membership.members.get(identity.node)
        if member is not None and member.identity == identity and member.streams:
            self.membership.stream_closed(identity)

    async def _watch(self) -> None:
        while True:
            await self.kernel.sleep(self, TICK_MS)
            for failed in self.membership.expire(self._now_ms()):
                self.watch.touch_node(failed.identity.node)
            for member in self.membership.suspects():
                name = f"n{member.identity.node}"
                # A port that refuses: the machine runs, can be reached, and the process is gone.
                process = self._network.processes.get(name)
                refuses = process is None and not self._network.is_cut("manager", name) and self._refuses(name)
                if refuses and self.membership.gone(member.identity):
                    self.watch.touch_node(member.identity.node)
            with contextlib.suppress(EmberError):
                await self._publish()

    def _refuses(self, name: str) -> bool:
        return self.kernel.random.random() < 0.7

    async def _publish(self) -> None:
        while self._publishing is not None:
            await self._publishing
        members = self.membership.members
        changed = {
            node: record for node, member in members.items() if self._nodes.get(node) != (record := member.record())
        }
        learned = dict(self._learned)
        was = list(self.table.chains.values())
        now, looked = self._look(was)
        chains = {chain.chain: chain for chain in now}
        news = [chain for chain in now if chain is not self.table.chains[chain.chain]]
        stores = self._reached(changed) | learned
        if not changed and not stores and not news:
            return
        table = Table(self.table.version + 1, chains) if news or changed else self.table
        self._publishing = Future()
        try:
            await self._transact(table, changed, stores)
        except EmberError:
            self.watch.touch(looked)
            raise
        finally:
            publishing, self._publishing = self._publishing, None
            publishing.set()
        self._nodes |= changed
        self._stores |= stores
        self._learned = {target: store for target, store in self._learned.items() if store is not stores.get(target)}
        if table is self.table:
            return
        self.table = table
        self.watch.follow(_routing(table))
        for chain in news:
            self._trace("manager", f"publishes {shown(chain)}")
        for node in self._nodes:
            self._network.tell(self, f"n{node}", "routing", table)
        if news:
            self.published.open()

    async def _transact(self, table: Table, nodes: dict[int, Node], stores: dict[int, Store]) -> None:
        random = self.kernel.random
        slow = random.random() < 0.02
        await self.kernel.sleep(self, random.expovariate(1 / (800.0 if slow else 4.0)))
        if not self._network.calm and random.random() < 0.01:
            raise EmberError(Code.KV_CONFLICT, "the transaction failed")
        stored = self._stored
        stored.table = table
        stored.nodes |= nodes
        stored.stores |= stores
        await self.kernel.sleep(self, random.expovariate(1 / 3.0))

    def _look(self, chains: list[Chain]) -> tuple[list[Chain], set[int]]:
        return self.watch.look(chains, self.membership, self._now_ms())

    def _reached(self, changed: dict[int, Node]) -> dict[int, Store]:
        """How far the stores of nodes that went down had come."""
        down = {number for number, node in changed.items() if node.state is not NodeState.UP}
        reached = {}
        for target, heard in self._heard.items():
            store = self._stores.get(target)
            if store is None or self._node_of.get(target) not in down:
                continue
            if heard[:2] == (store.uuid, store.opening) and heard.position > store.position:
                reached[target] = Store(
                    target, store.uuid, store.opening, store.incarnation, store.process, heard.position
                )
        return reached


def _routing(table: Table) -> Routing:
    return Routing(table.version, "sim", [], list(table.chains.values()), [], 0)


_LETTERS = {
    PublicState.SERVING: "S",
    PublicState.LASTSRV: "L",
    PublicState.SYNCING: "Y",
    PublicState.WAITING: "W",
    PublicState.OFFLINE: "O",
}


def shown(chain: Chain) -> str:
    """`v5 101:S 301:S 201:Y`: version, then each target's state by its letter (SYNCING is Y)."""
    return f"v{chain.version} " + " ".join(f"{one.target}:{_LETTERS[one.state]}" for one in chain.targets)
