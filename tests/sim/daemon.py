"""A storage daemon: conversation with the manager, targets, handlers. The shell of the real `Target` and its core.

What the shell of a real daemon does in its modules is done here in those of the same names, shorter: `updates` and
`forward` (`Updates`), `settling`, `mending`, `filling` (resync and FINISH_SYNC).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fs_common.errors import Code, EmberError
from fs_common.records.routing import Chain, LocalState, StoreVerdict
from fs_meta.manager.chains import Report
from fs_meta.manager.membership import Beat, Identity, TargetReport
from fs_meta.manager.stores import StoreReport
from fs_storage.craq.apportion import Serve, Told, serve
from fs_storage.craq.position import Position, position_of
from fs_storage.target import Target
from tests.sim.checks import Checks
from tests.sim.filling import Filling
from tests.sim.kernel import Gate, Kernel, Machine, Process
from tests.sim.manager import HEARTBEAT_MS, LEASE_MS, Reply, Table
from tests.sim.mending import Mending
from tests.sim.network import Network
from tests.sim.settling import Settling
from tests.sim.store import Store
from tests.sim.updates import Updates
from tests.storage.craq.model_store import Content


@dataclass
class Disk:
    """Of one target. It outlives processes."""

    target: int
    chain: int
    store: Store | None
    fails: bool = False
    """Every write of it fails, until it is replaced or mended."""


class Defects:
    """What a planted defect changes. Everything is right here."""

    lease_factor = 1.0
    serves_at_once = False
    """A store that became whole serves before the manager has heard of it."""
    tail_is_ready_at_once = False
    asks_no_predecessor = False
    takes_answers_of_before = False
    fills_before_it_is_ready = False
    skips_chunks = False
    copies_answers = True
    retracts_answers = True
    waits_for_what_was_begun = True
    waits_for_the_whole = True
    says_synced_at_once = False
    keeps_synced_forever = False


class Daemon(Process):
    def __init__(
        self,
        kernel: Kernel,
        machine: Machine,
        network: Network,
        node: int,
        disks: list[Disk],
        checks: Checks,
        defects: type[Defects],
        replica_class: Any,
    ) -> None:
        super().__init__(kernel, f"n{node}", machine)
        self.node = node
        self.network = network
        self.disks = {disk.target: disk for disk in disks}
        self.checks = checks
        self.defects = defects
        self._replica_class = replica_class
        incarnation = kernel.random.getrandbits(32) | 1
        self.identity = Identity(node, "127.0.0.1", 7000 + node, "sim", incarnation)
        self.table: Table | None = None
        self.targets: dict[int, Target] = {}
        """Those that are open, by chain."""
        self._opening: set[int] = set()
        self._missing: set[int] = set()
        """Targets without a store."""
        self._lease_until_ms = float("-inf")
        self.nudged = Gate()
        self.changed = Gate()
        self.dismissed = False
        self._said_whole: dict[int, bool] = {}
        """By target, in the heartbeat that is on its way."""
        self.updates = Updates(self)
        self._rounds = (Settling(self), Mending(self), Filling(self))
        self.filling: Filling = self._rounds[2]
        self.under_way: dict[int, list[Any]] = {}

    # -- what `Target` needs of its daemon ---------------------------------------------------------------------

    routing = None

    def lease_valid(self) -> bool:
        return self.clock_ms() < self._lease_until_ms

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.kernel.spawn(self, self._heartbeats())
        for rounds in self._rounds:
            self.kernel.spawn(self, rounds.run())

    def trace(self, text: str) -> None:
        self.checks.trace(self.name, text)

    def die(self, *, power: bool, crash: Callable[..., None] = Store.crash) -> None:
        """What a crash leaves on the disks."""
        random = self.kernel.random
        for target, works in self.under_way.items():
            store = self.disks[target].store
            for work in works:
                # What reaches the disk is a prefix of what was on its way.
                if store is None or random.random() < 0.5:
                    break
                try:
                    work()
                except EmberError:
                    break
        self.under_way.clear()
        for disk in self.disks.values():
            if disk.store is not None:
                crash(disk.store, random, power=power or disk.fails)
                disk.fails = False

    # -- conversation with the manager -------------------------------------------------------------------------

    async def _heartbeats(self) -> None:
        random = self.kernel.random
        while not self.dismissed:
            beat = self._beat()
            sent_ms = self.clock_ms()
            try:
                reply: Reply = await self.network.call(
                    self, "manager", "heartbeat", self.identity, beat, timeout_ms=LEASE_MS / 2
                )
            except EmberError as error:
                if error.code is Code.NODE_UNKNOWN:
                    self.dismissed = True
                    return
                await self.kernel.sleep(self, random.uniform(100.0, 500.0))
                continue
            self._lease_until_ms = max(self._lease_until_ms, sent_ms + reply.lease_ms * self.defects.lease_factor)
            self._learn(reply.table)
            for judged in reply.verdicts:
                self._judge(judged)
            await self.kernel.either(self, self.nudged.next, HEARTBEAT_MS)

    def _beat(self) -> Beat:
        reports: dict[int, TargetReport] = {}
        stores: dict[int, StoreReport] = {}
        for target in self.targets.values():
            version = target.position.version if target.position is not None else 0
            store = target.store
            state = target.local_state
            if self.defects.keeps_synced_forever and target.synced_version:
                state = LocalState.UPTODATE
            self._said_whole[target.id] = store.whole
            reports[target.id] = TargetReport(Report(state, version, store.whole), 0)
            stores[target.id] = StoreReport(
                store.identity, store.opening, store.incarnation, store.position, store.recovered
            )
        for number in self._opening:
            reports[number] = TargetReport(Report(LocalState.OPENING, 0), 0)
        for number in self._missing:
            reports[number] = TargetReport(Report(LocalState.OFFLINE, 0, False), 0)
            stores[number] = StoreReport(b"", 0, 0)
        version = self.table.version if self.table is not None else 0
        return Beat(0, 0, reports, version, stores, int(self.clock_ms()))

    def _learn(self, table: Table) -> None:
        if self.table is not None and table.version <= self.table.version:
            return
        self.table = table
        self._apply()

    def _apply(self) -> None:
        assert self.table is not None
        for chain in self.table.chains.values():
            for member in chain.targets:
                if member.node != self.node:
                    continue
                target = self.targets.get(chain.chain)
                if target is not None:
                    self._place(target, chain)
                elif member.target not in self._opening and member.target not in self._missing:
                    self._opening.add(member.target)
                    self.kernel.spawn(self, self._open(member.target))
        self.changed.open()

    def _place(self, target: Target, chain: Chain) -> None:
        before, position = target.position, position_of(chain, target.id)
        target.place(position)
        if position != before:
            self.trace(f"target {target.id} is {describe(position)}{'' if target.ready else ', not ready'}")
        if position is not None and position.syncing and self.defects.says_synced_at_once:
            target.synced_version = position.version
        if position is not None and self.defects.tail_is_ready_at_once:
            target.ready = not position.syncing
        self.updates.execute(target)
        self.checks.look()

    async def _open(self, number: int) -> None:
        random = self.kernel.random
        slow = not self.network.calm and random.random() < 0.1
        await self.kernel.sleep(self, random.uniform(20.0, 12_000.0 if slow else 300.0))
        disk = self.disks[number]
        self._opening.discard(number)
        if disk.store is None:
            self._missing.add(number)
            self.trace(f"target {number} has no store")
            self.nudged.open()
            return
        disk.store.open()
        target = Target(number, disk.store, self)  # type: ignore[arg-type]
        if self._replica_class is not None:
            target.replica = self._replica_class(disk.store, set(disk.store.pending()))
            target.uncertain = target.replica.unsettled
        self.targets[disk.chain] = target
        self.trace(f"target {number} is open{'' if disk.store.whole else ', not whole'}: {disk.store.chunks}")
        if self.table is not None:
            self._apply()
        self.nudged.open()

    def _judge(self, judged: Any) -> None:
        for target in self.targets.values():
            if target.id != judged.target or target.store.opening != judged.opening:
                continue
            if judged.verdict is StoreVerdict.SERVE:
                said = self._said_whole.get(target.id, False) or self.defects.serves_at_once
                news = not target.admitted or (said and not target.heard_whole)
                target.admitted = True
                target.heard_whole = said
                if news:
                    self._admit(target)
                    self.changed.open()
            else:
                raise AssertionError(f"a store of the simulation is {judged.verdict.name}: {judged.reason}")

    def _admit(self, target: Target) -> None:
        """It may act from now on, perhaps."""
        target.refresh()
        self.updates.execute(target)
        self.checks.look()

    # -- answers -----------------------------------------------------------------------------------------------

    def target(self, chain: int) -> Target:
        target = self.targets.get(chain)
        if target is None:
            raise EmberError(Code.CHAIN_UNKNOWN, f"{self.name} has no open target on chain {chain}")
        return target

    def require(self, target: Target, chain_version: int) -> Position:
        position = target.position
        if position is None or not target.serves:
            raise EmberError(Code.NOT_SERVING, f"target {target.id} does not serve")
        if position.version != chain_version:
            raise EmberError(Code.CHAIN_VERSION, f"target {target.id} is at {position.version}, not {chain_version}")
        self.checks.acts(target, position)
        return position

    async def handle(self, method: str, *arguments: Any) -> Any:
        match method:
            case "routing":
                return self._learn(*arguments)
            case "update":
                return await self.updates.update(*arguments)
            case "read":
                return await self._read(*arguments)
            case "pending":
                return self._pending(*arguments)
            case "committed":
                return self._committed(*arguments)
            case "at_version":
                return await self._at_version(*arguments)
            case "list_held":
                return await self._mending.list_held(*arguments)
            case "remembered":
                return self._mending.remembered(*arguments)
            case "pull":
                return self._mending.pull(*arguments)
            case "finish_sync":
                return await self.filling.finish_sync(*arguments)
        raise AssertionError(method)

    @property
    def _mending(self) -> Mending:
        return self._rounds[1]

    def _committed(self, chain: int, chain_version: int, chunk: bytes) -> Told:
        target = self.target(chain)
        position = self.require(target, chain_version)
        if not position.is_tail:
            raise EmberError(Code.CHAIN_VERSION, f"target {target.id} is not the tail")
        state = target.store.state(chunk)
        return Told(state.version if state is not None else 0, target.store.digest(chunk))

    async def _at_version(self, chain: int, chain_version: int) -> None:
        target = self.target(chain)
        while target.position is None or target.position.version < chain_version:
            await self.changed.next

    async def _read(self, chain: int, chain_version: int, chunk: bytes) -> tuple[int, Content]:
        target = self.target(chain)
        position = self.require(target, chain_version)
        if chunk not in target.uncertain:
            told = self.tells(target, chunk, None)
        else:
            before = target.store.state(chunk)
            tail = await self.ask_tail(position, chunk, 2_000.0)
            self.require(target, chain_version)
            told = self.tells(target, chunk, tail, before.version if before is not None else 0)
        return told

    def tells(self, target: Target, chunk: bytes, tail: Told | None, before: int | None = None) -> tuple[int, Content]:
        """What a reader gets. `tail`: its word, where it is needed; `before`: what was committed when it was asked."""
        store: Any = target.store
        entry = store.chunks.get(chunk)
        committed = entry.committed if entry is not None else None
        choice = Serve.COMMITTED
        if tail is not None:
            left = store.pending_update(chunk)
            state = store.state(chunk)
            choice = serve(
                before if before is not None else state.version if state is not None else 0,
                state,
                (store.digest(chunk), store.digest(chunk, pending=True)),
                tail,
                removing=left is not None and left.removed,
            )
        match choice:
            case Serve.COMMITTED:
                return (committed.number, committed.content) if committed is not None else (0, None)
            case Serve.PENDING:
                return (entry.pending.number, entry.pending.content)
            case Serve.GONE:
                return (0, None)
        assert tail is not None
        self.checks.behind(target, tail)
        raise EmberError(Code.NOT_SERVING, f"target {target.id} misses version {tail.version}")

    async def ask_tail(self, position: Position, chunk: bytes, timeout_ms: float) -> Told:
        name = f"n{position.tail.node}"
        told: Told = await self.network.call(
            self, name, "committed", position.chain, position.version, chunk, timeout_ms=timeout_ms
        )
        return told

    async def ask_pending_before(self, position: Position, chunk: bytes, timeout_ms: float) -> int:
        assert position.predecessor is not None
        name = f"n{position.predecessor.node}"
        left: int = await self.network.call(
            self, name, "pending", position.chain, position.version, chunk, timeout_ms=timeout_ms
        )
        return left

    def _pending(self, chain: int, chain_version: int, chunk: bytes) -> int:
        target = self.target(chain)
        self.require(target, chain_version)
        state = target.store.state(chunk)
        return state.pending_version if state is not None else 0

    # -- disk --------------------------------------------------------------------------------------------------

    async def write(self, target: Target, work: Any) -> Any:
        """Do it to the store, some time later, in order. Raises what it raises, and DISK_FAILED."""
        works = self.under_way.setdefault(target.id, [])
        works.append(work)
        random = self.kernel.random
        slow = not self.network.calm and random.random() < 0.02
        await self.kernel.sleep(self, random.expovariate(1 / (400.0 if slow else self.network.pace_ms)))
        works.remove(work)
        if self.disks[target.id].fails:
            if target.failed is None:
                target.fail("its disk fails")
                self.trace(f"target {target.id}: its disk fails")
                self.nudged.open()
            raise EmberError(Code.DISK_FAILED, "its disk fails")
        store: Any = target.store
        store.now_ms = self.kernel.now
        result = work()
        self.checks.look()
        return result


def describe(position: Position | None) -> str:
    if position is None:
        return "on no place"
    role = "syncing" if position.syncing else "head" if position.is_head else "tail" if position.is_tail else "middle"
    if position.is_head and position.is_tail:
        role = "alone"
    filled = f", fills {position.successor.target}" if position.fills and position.successor else ""
    return f"{role} at v{position.version}{filled}"
