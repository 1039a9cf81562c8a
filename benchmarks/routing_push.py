"""What a change of the routing costs the metadata server's loop: `python -m benchmarks.routing_push`.

A manager of 1,000 nodes and 1,000 chains of three replicas, over a store in memory, in a process of its own; 1,000
followers, each with a connection of its own, in another. Node 1 leaves: the routing changes, and the new one goes to
all who watch it. When the chains have settled, each node sends a heartbeat that says that it has the version before,
and another one that says that it has the newest. Figures are processor time of the thread that the server's loop runs
in: of the change and its way to the watchers, and of heartbeats with and without news. In all: the change, and what
news adds to heartbeats if all of them come before the watch has brought it, which few do.
"""

import argparse
import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from benchmarks.limits.process import Worker

CLUSTER = "bench"


@dataclass(frozen=True)
class Config:
    """Of a manager that looks after nodes hardly ever."""

    cluster: str = CLUSTER
    bind: str = "127.0.0.1"
    grpc_port: int = 0
    storage_nodes: int = 1000
    replicas: int = 3
    heartbeat_interval_ms: int = 1_000_000
    lease_ms: int = 4_000_000
    failure_ms: int = 5_000_000
    opening_ms: int = 5_000_000
    targets_per_node: int = 3
    moves_per_node: int = 2
    moves_at_once: int = 64
    replace_lost_after_ms: int = 0


def serve(pipe: Connection, nodes: int) -> None:
    """A worker: the manager. Each message of the pipe but the first is answered with the loop's processor time."""
    uvloop.run(_serve(pipe, nodes))


async def _serve(pipe: Connection, nodes: int) -> None:
    from fs_common.records.routing import LocalState
    from fs_meta.kv.memory_engine import MemoryStore
    from fs_meta.manager.chains import Report
    from fs_meta.manager.manager import NodeStream
    from fs_meta.manager.membership import Beat, Identity, TargetReport
    from fs_meta.manager.service import start_manager
    from fs_meta.manager.stores import StoreReport

    running = await start_manager(MemoryStore(), Config(storage_nodes=nodes))
    manager = running.manager
    pipe.send(running.port)

    def beat(number: int) -> Beat:
        mine = [member for chain in manager.routing.chains for member in chain.targets if member.node == number]
        reports = {member.target: TargetReport(Report(LocalState.UPTODATE, 1), 5) for member in mine}
        stores = {target: StoreReport(_store(target), 1, 1, 0, 0) for target in reports}
        return Beat(1 << 40, 1 << 39, reports, 0, stores)

    streams: list[NodeStream] = []
    for number in range(1, nodes + 1):
        stream = manager.open_stream(
            CLUSTER, Identity(number, f"10.0.{number >> 8}.{number & 255}", 9710, "0.1.0", number)
        )
        await stream.heartbeat(Beat(1 << 40, 1 << 39, {}, 0))
        streams.append(stream)
    for stream in streams:
        await stream.heartbeat(beat(stream.identity.node))
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def on_message() -> None:
        try:
            message = pipe.recv()
        except EOFError:
            ended.set()
            return
        if message == "change":
            loop.create_task(streams.pop(0).leave())
        pipe.send((time.thread_time(), manager.routing.version, len(manager.routing.chains)))

    loop.add_reader(pipe.fileno(), on_message)
    await ended.wait()


async def _measure(worker: Worker, nodes: int) -> dict[str, float]:
    import grpc.aio

    from fs_common import control_pb2 as pb
    from fs_common import control_pb2_grpc
    from fs_common.control_records import STORAGE_ROLE, routing_record
    from fs_common.records.routing import LocalState, Routing

    ask = worker.ask
    ask("time")  # all have joined
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{worker.port}", options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(nodes)
    ]
    stubs = [control_pb2_grpc.ManagerStub(channel) for channel in channels]
    watches = []
    for some in _in_parts(stubs):
        # Not all at once: the server hangs up on who has not said hello after some seconds.
        calls = [stub.WatchRouting(pb.WatchRoutingRequest(cluster=CLUSTER)) for stub in some]
        routing = routing_record((await asyncio.gather(*(call.read() for call in calls)))[0])
        watches += calls
    _, before, chains = ask("time")
    assert before == routing.version
    seen: dict[Any, int] = {}
    """Version that each watch has had last."""
    beats = [stub.Heartbeat() for stub in stubs[1:]]

    async def beat(call: Any, node: int, version: int) -> None:
        who = pb.NodeIdentity(
            cluster=CLUSTER, node=node, role=STORAGE_ROLE, host=f"10.0.{node >> 8}.{node & 255}", port=9710,
            release="0.1.0", incarnation=node,
        )  # fmt: skip
        targets = [
            pb.TargetReport(
                target=member.target,
                state=int(LocalState.UPTODATE),
                used_bytes=5,
                chain_version=chain.version,
                store=_store(member.target),
                opening=1,
                incarnation=1,
            )
            for chain in routing.chains
            for member in chain.targets
            if member.node == node
        ]
        request = pb.HeartbeatRequest(
            identity=who, sequence=1, sent_ms=1, routing_version=version, capacity_bytes=1 << 40,
            used_bytes=1 << 39, targets=targets,
        )  # fmt: skip
        await call.write(request)
        reply = await call.read()
        assert reply.HasField("routing") == (version < newest)

    async def all_beat(version: int) -> float:
        started, _, _ = ask("time")
        for some in _in_parts(list(enumerate(beats, 2))):
            await asyncio.gather(*(beat(call, node, version) for node, call in some))
        ended, _, _ = ask("time")
        return float(ended - started) * 1000

    async def caught_up(version: int) -> Routing:
        """All watchers have it."""
        for watch in watches:
            while seen.get(watch, 0) < version:
                message = await watch.read()
                seen[watch] = message.version
        return routing_record(message)

    newest = before
    await all_beat(before + 1000)
    started, _, _ = ask("change")
    routing = await caught_up(before + 1)
    ended, newest, _ = ask("time")
    change_ms = (ended - started) * 1000
    settled = before
    while settled != newest:
        # What nodes say of their new chains changes these again.
        settled = newest
        if min(seen.values()) < newest:
            routing = await caught_up(newest)
        await all_beat(newest + 1000)
        _, newest, _ = ask("time")
    with_news_ms = await all_beat(newest - 1)
    without_ms = await all_beat(newest + 1000)
    for channel in channels:
        await channel.close()
    return {
        "chains": chains,
        "change, to all watchers": change_ms,
        "heartbeats with news": with_news_ms,
        "heartbeats without": without_ms,
        "in all": change_ms + max(with_news_ms - without_ms, 0),
    }


def _store(target: int) -> bytes:
    """Its uuid."""
    return target.to_bytes(16, "big")


def _in_parts(things: list[Any]) -> Iterator[list[Any]]:
    for first in range(0, len(things), 50):
        yield things[first : first + 50]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    for _ in range(arguments.repeat):
        worker = Worker(serve, arguments.nodes)
        try:
            figures = asyncio.run(_measure(worker, arguments.nodes))
        finally:
            worker.stop()
        print("; ".join(f"{name} {value:.0f}" + " ms" * (name != "chains") for name, value in figures.items()))


if __name__ == "__main__":
    main()
