"""One storm: cluster, clients, weather, and what is asked of them.

What is looked at when the weather is fine again, now and then and at the end, each within a bound: every chain serves
with all its replicas by itself; the clients get on; no register's history is wrong; every file is what was put into
it; all replicas are the same, byte for byte. At any time: no client has seen a wrong byte, no daemon has found its own
state impossible or met an error that nobody expected.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fs_client import aio
from fs_client.cli.local.process import python_module
from fs_client.cli.manager_api import manager_at
from fs_common.errors import EmberError
from fs_common.methods import GET_ROUTING
from fs_common.peers import PeerPool
from fs_common.records.routing import GetRouting, NodeState, PublicState, Routing
from fs_common.records.session import Hello
from tests.storm import registers, replicas
from tests.storm.cluster import VIOLATION, Broken, Member, Place, StormCluster
from tests.storm.history import Operation, violation
from tests.storm.weather import Fault, Weather, faults

FAST_SETTINGS = {
    "heartbeat_interval_ms": 200,
    "lease_ms": 1600,
    "failure_ms": 2000,
    "gc_delay_ms": 0,
    "gc_interval_ms": 200,
}
INITIAL = 1
"""Value of every register before the storm."""
RESTART_S = 0.5
UNEXPECTED = re.compile(rb"Traceback|unexpected|impossible|conflict", re.IGNORECASE)
"""What no log of a daemon may say."""


@dataclass(frozen=True)
class Plan:
    seed: int
    minutes: float
    kills: int = 0
    """The storm goes on until there were so many; 0: as long as it is told."""
    storage: int = 4
    replicas: int = 3
    durability: str = "disk"
    isolated: bool = True
    """Networks and power can be cut."""
    mount: bool = True
    registers: int = 12
    file_clients: int = 1
    gap_s: float = 0.7
    """Between faults, on average."""
    overlap: int = 3
    """Faults at a time."""
    calm_after: int = 12
    """Faults between two looks at everything."""
    patience_s: float = 60.0
    """The bound for everything that has to come by itself."""
    only: tuple[str, ...] = ()
    """Kinds of faults; empty: all."""
    replace: bool = False
    planted: str = ""
    """A defect of `planted.py` that the storage daemons have."""
    settings: dict[str, int] = field(default_factory=lambda: dict(FAST_SETTINGS))


class Client:
    """A client process, and what it has said."""

    def __init__(self, storm: "Storm", name: str, module: str, kind: str, number: int) -> None:
        self.storm = storm
        self.name = name
        """Of its network namespace."""
        self.module, self.kind, self.number = module, kind, number
        self.member = Member(name, storm.place, module)
        self.begun: dict[int, Operation] = {}
        """Writes that are not acknowledged, and register of each."""
        self.register_of: dict[int, int] = {}
        self.steps = 0
        self.paused = asyncio.Event()
        self.ended = asyncio.Event()
        self.over = False
        """It was told to end, or was killed."""
        self._listener: asyncio.Task[None] | None = None
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, **settings: object) -> None:
        words = json.dumps(settings | {"name": f"{self.name}-{self.number}", "client": self.number})
        log = open(self.storm.path / "logs" / f"{self.name}.log", "ab")  # noqa: SIM115
        with log:
            self.process = await self.storm.place.spawn(
                self.member,
                [*python_module(self.module), self.kind, words],
                stdout=asyncio.subprocess.PIPE,
                stdin=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._listener = asyncio.create_task(self._listen())

    def tell(self, order: str) -> None:
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(json.dumps([order]).encode() + b"\n")

    async def _listen(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        try:
            async for line in self.process.stdout:
                self._hear(*json.loads(line))
            status = await self.process.wait()
            if status != 0 and not self.over:
                self.storm.fail(f"client {self.name} ended with status {status}; its log is logs/{self.name}.log")
        except Exception as error:
            self.storm.fail(f"client {self.name}: {type(error).__name__}: {error}")

    def _hear(self, kind: str, *words: object) -> None:
        who = f"{self.name}-{self.number}"
        match kind, words:
            case "begin", (int(register), int(value), float(start)):
                self.begun[value] = Operation(start, float("inf"), True, value, who)
                self.register_of[value] = register
            case "write", (int(register), int(value), float(start), float(end)):
                del self.begun[value]
                self.storm.histories[register].append(Operation(start, end, True, value, who))
                self.steps += 1
            case "read", (int(register), int(value), float(start), float(end), str(whom)):
                self.storm.histories[register].append(Operation(start, end, False, value, f"{who} {whom}"))
                self.steps += 1
            case "step", ():
                self.steps += 1
            case "refused", (str(text),):
                self.storm.refusals[f"{self.kind}: {re.sub('[0-9]+', 'N', text)}"] += 1
                self.storm.note(f"{who} was refused: {text}", quiet=True)
            case "wrong", (str(text),):
                self.storm.fail(f"client {who}: {text}")
            case "paused", ():
                self.paused.set()
            case "ended", ():
                self.ended.set()

    async def kill(self) -> None:
        self.over = True
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
        if self._listener is not None:
            await self._listener


class Storm:
    def __init__(self, plan: Plan, path: Path) -> None:
        self.plan = plan
        self.path = path
        self.began = time.monotonic()
        self.random = Random(plan.seed)
        self.histories: dict[int, list[Operation]] = {number: [] for number in range(plan.registers)}
        self.refusals: Counter[str] = Counter()
        self.failures: list[str] = []
        self.failed = asyncio.Event()
        self.clients: list[Client] = []
        self.replaced_clients: list[Client] = []
        self.chunks = 0
        self.looks = 0
        self._log = open(path / "storm.log", "a", buffering=1)  # noqa: SIM115
        self.place = Place(path, plan.isolated)
        self.place.on_end = self._on_end
        self._restarts: set[asyncio.Task[None]] = set()
        self._calm = False
        """Nobody starts what has ended but `look`."""
        if self.place.network is not None:
            for name in self._client_names():
                self.place.network.add(name)
        self.cluster = StormCluster(
            self.place,
            storage=plan.storage,
            replicas=plan.replicas,
            durability=plan.durability,
            settings=plan.settings,
            power=plan.isolated,
        )
        if plan.planted:
            for member in self.cluster.storage:
                member.module = "tests.storm.planted"
                member.arguments = [plan.planted, *member.arguments]
        self.weather = Weather(self, self.random, plan.settings["lease_ms"] / 1000, plan.settings["failure_ms"] / 1000)
        self.pool = PeerPool(Hello([1], "client", bytes(16)))
        self.mount: Member | None = None

    def _client_names(self) -> list[str]:
        names = ["client-1", "client-2", "pinned"]
        names += [f"files-{number}" for number in range(1, self.plan.file_clients + 1)]
        return names + (["mount"] if self.plan.mount else [])

    # --- the log -------------------------------------------------------------------------------------------------

    def note(self, text: str, quiet: bool = False) -> None:
        line = f"{time.monotonic() - self.began:8.3f} {text}"
        print(line, file=self._log)
        if not quiet:
            print(line, flush=True)

    def fail(self, text: str) -> None:
        self.note(f"WRONG: {text}")
        self.failures.append(text)
        self.failed.set()

    def _on_end(self, member: Member, status: int) -> None:
        if member.killed:
            return
        self.note(f"{member.name} ended by itself with status {status}")
        if status == VIOLATION or status < 0:
            self.fail(f"{member.name} ended with status {status}; its log is logs/{member.name}.log")
            return

        async def again() -> None:
            await asyncio.sleep(RESTART_S)
            if not member.runs and member in self.weather.free and not self._calm:
                await member.start()

        task = asyncio.create_task(again())
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    # --- its course ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Raises `Broken` with all that was wrong."""
        watcher = None
        try:
            await self._begin()
            watcher = asyncio.create_task(self._watch_routing())
            await self._blow()
            await self.look("at the end")
            await self._finish()
        except (Broken, replicas.Differ, EmberError) as error:
            self.fail(str(error) or type(error).__name__)
        finally:
            if watcher is not None:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
            for client in self.clients:
                await client.kill()
            await self._unmount()
            await self.cluster.kill()
            await self.pool.close()
            self.cluster.close()
            self._look_at_logs()
        if self.failures:
            raise Broken("\n".join(self.failures))

    async def _begin(self) -> None:
        await self.cluster.start()
        await self._until_whole("it starts")
        async with await aio.connect(self.cluster.address) as fs:
            async with await fs.open(registers.PATH, "wb") as file:
                for register in range(self.plan.registers):
                    await file.write_at(register * registers.CHUNK_BYTES, registers.block(register, INITIAL))
                await file.truncate(self.plan.registers * registers.CHUNK_BYTES)
                await file.fsync()
        if self.plan.mount:
            await self._mount()
        for name in self._client_names():
            await self._start_client(name)
        await self._until_clients_get_on()

    async def _start_client(self, name: str) -> None:
        module, kind = {
            "client": ("tests.storm.registers", "clients"),
            "pinned": ("tests.storm.registers", "pinned"),
            "files": ("tests.storm.files", "api"),
            "mount": ("tests.storm.files", "mount"),
        }[name.partition("-")[0]]
        client = Client(self, name, module, kind, len(self.clients) + len(self.replaced_clients) + 1)
        self.clients.append(client)
        await client.start(
            address=self.cluster.address,
            seed=self.plan.seed,
            registers=self.plan.registers,
            mountpoint=str(self.path / "mnt"),
            patience_s=self.weather.failure_s * 2,
        )

    async def replace_client(self) -> None:
        """Kill one that writes registers, and start another."""
        victim = self.random.choice([client for client in self.clients if client.kind == "clients"])
        self.note(f"kill {victim.name}-{victim.number}")
        await victim.kill()
        self.clients.remove(victim)
        self.replaced_clients.append(victim)
        await self._start_client(victim.name)

    async def replace(self, member: Member) -> None:
        """Its directory is gone: it gets an empty one, and others make its replicas anew, or it does."""
        node = self.cluster.node(member)
        chains = (await self._routing()).chains
        targets = [target.target for chain in chains for target in chain.targets if target.node == node]
        await member.start("--format")
        await member.ready()
        for target in targets:
            deadline = time.monotonic() + self.plan.patience_s
            while True:
                try:
                    async with manager_at(self.cluster.control_address) as api:
                        await api.order("ReplaceTarget", target=target, timeout_s=5.0)
                    break
                except EmberError as error:
                    self.note(f"target {target} is not replaced yet: {error}", quiet=True)
                    if time.monotonic() > deadline:
                        raise Broken(f"target {target} is not replaced: {error}") from None
                await asyncio.sleep(0.2)
        self.note(f"replacing {' '.join(map(str, targets))}")

    async def _blow(self) -> None:
        plan = self.plan
        kinds = faults(
            isolated=plan.isolated,
            power=plan.storage if plan.durability == "disk" else 1,
            replace=plan.replace,
        )
        kinds = [fault for fault in kinds if not plan.only or fault.name in plan.only]
        end = time.monotonic() + plan.minutes * 60
        running: set[asyncio.Task[None]] = set()
        since = 0
        while not self.failures and (time.monotonic() < end or self.weather.kills < plan.kills):
            fault = self.weather.choose(kinds)
            if fault.alone:
                await self._over(running)
                await self.look(f"before {fault.name}")
            running.add(asyncio.create_task(self._fault(fault)))
            since += 1
            if fault.alone or since >= plan.calm_after:
                await self._over(running)
                await self.look()
                since = 0
            else:
                if len(running) >= plan.overlap:
                    await self._first(running)
                await self._sleep(self.random.expovariate(1 / plan.gap_s))
            running = {task for task in running if not task.done()}
        await self._over(running)

    async def _fault(self, fault: Fault) -> None:
        try:
            await fault.run(self.weather)
        except Broken as error:
            self.fail(str(error))
        except Exception as error:
            self.fail(f"the storm itself: {fault.name}: {type(error).__name__}: {error}")

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.failed.wait(), seconds)
        except TimeoutError:
            return

    async def _first(self, running: set[asyncio.Task[None]]) -> None:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    async def _over(self, running: set[asyncio.Task[None]]) -> None:
        if running:
            await asyncio.wait(running)

    # --- looking -------------------------------------------------------------------------------------------------

    async def look(self, when: str = "") -> None:
        """The weather is fine: everything is well, by itself. Raises `Broken`, `Differ`."""
        if self.failures:
            return
        self.note(f"look {when}".rstrip())
        began = time.monotonic()
        self._calm = True
        for member in self.cluster.members:
            if not member.runs:
                await member.start()
        self._calm = False
        routing = await self._until_whole("the faults have ended")
        whole_s = time.monotonic() - began
        await self._until_clients_get_on()
        for client in self.clients:
            client.paused.clear()
            client.tell("pause")
        for client in self.clients:
            await self._soon(client.paused, f"client {client.name} has nothing under way")
        self.check_histories()
        self.chunks = await replicas.compare(self.pool, self._routing, self.plan.patience_s)
        for client in self.clients:
            client.tell("go")
        self.looks += 1
        operations = sum(map(len, self.histories.values()))
        self.note(
            f"all is well after {whole_s:.1f} s: {operations} operations, {self.chunks} chunks, "
            f"{self.weather.kills} kills, routing {routing.version}"
        )

    def check_histories(self) -> None:
        for register, history in self.histories.items():
            begun = [
                operation
                for client in (*self.clients, *self.replaced_clients)
                for value, operation in client.begun.items()
                if client.register_of[value] == register
            ]
            found = violation([*history, *begun], INITIAL)
            if found is not None:
                lines = "\n".join(
                    f"    {o.start - self.began:.4f} to {o.end - self.began:.4f} "
                    f"{'write' if o.write else 'read '} {o.value:#x} by {o.who}"
                    for o in found
                )
                self.fail(f"register {register} is not linearizable:\n{lines}")

    async def _until_clients_get_on(self) -> None:
        before = [client.steps for client in self.clients]
        deadline = time.monotonic() + self.plan.patience_s
        wanted = {"clients": 40, "pinned": 10, "api": 3, "mount": 3}
        while True:
            late = [
                client.name
                for client, old in zip(self.clients, before, strict=True)
                if client.steps < old + wanted[client.kind]
            ]
            if not late:
                return
            self._require_no_failure()
            if time.monotonic() > deadline:
                raise Broken(f"clients do not get on although all chains serve: {', '.join(late)}")
            await asyncio.sleep(0.05)

    async def _soon(self, event: asyncio.Event, what: str) -> None:
        waits = [asyncio.create_task(event.wait()), asyncio.create_task(self.failed.wait())]
        done, _ = await asyncio.wait(waits, timeout=self.plan.patience_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self._require_no_failure()
        if not done:
            raise Broken(f"waited {self.plan.patience_s:.0f} s in vain until {what}")

    def _require_no_failure(self) -> None:
        if self.failures:
            raise Broken("it has failed before")

    async def _routing(self) -> Routing:
        reply = await self.pool.call(self.cluster.meta_address, GET_ROUTING, GetRouting(), timeout=5.0)
        assert reply.routing is not None
        return reply.routing

    async def _until_whole(self, since: str) -> Routing:
        """Every node is up, and every chain serves with all its replicas."""
        deadline = time.monotonic() + self.plan.patience_s
        what = "the metadata server does not answer"
        while time.monotonic() < deadline:
            self._require_no_failure()
            try:
                routing = await self._routing()
            except EmberError as error:
                what = str(error)
            else:
                what = self._lacking(routing)
                if not what:
                    return routing
            await asyncio.sleep(0.05)
        raise Broken(f"{self.plan.patience_s:.0f} s after {since}: {what}")

    def _lacking(self, routing: Routing) -> str:
        found = [f"node {node.node} is {node.state.name}" for node in routing.nodes if node.state != NodeState.UP]
        if len(routing.nodes) < self.plan.storage or not routing.chains:
            found.append(f"{len(routing.nodes)} nodes, {len(routing.chains)} chains")
        for chain in routing.chains:
            states = [target.state for target in chain.targets]
            if states != [PublicState.SERVING] * self.plan.replicas:
                words = ", ".join(f"{target.target} {target.state.name}" for target in chain.targets)
                found.append(f"chain {chain.chain} at version {chain.version}: {words}")
        return "; ".join(found)

    async def _watch_routing(self) -> None:
        """Each change goes into the log, and no chain goes back."""
        known: dict[int, int] = {}
        pool = PeerPool(Hello([1], "client", bytes(15) + b"w"))
        version = 0
        try:
            while True:
                try:
                    request = GetRouting(version)
                    reply = await pool.call(self.cluster.meta_address, GET_ROUTING, request, timeout=2.0)
                except EmberError:
                    await asyncio.sleep(0.1)
                    continue
                if reply.routing is not None and reply.routing.version != version:
                    if reply.routing.version < version:
                        self.fail(f"routing {reply.routing.version} after {version}")
                    version = reply.routing.version
                    self._note_routing(reply.routing, known)
                await asyncio.sleep(0.05)
        finally:
            await pool.close()

    def _note_routing(self, routing: Routing, known: dict[int, int]) -> None:
        down = [f"{node.node} {node.state.name}" for node in routing.nodes if node.state != NodeState.UP]
        self.note(f"routing {routing.version}: down: {', '.join(down) or 'none'}", quiet=True)
        for chain in routing.chains:
            before = known.get(chain.chain, 0)
            if chain.version == before:
                continue
            if chain.version < before:
                self.fail(f"chain {chain.chain} is at version {chain.version}, and was at {before}")
            known[chain.chain] = chain.version
            words = ", ".join(f"{target.target} {target.state.name}" for target in chain.targets)
            self.note(f"chain {chain.chain} version {chain.version}: {words}", quiet=True)

    # --- the end -------------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        for client in self.clients:
            client.tell("end")
        for client in self.clients:
            await self._soon(client.ended, f"client {client.name} has ended")
            client.over = True
        await self._read_all()
        self.check_histories()
        self._require_no_failure()
        await self._unmount()
        await self.cluster.end()

    async def _read_all(self) -> None:
        """By a client that knows nothing: every register, as the last operation of its history."""
        async with await aio.connect(self.cluster.address) as fs:
            ref = await fs.ref(registers.PATH)
            for register in range(self.plan.registers):
                size = registers.SIZES[register % len(registers.SIZES)]
                start = time.monotonic()
                (view,) = await fs.read_ranges([(ref, register * registers.CHUNK_BYTES, size)])
                data = bytes(view)
                if data != data[:8] * (size // 8):
                    self.fail(f"register {register} has parts of several values")
                value = int.from_bytes(data[:8], "big")
                self.histories[register].append(Operation(start, time.monotonic(), False, value, "at the end"))

    async def _mount(self) -> None:
        point = self.path / "mnt"
        point.mkdir()
        self.mount = Member("mount", self.place, "fs_client.cli")
        words = ["mount", "--foreground", "--ready-fd", "1", "--", self.cluster.address, str(point)]
        self.mount.arguments = words
        await self.mount.start()
        await self.mount.ready()

    async def _unmount(self) -> None:
        if self.mount is None or not self.mount.runs:
            return
        try:
            await self.mount.terminate()
        except Broken as error:
            self.fail(str(error))
            await self.mount.kill()

    def _look_at_logs(self) -> None:
        members = [*self.cluster.members, *([self.mount] if self.mount is not None else [])]
        for member in members:
            for number, line in enumerate(member.log.read_bytes().split(b"\n"), 1):
                if UNEXPECTED.search(line):
                    self.fail(f"logs/{member.name}.log line {number}: {line.decode(errors='replace')[:300]}")
                    break

    def summary(self) -> str:
        operations = sum(map(len, self.histories.values()))
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.weather.counts.items()))
        refusals = "".join(f"\n    {count} x {text[:200]}" for text, count in self.refusals.most_common(12))
        return (
            f"{time.monotonic() - self.began:.0f} s, {self.weather.kills} kills ({counts}), {operations} operations on "
            f"registers, {sum(client.steps for client in self.clients)} steps, {self.looks} looks, {self.chunks} chunks"
            + (f"\n  what clients were refused:{refusals}" if refusals else "")
        )


async def blow(plan: Plan, path: Path) -> str:
    """Run a storm in the empty directory `path`; its summary. Raises `Broken` with all that was wrong."""
    storm = Storm(plan, path)
    try:
        await storm.run()
    except Broken:
        print(storm.summary(), file=sys.stderr)
        raise
    return storm.summary()
