"""Directed runs: what happens is written down, step by step; the rest is as in any run.

For what is too rare to wait for. A script holds messages, ends processes and takes what was in memory at the moment
it wants, waits for conditions, and in the end lets the world heal and looks at what is left. The checks of every run
go on all the time, so a script says nothing of what would be wrong.
"""

from collections.abc import Callable

from fs_common.records.storage import UpdateKind
from fs_storage.target import Target
from tests.sim.checks import Violation
from tests.sim.client import CHAIN, Client
from tests.sim.kernel import Task
from tests.sim.manager import shown
from tests.sim.network import Letter
from tests.sim.plan import Plan
from tests.sim.store import Store
from tests.sim.world import HEALED_MS, World

CHUNK = b"chunk-000000"
PATIENCE_MS = 30_000.0


def quiet(*, replicas: int, memory: bool = False) -> Plan:
    """Nothing happens by itself."""
    return Plan(replicas=replicas, clients=0, chunks=1, memory=memory, drift=0.0, faults=0, busy=0.0)


class Script:
    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = world.kernel
        self.network = world.network
        self.network.calm = True
        world.begin()
        self.client = Client(
            self.kernel, world.machines["manager"], world.network, 0, world.checks, world.stored.table, 0
        )
        world.network.processes[self.client.name] = self.client
        world.clients.append(self.client)
        self._written = 0

    # -- what is done ------------------------------------------------------------------------------------------

    def write(self) -> Task:
        """An update by the client begins."""
        self._written += 1
        return self.kernel.spawn(self.client, self.client.update(CHUNK, UpdateKind.WRITE, f"write {self._written}"))

    def hold(self, those: Callable[[Letter], bool]) -> None:
        self.network.holds = those

    def kill(self, node: int) -> None:
        """The process ends; commits that were not written are gone."""
        self._end(node, power=False)

    def cut_power(self, node: int) -> None:
        """What was not durable is gone."""
        self._end(node, power=True)

    def _end(self, node: int, *, power: bool) -> None:
        self.world.end_node(node, power=power, back_ms=None, crash=Store.crash_worst)

    def lose(self, node: int) -> None:
        """Its disk fails: what was not durable is gone with the process, of a machine that goes on."""
        self.world.disks[node].fails = True
        self.kill(node)

    def stop(self, node: int) -> None:
        """It ends, and says so: the chain goes on at once."""
        self.world.say_goodbye(node, None)

    def start(self, node: int) -> None:
        self.world.start_node(node)

    # -- what is waited for ------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Something is to happen soon."""
        self.kernel.run(self.kernel.now + PATIENCE_MS, condition)
        if not condition():
            raise Violation(f"the script waits for this in vain: {what}; {self.chain()}")

    def stored(self, task: Task) -> None:
        self.until(lambda: task.done, "an update is stored")

    def for_ms(self, time_ms: float) -> None:
        """Time goes by."""
        self.kernel.run(self.kernel.now + time_ms)

    def end(self) -> None:
        """Everything is let go, comes back and heals."""
        world = self.world
        world.heal()
        self.network.let_go()
        for node in world.nodes:
            world.start_node(node)
        self.kernel.run(self.kernel.now + HEALED_MS, lambda: world.rests() is None)
        why = world.rests()
        if why is not None:
            raise Violation(f"it does not heal: {why}")
        world.check_end()

    # -- what there is -----------------------------------------------------------------------------------------

    def chain(self) -> str:
        """`1:S 2:Y`: each node's state, in the order of the chain."""
        chain = self.world.stored.table.chains[CHAIN]
        return " ".join(one.replace("01:", ":") for one in shown(chain).split()[1:])

    def target(self, node: int) -> Target | None:
        daemon = self.world.daemons.get(node)
        return daemon.targets.get(CHAIN) if daemon is not None else None

    def serves(self, node: int) -> bool:
        target = self.target(node)
        return target is not None and target.serves

    def has_lease(self, node: int) -> bool:
        """And is not only heard, but its store is known."""
        target = self.target(node)
        return target is not None and target.admitted and self.world.daemons[node].lease_valid()

    def committed(self, node: int) -> int:
        """Its version of the chunk."""
        return self._versions(node)[0]

    def pending(self, node: int) -> int:
        return self._versions(node)[1]

    def _versions(self, node: int) -> tuple[int, int]:
        store = self.world.disks[node].store
        assert store is not None
        state = store.state(CHUNK)
        return (state.version, state.pending_version) if state is not None else (0, 0)


def held(source: str, destination: str, method: str, *, answers: bool) -> Callable[[Letter], bool]:
    return lambda letter: letter[:4] == (source, destination, method, answers)
