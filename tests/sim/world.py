"""Puts a cluster together, breaks it as its plan says, lets it heal, and checks what is left."""

import contextlib
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from fs_common.errors import EmberError
from fs_common.records.routing import Chain, ChainTarget, NodeState, PublicState
from fs_meta.manager import records
from fs_storage.craq.apportion import Told
from fs_storage.craq.position import Position
from fs_storage.target import Target
from tests.sim.checks import Checks, Violation
from tests.sim.client import CHAIN, Client
from tests.sim.daemon import Daemon, Defects, Disk
from tests.sim.kernel import Kernel, Machine
from tests.sim.manager import Manager, MetadataStore, Table, shown
from tests.sim.network import LATE_MAX_MS, Network
from tests.sim.plan import Plan, plan_of
from tests.sim.store import Store
from tests.storage.craq.model_store import Content

LOSSY = frozenset(("power", "power of several", "power of all", "disk fails", "replaced"))
HEALED_MS = 180_000.0
"""Faults are over: so long after that everything serves at the latest."""


class World:
    """One run. `run()` raises `Violation`, or what an invariant of the real code raises."""

    defects: type[Defects] = Defects
    replica_class: Any = None
    manager_class: type[Manager] = Manager

    def __init__(self, seed: int, plan: Plan | None = None, write: Callable[[str], None] | None = None) -> None:
        self.plan = plan if plan is not None else plan_of(Random(seed))
        self.kernel = Kernel(seed)
        plan = self.plan
        self.network = Network(
            self.kernel,
            loss=plan.loss,
            slow=plan.slow,
            duplication=plan.duplication,
            pace_ms=plan.pace_ms,
            late_news=plan.late_news,
        )
        chunks = [b"chunk-%06d" % number for number in range(plan.chunks)]
        self.checks = Checks(chunks, lambda: self.kernel.now, write)
        self.nodes = list(range(1, plan.replicas + 1))
        targets = [ChainTarget(node * 100 + 1, node, PublicState.SERVING) for node in self.nodes]
        self.stored = MetadataStore(Table(1, {CHAIN: Chain(CHAIN, 1, targets)}))
        self.checks.stored_metadata = self.stored
        self.checks.look = self.look
        self.disks: dict[int, Disk] = {}
        """By node."""
        for one in targets:
            identity = one.target.to_bytes(16, "big")
            store = Store(identity, memory=plan.memory, suspicious=plan.suspicious)
            self.disks[one.node] = Disk(one.target, CHAIN, store)
            self.stored.stores[one.target] = records.Store(one.target, identity, 0, 1, 0)
            self.stored.nodes[one.node] = records.Node(
                one.node, "127.0.0.1", 7000 + one.node, NodeState.UP, 1, 0, "sim"
            )
        self.machines = {name: self._machine(name) for name in ["manager", *(f"n{node}" for node in self.nodes)]}
        self.daemons: dict[int, Daemon] = {}
        """Those that live."""
        self._start_at: dict[int, float] = {}
        """When a node's daemon starts again."""
        self.manager: Manager | None = None
        self.clients: list[Client] = []
        self.replaced: set[int] = set()
        """Nodes whose disk is another, empty one."""
        self.calm = False

    def _machine(self, name: str) -> Machine:
        random = self.kernel.random
        return Machine(name, random.uniform(-self.plan.drift, self.plan.drift), random.uniform(0.0, 1e6))

    # -- running -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Everything starts, and serves."""
        self.start_manager()
        for node in self.nodes:
            self.start_node(node)
        self.kernel.run(90_000.0, lambda: self.rests() is None)
        why = self.rests()
        if why is not None:
            raise Violation(f"a cluster that nothing happens to does not start: {why}")

    def run(self) -> None:
        kernel, plan = self.kernel, self.plan
        self.begin()
        began = kernel.now
        for number in range(plan.clients):
            client = Client(
                kernel, self._machine(f"c{number}"), self.network, number, self.checks, self.stored.table, plan.steps
            )
            client.busy = plan.busy
            client.manager = lambda: self.manager
            client.gap_ms = plan.length_ms / plan.steps / 1.5
            self.network.processes[client.name] = client
            self.clients.append(client)
            client.start()
        at = 0.0
        for index in range(plan.faults):
            if not index or kernel.random.random() >= plan.together:
                at = began + kernel.random.uniform(0.0, plan.length_ms)
            else:
                at += kernel.random.expovariate(1 / 700.0)
            kernel.at(at, self._break, None)
        kernel.run(began + plan.length_ms)
        self.heal()
        kernel.run(kernel.now + HEALED_MS, lambda: all(client.done for client in self.clients))
        kernel.run(kernel.now + HEALED_MS, lambda: self.rests() is None)
        why = self.rests()
        if why is not None:
            raise Violation(f"it does not heal: {why}")
        if not all(client.done for client in self.clients):
            raise Violation("a client never ends")
        self.check_end()

    def rests(self) -> str | None:
        """None: everything serves, and nothing is under way. Otherwise what does not."""
        chain = self.stored.table.chains[CHAIN]
        for one in chain.targets:
            daemon = self.daemons.get(one.node)
            if daemon is None:
                return f"node {one.node} is down"
            if one.node in self.replaced:
                if one.state is not PublicState.OFFLINE:
                    return f"{one.target}, which has another disk: {shown(chain)}"
                continue
            if one.state is not PublicState.SERVING:
                return shown(chain)
            target = daemon.targets.get(CHAIN)
            if target is None or target.position is None or target.position.version != chain.version:
                return f"target {one.target} is not there yet: {shown(chain)}"
            if not target.serves or target.unfit is not None:
                return f"target {one.target} does not serve: {shown(chain)}: {target.why_not()}"
            if target.replica.busy_chunks or target.replica.unsettled or target.store.pending():
                return f"target {one.target} has something under way: {target.store.chunks}"  # type: ignore[attr-defined]
        return None

    def look(self) -> None:
        """What readers would be told now, wherever they come: each serves, and all see the same, or something newer."""
        if self.checks.forgiving:
            return
        for daemon in self.daemons.values():
            if daemon.stopped_until > self.kernel.now:
                continue
            for target in daemon.targets.values():
                position = target.position
                if position is None or not target.serves:
                    continue
                self.checks.acts(target, position)
                for chunk in self.checks.history:
                    told = self._would_tell(daemon, target, position, chunk)
                    if told is not None:
                        self.checks.seen(chunk, target, *told)

    def _would_tell(
        self, daemon: Daemon, target: Target, position: Position, chunk: bytes
    ) -> tuple[int, Content] | None:
        if chunk not in target.uncertain:
            return daemon.tells(target, chunk, None)
        other = self.daemons.get(position.tail.node)
        if other is None or other.stopped_until > self.kernel.now:
            return None
        tail = other.targets.get(position.chain)
        if tail is None or tail.position is None or not tail.serves:
            return None
        if tail.position.version != position.version or not tail.position.is_tail:
            return None
        state = tail.store.state(chunk)
        return daemon.tells(target, chunk, Told(state.version if state is not None else 0, tail.store.digest(chunk)))

    def check_end(self) -> None:
        stores = {
            disk.target: disk.store for node, disk in self.disks.items() if node not in self.replaced and disk.store
        }
        for chunk in self.checks.history:
            self.checks.end(chunk, stores)

    # -- processes ---------------------------------------------------------------------------------------------

    def start_manager(self) -> None:
        manager = self.manager_class(
            self.kernel, self.machines["manager"], self.network, self.stored, self.checks.trace
        )
        self.manager = self.network.processes["manager"] = manager
        self.checks.trace("manager", f"starts with {shown(self.stored.table.chains[CHAIN])}")
        manager.start()

    def start_node(self, node: int) -> None:
        if node in self.daemons:
            return
        daemon = Daemon(
            self.kernel,
            self.machines[f"n{node}"],
            self.network,
            node,
            [self.disks[node]],
            self.checks,
            self.defects,
            self.replica_class,
        )
        self.daemons[node] = daemon
        self.network.processes[daemon.name] = daemon
        self.checks.trace(daemon.name, "starts")
        daemon.start()
        self.kernel.after(500.0, lambda: self._look_after(daemon), None)

    def _look_after(self, daemon: Daemon) -> None:
        """Whoever runs it starts it again when it has ended, or its disk has failed."""
        if not daemon.alive:
            return
        if daemon.dismissed:
            self.end_node(daemon.node, power=False, back_ms=200.0)
            return
        failed = any(target.failed is not None for target in daemon.targets.values())
        if failed and (self.calm or self.kernel.random.random() < 0.05):
            self.end_node(daemon.node, power=False, back_ms=1_000.0)
            return
        self.kernel.after(500.0, lambda: self._look_after(daemon), None)

    def end_node(
        self, node: int, *, power: bool, back_ms: float | None, crash: Callable[..., None] = Store.crash
    ) -> None:
        daemon = self.daemons.pop(node, None)
        if daemon is None:
            return
        daemon.alive = False
        if power:
            daemon.lost_power_ms = self.kernel.now
        del self.network.processes[daemon.name]
        daemon.die(power=power, crash=crash)
        if self.plan.memory and not any(self._is_whole(one) for one in self._survivors()):
            # What it had, the only one left or the last of them, is gone as far as it was in memory only.
            self.checks.forgiving = True
        self.checks.trace(daemon.name, "loses its power" if power else "dies")
        manager = self.manager
        if manager is not None and not power and not self.network.is_cut(daemon.name, "manager"):
            # Its connections are closed; a machine without power says nothing.
            self.kernel.after(
                self.kernel.random.expovariate(1 / 20.0), lambda: manager.stream_closed(daemon.identity), manager
            )
        if back_ms is not None:
            self.kernel.after(back_ms, lambda: self.start_node(node), None)

    # -- faults ------------------------------------------------------------------------------------------------

    def _break(self, tries: int = 200) -> None:
        if tries == 200 and self.kernel.random.random() >= self.plan.busy:
            tries = 0
        if tries and not any(
            target.replica.busy_chunks for daemon in self.daemons.values() for target in daemon.targets.values()
        ):
            self.kernel.after(10.0, lambda: self._break(tries - 1))
            return
        if self.calm:
            return
        random = self.kernel.random
        kind = random.choice(self.plan.kinds)
        if kind in LOSSY and self._fragile() and not self.checks.forgiving:
            return
        node = random.choice(self.nodes)
        duration_ms = random.choice((500.0, 3_000.0, 9_000.0, 14_000.0)) * random.uniform(0.5, 1.5)
        back_ms = random.choice(self.plan.back_ms) * random.uniform(0.5, 1.5)
        several = random.sample(self.nodes, random.randint(1, len(self.nodes)))
        self.checks.trace("world", f"{kind}: node {node}")
        self.checks.count(kind)
        match kind:
            case "kill":
                self.end_node(node, power=False, back_ms=back_ms)
            case "kill several":
                for one in several:
                    self.end_node(one, power=False, back_ms=back_ms * random.uniform(0.5, 1.5))
            case "stop":
                daemon = self.daemons.get(node)
                if daemon is not None:
                    daemon.stopped_until = self.kernel.now + duration_ms
            case "cut from manager":
                self._cut(f"n{node}", "manager", duration_ms)
            case "cut from another":
                other = random.choice(self.nodes)
                if other != node:
                    self._cut(f"n{node}", f"n{other}", duration_ms)
            case "cut off":
                for name in ["manager", *(f"n{one}" for one in self.nodes if one != node)]:
                    self._cut(f"n{node}", name, duration_ms)
            case "cut from clients":
                for client in self.clients:
                    self._cut(f"n{node}", client.name, duration_ms)
            case "power":
                self._power([node], back_ms)
            case "power of several":
                self._power(several, back_ms)
            case "power of all":
                self._power(self.nodes, back_ms)
            case "manager dies":
                self._kill_manager(random.choice((100.0, 3_000.0, 12_000.0)))
            case "goodbye":
                self.say_goodbye(node, back_ms)
            case "disk fails":
                if not self.plan.memory or self._keeps([node]):
                    self.disks[node].fails = True
            case "disk full":
                self._fill_disk(node, duration_ms)
            case "replaced":
                self._replace(node, back_ms)
            case "forget":
                for disk in self.disks.values():
                    store = disk.store
                    if store is not None and random.random() < 0.7:
                        for chunk in self.checks.history:
                            store.forget_removal(chunk, self.kernel.now - LATE_MAX_MS)

    def _cut(self, one: str, other: str, duration_ms: float) -> None:
        way = self.kernel.random.choice(("both", "there", "back"))
        if way != "back":
            self.network.cut(one, other, duration_ms)
        if way != "there":
            self.network.cut(other, one, duration_ms)

    def _keeps(self, nodes: list[int]) -> bool:
        """Whether somebody else has everything, and will not be dropped for one of those: it serves, and is well."""
        for one in self.stored.table.chains[CHAIN].targets:
            daemon = self.daemons.get(one.node)
            if one.node in nodes or one.state is not PublicState.SERVING or daemon is None:
                continue
            name = daemon.name
            if daemon.stopped_until > self.kernel.now or self.disks[one.node].fails:
                continue
            if self.network.is_cut(name, "manager") or self.network.is_cut("manager", name):
                continue
            target = daemon.targets.get(CHAIN)
            if target is not None and target.may_act:
                return True
        return False

    def _survivors(self) -> list[int]:
        """Nodes that have everything, or had it before they lost it."""
        chain = self.stored.table.chains[CHAIN]
        return [one.node for one in chain.targets if one.state in (PublicState.SERVING, PublicState.LASTSRV)]

    def _is_whole(self, node: int) -> bool:
        store = self.disks[node].store
        return store is not None and store.whole

    def _fragile(self) -> bool:
        """Somebody has lost something, and the manager takes it for one that has everything: no more at once."""
        for one in self.stored.table.chains[CHAIN].targets:
            disk = self.disks[one.node]
            lost = disk.store is None or (self.plan.memory and (disk.fails or not disk.store.whole))
            if lost and one.state in (PublicState.SERVING, PublicState.LASTSRV):
                return True
        return False

    def _power(self, nodes: list[int], back_ms: float) -> None:
        if self.plan.memory and not self._keeps(nodes):
            if len(nodes) < len(self.nodes):
                return
            self.checks.forgiving = True
        for node in nodes:
            # A machine needs a while to start; and what others had sent it is gone by then.
            self.end_node(node, power=True, back_ms=back_ms + 500.0)

    def _kill_manager(self, back_ms: float) -> None:
        manager = self.manager
        if manager is None:
            return
        manager.alive = False
        self.manager = None
        del self.network.processes["manager"]
        self.kernel.after(back_ms * self.kernel.random.uniform(0.5, 1.5), self.start_manager, None)

    def say_goodbye(self, node: int, back_ms: float | None) -> None:
        """It stops, and says so."""
        daemon, manager = self.daemons.get(node), self.manager
        if daemon is None:
            return
        self.end_node(node, power=False, back_ms=back_ms)
        if manager is not None and not self.network.is_cut(daemon.name, "manager"):
            self.kernel.after(2.0, partial(self.kernel.spawn, manager, _goodbye(manager, daemon)), manager)

    def _fill_disk(self, node: int, duration_ms: float) -> None:
        store = self.disks[node].store
        if store is None:
            return
        store.full = True

        def empty() -> None:
            store.full = False

        self.kernel.after(duration_ms, empty, None)

    def _replace(self, node: int, back_ms: float) -> None:
        """Another, empty disk. Only while all others have everything: this is for good, and where a survivor that is
        not whole waits for one whose disk is gone, an operator is needed."""
        if self.replaced or self.checks.forgiving or not self._keeps([node]):
            return
        if any(self.disks[one].fails or not self._is_whole(one) for one in self.nodes if one != node):
            return
        self.replaced.add(node)
        self.end_node(node, power=True, back_ms=back_ms)
        self.disks[node].store = None

    def heal(self) -> None:
        """No more faults."""
        self.calm = True
        self.checks.trace("world", "heals")
        self.network.heal()
        for disk in self.disks.values():
            disk.fails = False
            if disk.store is not None:
                disk.store.full = False
        for daemon in self.daemons.values():
            daemon.stopped_until = 0.0


async def _goodbye(manager: Manager, daemon: Daemon) -> None:
    # Refused: it was taken for failed before, or another process has its node by now.
    with contextlib.suppress(EmberError):
        await manager.handle("goodbye", daemon.identity)
