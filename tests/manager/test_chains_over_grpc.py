"""Chains that move while real clients of the control plane talk to a real manager on loopback."""

import asyncio
from collections.abc import Callable

from fs_common.manager_client import ManagerClient, NodeAddress, NodeStatus, TargetStatus
from fs_common.records.routing import LocalState, PublicState, Routing
from tests.manager.cluster import Config
from tests.manager.test_control_plane import managing, routing_where
from tests.support import run

LAZY = Config(heartbeat_interval_ms=1_000_000, lease_ms=8_000, failure_ms=10_000)
"""Nodes say something only when they have something to say, and the manager never looks by itself."""
BRISK = Config(heartbeat_interval_ms=40)


class Node:
    """A storage daemon as the manager knows it: a port, a client, and stores that say what they are."""

    def __init__(self, manager_port: int, node: int) -> None:
        self.manager_port = manager_port
        self.node = node
        self.openings = 0
        self.whole = True
        self.synced = False
        self.placed = False
        self.client: ManagerClient
        self.server: asyncio.Server

    async def start(self) -> None:
        self.openings += 1
        self.server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        who = NodeAddress("test", self.node, "127.0.0.1", self.server.sockets[0].getsockname()[1])
        self.client = ManagerClient(f"127.0.0.1:{self.manager_port}", who, self.status)
        self.client.on_routing(self.place)
        self.client.start()

    def place(self, routing: Routing) -> None:
        if routing.chains and not self.placed:
            self.placed = True
            self.client.nudge()  # its stores are open

    def status(self) -> NodeStatus:
        routing = self.client.routing
        targets = []
        for chain in routing.chains if routing is not None else []:
            for member in chain.targets:
                if member.node != self.node:
                    continue
                serves = member.state is PublicState.SERVING and self.whole
                synced = member.state is PublicState.SYNCING and self.synced
                state = LocalState.UPTODATE if serves or synced else LocalState.ONLINE
                store = member.target.to_bytes(16, "big")
                targets.append(
                    TargetStatus(member.target, state, 7, chain.version, store, self.openings, 1, whole=self.whole)
                )
        return NodeStatus(1000, 10, targets)

    async def stop(self) -> None:
        await self.client.leave()
        await self.close_port()

    async def crash(self) -> None:
        await self.close_port()
        await self.client.close()

    async def close_port(self) -> None:
        self.server.close()
        await self.server.wait_closed()


def first_chain(says: str) -> Callable[[Routing], bool]:
    """ "S1 S2 O3": letters of the states, and nodes."""

    def holds(routing: Routing) -> bool:
        if not routing.chains:
            return False
        letters = {state: "Y" if state is PublicState.SYNCING else state.name[0] for state in PublicState}
        return " ".join(f"{letters[one.state]}{one.node}" for one in routing.chains[0].targets) == says

    return holds


def test_a_goodbye_moves_the_chains_without_waiting_for_anybodys_next_heartbeat() -> None:
    """Those that stay hear that a node has left, and say at once that they are there."""

    async def scenario() -> None:
        async with managing(LAZY) as manager:
            nodes = [Node(manager.port, number) for number in (1, 2, 3)]
            for node in nodes:
                await node.start()
            for node in nodes:
                await routing_where(node.client, first_chain("S1 S2 S3"))
            await nodes[0].stop()
            for node in nodes[1:]:
                await routing_where(node.client, first_chain("S2 S3 O1"))
                await node.stop()

    run(scenario())


def test_who_is_killed_is_left_out_and_serves_again_when_it_is_filled_up() -> None:
    async def scenario() -> None:
        async with managing(BRISK) as manager:
            nodes = [Node(manager.port, number) for number in (1, 2, 3)]
            for node in nodes:
                await node.start()
            for node in nodes:
                await routing_where(node.client, first_chain("S1 S2 S3"))
            await nodes[0].crash()
            await routing_where(nodes[2].client, first_chain("S2 S3 O1"))
            await nodes[0].start()
            await routing_where(nodes[2].client, first_chain("S2 S3 Y1"))
            nodes[0].synced = True
            nodes[0].client.nudge()
            await routing_where(nodes[0].client, first_chain("S2 S3 S1"))
            for node in nodes:
                await node.stop()

    run(scenario())
