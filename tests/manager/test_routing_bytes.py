"""A routing is made into bytes once, whoever gets it; heartbeats look at their own chains."""

import pytest

from fs_common import control_pb2 as pb
from fs_common import control_pb2_grpc
from fs_common.control_records import STORAGE_ROLE, routing_message, routing_record
from fs_common.records.routing import (
    Chain,
    ChainTable,
    ChainTarget,
    LocalState,
    NodeInfo,
    NodeState,
    PublicState,
    Routing,
)
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.manager import routing_bytes
from fs_meta.manager.chains import Report
from fs_meta.manager.membership import Beat, Membership, TargetReport
from fs_meta.manager.routing_bytes import RoutingBytes
from fs_meta.manager.standings import Seen, Standings
from tests.manager.cluster import Bench, Config, identity
from tests.support import run


def routing(version: int, nodes: int) -> Routing:
    return Routing(
        version,
        "test",
        [NodeInfo(node, f"10.0.0.{node}", 9710, NodeState.UP, 1 << 40, 5, "0.1.0") for node in range(nodes)],
        [Chain(chain, 7, [ChainTarget(chain, 1, PublicState.SERVING)]) for chain in range(nodes)],
        [ChainTable(1, 1, list(range(nodes)))],
        3,
    )


@pytest.mark.parametrize("nodes", [0, 1, 3, 1000])
def test_bytes_in_a_reply_are_the_reply_with_the_routing(nodes: int) -> None:
    made = RoutingBytes()
    newest = routing(2**40, nodes)
    reply = pb.HeartbeatReply(sequence=2**50, sent_ms=1, lease_ms=8000, cluster_uuid=b"u" * 16, security_version=3)
    whole = pb.HeartbeatReply.FromString(made.in_reply(reply, newest))
    assert routing_record(whole.routing) == newest
    reply.routing.CopyFrom(routing_message(newest))
    assert whole == reply
    assert routing_record(pb.Routing.FromString(made.message(newest))) == newest


def test_they_are_made_once_for_each_version() -> None:
    made = RoutingBytes()
    for version in (1, 2):
        for _ in range(10):
            made.message(routing(version, 3))
            made.in_reply(pb.HeartbeatReply(), routing(version, 3))
        assert made.count == version
    assert pb.Routing.FromString(made.message(routing(2, 3))).version == 2


def test_all_watchers_and_heartbeats_of_a_change_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import grpc.aio

    from fs_meta.manager.service import start_manager

    versions: list[int] = []

    def counted(newest: Routing) -> pb.Routing:
        versions.append(newest.version)
        return routing_message(newest)

    monkeypatch.setattr(routing_bytes, "routing_message", counted)

    async def scenario() -> None:
        running = await start_manager(MemoryStore(), Config(storage_nodes=100))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            stub = control_pb2_grpc.ManagerStub(channel)
            beats = []
            for node in range(1, 6):
                call = stub.Heartbeat()
                who = identity(node)
                beats.append((call, pb.NodeIdentity(
                    cluster="test", node=node, role=STORAGE_ROLE, host=who.host, port=who.port,
                    release=who.release, incarnation=who.incarnation,
                )))  # fmt: skip
                await call.write(pb.HeartbeatRequest(identity=beats[-1][1], sequence=1))
                assert (await call.read()).sequence == 1
            watches = [stub.WatchRouting(pb.WatchRoutingRequest(cluster="test")) for _ in range(5)]
            for watch in watches:
                assert (await watch.read()).version == running.routing.version
            del versions[:]
            await running.manager.open_stream("test", identity(6)).heartbeat(Beat(1, 0, {}, 0))
            newest = running.routing.version
            for watch in watches:
                assert (await watch.read()).version == newest
            for call, who in beats:
                await call.write(pb.HeartbeatRequest(identity=who, sequence=2, routing_version=newest - 1))
                assert (await call.read()).routing.version == newest
                await call.write(pb.HeartbeatRequest(identity=who, sequence=3, routing_version=newest))
                assert not (await call.read()).HasField("routing")
            for call in (*watches, *(call for call, _ in beats)):
                call.cancel()
        assert versions == [newest]
        await running.close()

    run(scenario())


def test_a_heartbeat_has_its_own_chains_looked_at_though_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a manager begins all chains wait, and a thousand nodes come one after another."""
    looked: list[int] = []
    see = Standings.see

    def counted(self: Standings, chain: Chain, membership: Membership, now_ms: int) -> Seen:
        looked.append(chain.chain)
        return see(self, chain, membership, now_ms)

    async def scenario(bench: Bench) -> None:
        manager = bench.manager
        streams = [await bench.join(node) for node in range(1, 31)]
        assert len(manager.routing.chains) >= 30
        await manager.look()
        monkeypatch.setattr(Standings, "see", counted)
        for stream in streams:
            node = stream.identity.node
            mine = [chain for chain in manager.routing.chains if any(member.node == node for member in chain.targets)]
            reports = {
                member.target: TargetReport(Report(LocalState.OPENING, chain.version), 5)
                for chain in mine
                for member in chain.targets
                if member.node == node
            }
            del looked[:]
            await stream.heartbeat(Beat(1000, 10, reports, 0))
            assert len(set(looked)) <= 2 * len(mine), "its own, and what the one before has changed"
        del looked[:]
        await manager.look()
        assert set(looked) == {chain.chain for chain in manager.routing.chains}, "time goes on for all that wait"

    bench = Bench(MemoryStore(), Config(storage_nodes=30))
    run(bench.use(scenario))
