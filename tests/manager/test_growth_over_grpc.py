"""Growth over the real control plane: a fourth node joins by its client, gets its share, and another is emptied."""

import asyncio
from collections import Counter
from collections.abc import Callable

from fs_common.manager_client import ManagerClient, NodeAddress, NodeStatus, TargetStatus, TargetVerdict
from fs_common.records.routing import LocalState, PublicState, Routing, StoreVerdict
from fs_common.records.targets import Drain, Rebalance
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.manager.growth import Growth
from fs_meta.manager.service import RunningManager, start_manager
from tests.manager.cluster import LIVELY
from tests.manager.test_growth import plan_here
from tests.support import run

SERVING, SYNCING = PublicState.SERVING, PublicState.SYNCING


class Daemon:
    """What a storage daemon says and does, with a store for each target and nothing in it."""

    def __init__(self, manager_port: int, node: int, data_port: int) -> None:
        self.node = node
        self.stores: set[int] = set()
        self.retired: set[int] = set()
        self.removed: set[int] = set()
        address = NodeAddress("test", node, "127.0.0.1", data_port)
        self.client = ManagerClient(f"127.0.0.1:{manager_port}", address, self.status)
        self.client.on_verdicts(self.judge)
        self.client.start()

    def mine(self) -> dict[int, tuple[int, PublicState]]:
        routing = self.client.routing
        return {
            member.target: (chain.version, member.state)
            for chain in (routing.chains if routing is not None else ())
            for member in chain.targets
            if member.node == self.node
        }

    def status(self) -> NodeStatus:
        mine = self.mine()
        said = []
        for target in sorted(mine.keys() | self.stores):
            version, state = mine.get(target, (0, PublicState.OFFLINE))
            if target not in self.stores:
                said.append(TargetStatus(target, LocalState.OFFLINE, 0, version, no_store=True))
                continue
            if target in self.retired or target not in mine:
                says = LocalState.OFFLINE
            else:
                says = LocalState.UPTODATE if state in (SERVING, SYNCING) else LocalState.ONLINE
            said.append(TargetStatus(target, says, 5, version, target.to_bytes(16, "big"), 1, 1))
        return NodeStatus(1000, 10, said)

    def judge(self, verdicts: list[TargetVerdict]) -> None:
        for verdict in verdicts:
            if verdict.verdict is StoreVerdict.FORMAT:
                self.stores.add(verdict.target)
            elif verdict.verdict is StoreVerdict.RETIRE and not verdict.remove:
                assert "is to leave" in verdict.reason
                self.retired.add(verdict.target)
            elif verdict.verdict is StoreVerdict.RETIRE and verdict.target not in self.mine():
                self.stores.discard(verdict.target)
                self.removed.add(verdict.target)


async def until(manager: RunningManager, condition: Callable[[Routing], bool]) -> None:
    """The routing is so, at some version."""
    while not condition(manager.routing):
        await manager.manager.wait_newer(manager.routing.version)


def hosted(routing: Routing) -> dict[int, int]:
    return dict(Counter(member.node for chain in routing.chains for member in chain.targets))


def at_rest(routing: Routing) -> bool:
    return bool(routing.chains) and all(
        len(chain.targets) == 3 and all(member.state is SERVING for member in chain.targets) for chain in routing.chains
    )


def test_nodes_join_and_leave_while_all_chains_serve() -> None:
    async def scenario() -> None:
        ports = [await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0) for _ in range(4)]
        numbers = [port.sockets[0].getsockname()[1] for port in ports]
        running = await start_manager(MemoryStore(), LIVELY)
        growth = Growth(running.manager, plan_here)
        fewest = []
        running.subscribe(
            lambda routing: fewest.extend(
                sum(member.state is SERVING for member in chain.targets) for chain in routing.chains
            )
        )
        try:
            daemons = [Daemon(running.port, node, port) for node, port in zip((1, 2, 3), numbers, strict=False)]
            await running.wait_ready()
            daemons.append(Daemon(running.port, 4, numbers[3]))
            await daemons[3].client.wait_acknowledged(20)
            await until(running, lambda routing: len(routing.nodes) == 4)
            for daemon in daemons:
                while not daemon.mine().keys() <= daemon.stores:
                    await asyncio.sleep(0)
            first = (await growth.rebalance(Rebalance())).moves
            even = {1: 3, 2: 3, 3: 3, 4: 3}
            await until(running, lambda routing: at_rest(routing) and hosted(routing) == even)
            await until(running, lambda routing: len(routing.tables) == 2)
            await growth.drain(Drain(node=2))
            await until(running, lambda routing: at_rest(routing) and 2 not in hosted(routing))
            assert min(fewest) == 3, "no chain ever had fewer"
            while daemons[1].stores:
                await asyncio.sleep(0)
            assert {move.leaves for move in first} <= {target for daemon in daemons for target in daemon.removed}
        finally:
            for daemon in daemons:
                await daemon.client.close()
            await running.close()
            for port in ports:
                port.close()
                await port.wait_closed()

    run(scenario(), 120)
