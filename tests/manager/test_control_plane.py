"""The control plane over real gRPC: nodes, leases, routing, health."""

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fs_common import control_pb2 as pb
from fs_common import control_pb2_grpc
from fs_common.control_records import CODE_METADATA_KEY, routing_record
from fs_common.errors import Code, EmberError
from fs_common.manager_client import ManagerClient, NodeAddress, NodeStatus, TargetStatus, TargetVerdict
from fs_common.records.routing import LocalState, NodeState, Routing, StoreVerdict
from fs_meta.kv.interface import KeyValueStore
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.manager.service import RunningManager, start_manager
from tests.manager.cluster import LIVELY, Config, states
from tests.support import run

UP, FAILED, LEFT = NodeState.UP, NodeState.FAILED, NodeState.LEFT
STATUS = NodeStatus(1000, 10, [TargetStatus(101, LocalState.UPTODATE, 7, 3)])


@asynccontextmanager
async def managing(
    config: Config = LIVELY, kv: KeyValueStore | None = None, cluster_uuid: bytes = b""
) -> AsyncIterator[RunningManager]:
    running = await start_manager(kv or MemoryStore(), config, cluster_uuid)
    try:
        yield running
    except BaseException:
        await Daemon.crash_all()  # a test that fails must not hang on what it has left open
        raise
    finally:
        await running.close()


class Daemon:
    """A storage daemon as the manager sees it: a port that listens, and a client."""

    running: ClassVar[set["Daemon"]] = set()

    def __init__(self, port: int, server: asyncio.Server, client: ManagerClient) -> None:
        self.port = port
        self.server = server
        self.client = client

    @classmethod
    async def start(cls, manager_port: int, node: int, cluster: str = "test", port: int = 0) -> "Daemon":
        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", port)
        port = server.sockets[0].getsockname()[1]
        client = ManagerClient(
            f"127.0.0.1:{manager_port}", NodeAddress(cluster, node, "127.0.0.1", port), lambda: STATUS
        )
        client.start()
        daemon = cls(port, server, client)
        cls.running.add(daemon)
        return daemon

    @classmethod
    async def crash_all(cls) -> None:
        while cls.running:
            await cls.running.pop().crash()

    async def close_port(self) -> None:
        self.running.discard(self)
        self.server.close()
        await self.server.wait_closed()

    async def crash(self) -> None:
        """As a process that is killed: port and stream go."""
        await self.close_port()
        await self.client.close()

    async def leave(self) -> None:
        await self.client.leave()
        await self.close_port()


async def routing_where(client: ManagerClient, condition: Callable[[Routing], bool]) -> Routing:
    """The routing the client knows, as soon as `condition` holds for it."""
    found: asyncio.Future[Routing] = asyncio.get_running_loop().create_future()

    def look(routing: Routing) -> None:
        if condition(routing) and not found.done():
            found.set_result(routing)

    client.on_routing(look)
    return await found


def test_a_cluster_comes_up_and_loses_a_node_and_lets_one_go() -> None:
    async def scenario() -> None:
        async with managing() as manager:
            daemons = [await Daemon.start(manager.port, node) for node in (1, 2, 3)]
            await manager.wait_ready()
            for daemon in daemons:
                await daemon.client.wait_acknowledged(10)
                assert daemon.client.lease_valid() and 0 < daemon.client.lease_left_s <= 8
                routing = await routing_where(daemon.client, lambda routing: bool(routing.tables))
                assert routing.version == manager.routing.version
                assert routing.chains == manager.routing.chains and routing.cluster == "test"
            await daemons[0].crash()
            assert not daemons[0].client.lease_valid()
            routing = await routing_where(daemons[1].client, lambda routing: states(routing)[1] is FAILED)
            assert states(routing) == {1: FAILED, 2: UP, 3: UP}
            await daemons[1].leave()
            assert not daemons[1].client.lease_valid()
            await routing_where(daemons[2].client, lambda routing: states(routing)[2] is LEFT)
            again = await Daemon.start(manager.port, 1)
            await routing_where(daemons[2].client, lambda routing: states(routing)[1] is UP)
            assert states(manager.routing) == {1: UP, 2: LEFT, 3: UP}
            await again.crash()
            await daemons[2].crash()

    run(scenario())


def test_a_broken_stream_alone_fails_nobody() -> None:
    async def scenario() -> None:
        async with managing() as manager:
            daemon = await Daemon.start(manager.port, 1)
            await daemon.client.wait_acknowledged(10)
            await daemon.client.close()
            for _ in range(5):
                await manager.manager.look()
            assert states(manager.routing) == {1: UP}, "its port still answers"
            await daemon.close_port()
            await manager.manager.wait_newer(manager.routing.version)
            assert states(manager.routing) == {1: FAILED}

    run(scenario())


def test_a_killed_daemon_that_is_back_on_its_port_is_taken_at_once() -> None:
    async def scenario() -> None:
        async with managing() as manager:
            first = await Daemon.start(manager.port, 1)
            await first.client.wait_acknowledged(10)
            await first.crash()
            second = await Daemon.start(manager.port, 1, port=first.port)
            await second.client.wait_acknowledged(10)
            assert [member.identity.incarnation for member, _ in manager.manager.nodes()] == [second.client.incarnation]
            await second.crash()

    run(scenario())


def test_a_second_process_under_a_node_id_waits_until_the_first_has_gone() -> None:
    async def scenario() -> None:
        async with managing() as manager:
            first = await Daemon.start(manager.port, 1)
            await first.client.wait_acknowledged(10)
            second = await Daemon.start(manager.port, 1)
            with pytest.raises(EmberError, match="node 1 runs already at") as refused:
                await second.client.wait_acknowledged(0.2)
            assert refused.value.code is Code.NODE_TAKEN
            assert not second.client.lease_valid() and first.client.lease_valid()
            await first.leave()
            await second.client.wait_acknowledged(10)
            await second.crash()

    run(scenario())


def test_a_node_of_another_cluster_is_told_at_once() -> None:
    async def scenario() -> None:
        async with managing() as manager:
            daemon = await Daemon.start(manager.port, 1, cluster="other")
            with pytest.raises(EmberError, match="belongs to cluster 'other'") as refused:
                await daemon.client.wait_acknowledged(30)
            assert refused.value.code is Code.WRONG_CLUSTER
            assert manager.routing.nodes == []
            await daemon.crash()

    run(scenario())


def test_a_node_without_a_manager_says_so_and_finds_it_when_it_comes() -> None:
    async def scenario() -> None:
        async with managing() as manager:
            port = manager.port
        daemon = await Daemon.start(port, 1)
        with pytest.raises(EmberError, match=f"manager 127.0.0.1:{port} cannot be reached") as refused:
            await daemon.client.wait_acknowledged(0.2)
        assert refused.value.code is Code.UNREACHABLE
        async with managing(Config(grpc_port=port)):
            await daemon.client.wait_acknowledged(20)
            assert daemon.client.routing is not None
            await daemon.crash()

    run(scenario())


def test_a_manager_that_restarts_is_not_noticed() -> None:
    async def scenario() -> None:
        kv = MemoryStore()
        async with managing(kv=kv) as manager:
            port = manager.port
            daemon = await Daemon.start(port, 1)
            await daemon.client.wait_acknowledged(10)
        assert daemon.client.lease_valid(), "the lease outlives the manager"
        async with managing(Config(grpc_port=port), kv) as manager:
            assert states(manager.routing) == {1: UP}
            while not manager.manager.nodes()[0][0].streams:
                await asyncio.sleep(0.01)
            assert manager.routing.version == 1 and daemon.client.lease_valid()
            await daemon.crash()

    run(scenario())


def test_the_second_address_is_asked_when_the_first_is_silent() -> None:
    async def scenario() -> None:
        async with managing() as gone:
            dead_port = gone.port
        async with managing() as manager:
            client = ManagerClient(
                f"127.0.0.1:{dead_port}, 127.0.0.1:{manager.port}",
                NodeAddress("test", 1, "127.0.0.1", 9),
                lambda: STATUS,
            )
            client.start()
            await client.wait_acknowledged(20)
            await client.leave()
            assert states(manager.routing) == {1: LEFT}

    run(scenario())


def test_a_heartbeat_that_finds_a_defect_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        defects: list[Exception] = []
        used_bytes = 10

        def status() -> NodeStatus:
            if defects:
                raise defects.pop()
            return NodeStatus(1000, used_bytes)

        async with managing() as manager:
            client = ManagerClient(f"127.0.0.1:{manager.port}", NodeAddress("test", 1, "127.0.0.1", 9), status)
            client.start()
            await client.wait_acknowledged(10)
            defects.append(RuntimeError("not foreseen"))
            used_bytes = 11
            while manager.manager.nodes()[0][0].used_bytes != 11:
                await asyncio.sleep(0.001)
            await client.leave()

    run(scenario())
    assert "not foreseen" in caplog.text


def test_a_nudge_sends_a_heartbeat_before_its_time() -> None:
    async def scenario() -> None:
        used_bytes = 10
        async with managing(Config()) as manager:
            client = ManagerClient(
                f"127.0.0.1:{manager.port}",
                NodeAddress("test", 1, "127.0.0.1", 9),
                lambda: NodeStatus(1000, used_bytes),
            )
            client.start()
            await client.wait_acknowledged(10)
            used_bytes = 11
            client.nudge()
            while manager.manager.nodes()[0][0].used_bytes != 11:
                await asyncio.sleep(0.001)
            await client.leave()

    run(scenario())


class _SetClock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


class _AnyManager(control_pb2_grpc.ManagerServicer):  # type: ignore[misc]
    """Says one version of the routing on a watch, and another in the answers to heartbeats."""

    async def Heartbeat(self, requests: AsyncIterator[pb.HeartbeatRequest], context: object) -> AsyncIterator[object]:
        async for request in requests:
            while request.sequence == 1 and not self.watched:
                await asyncio.sleep(0.001)
            yield pb.HeartbeatReply(
                sequence=request.sequence,
                lease_ms=8000,
                heartbeat_interval_ms=1_000_000,
                routing=pb.Routing(version=min(4 + request.sequence, 7)),
            )

    async def WatchRouting(self, request: pb.WatchRoutingRequest, context: object) -> AsyncIterator[object]:
        yield pb.Routing(version=6)
        self.watched = True
        await asyncio.Event().wait()

    watched = False


def test_the_routing_only_goes_forward() -> None:
    async def scenario() -> None:
        server = grpc.aio.server()
        control_pb2_grpc.add_ManagerServicer_to_server(_AnyManager(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        client = ManagerClient(f"127.0.0.1:{port}", NodeAddress("test", 1, "h", 9), lambda: STATUS)
        versions: list[int] = []
        client.on_routing(lambda routing: versions.append(routing.version))
        client.start()
        await routing_where(client, lambda routing: routing.version == 6)
        await client.wait_acknowledged(10)
        while client.routing is None or client.routing.version < 7:  # the answers say 5, 6 and 7
            client.nudge()
            await asyncio.sleep(0.001)
        assert versions == [6, 7]
        await client.close()
        await server.stop(None)

    run(scenario())


class _HeldManager(control_pb2_grpc.ManagerServicer):  # type: ignore[misc]
    """Answers heartbeats when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def Heartbeat(self, requests: AsyncIterator[pb.HeartbeatRequest], context: object) -> AsyncIterator[object]:
        async for request in requests:
            self.asked.set()
            await self.answer.wait()
            self.answer.clear()
            yield pb.HeartbeatReply(
                sequence=request.sequence, sent_ms=request.sent_ms, lease_ms=8000, heartbeat_interval_ms=1_000_000
            )

    async def WatchRouting(self, request: pb.WatchRoutingRequest, context: object) -> AsyncIterator[object]:
        await asyncio.Event().wait()
        yield None


def test_the_lease_runs_from_when_the_heartbeat_was_sent_not_from_its_answer() -> None:
    async def scenario() -> None:
        clock, held = _SetClock(), _HeldManager()
        server = grpc.aio.server()
        control_pb2_grpc.add_ManagerServicer_to_server(held, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        client = ManagerClient(f"127.0.0.1:{port}", NodeAddress("test", 1, "h", 9), lambda: STATUS, clock)
        client.start()
        await held.asked.wait()
        held.asked.clear()
        assert not client.lease_valid(), "asked is not answered"
        clock.now_s += 5
        held.answer.set()
        await client.wait_acknowledged(10)
        assert client.lease_left_s == pytest.approx(3)
        clock.now_s += 2.999
        assert client.lease_valid()
        client.nudge()
        await held.asked.wait()
        clock.now_s += 0.001
        assert not client.lease_valid() and client.lease_left_s == 0
        clock.now_s += 7.9
        held.answer.set()
        await client.wait_acknowledged(10)
        assert client.lease_left_s == pytest.approx(0.099)
        await client.close()
        await server.stop(None)

    run(scenario())


# --- the service itself -------------------------------------------------------------------------------------------


class Stub(control_pb2_grpc.ManagerStub, control_pb2_grpc.AdministrationStub):  # type: ignore[misc]
    """Both services."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        control_pb2_grpc.ManagerStub.__init__(self, channel)
        control_pb2_grpc.AdministrationStub.__init__(self, channel)


Call = Callable[[Stub], Awaitable[None]]


def with_stub(scenario: Call, config: Config = LIVELY) -> None:
    async def opened() -> None:
        async with managing(config) as manager, grpc.aio.insecure_channel(f"127.0.0.1:{manager.port}") as channel:
            await scenario(Stub(channel))

    run(opened())


def request(sequence: int = 1, leaving: bool = False, **identity: Any) -> pb.HeartbeatRequest:
    who: dict[str, Any] = {
        "cluster": "test",
        "node": 1,
        "role": "storage",
        "host": "127.0.0.1",
        "port": 9,
        "incarnation": 5,
    } | identity
    return pb.HeartbeatRequest(
        identity=pb.NodeIdentity(**who),
        sequence=sequence,
        sent_ms=123,
        leaving=leaving,
        targets=[pb.TargetReport(target=101, state=pb.LOCAL_STATE_ONLINE, used_bytes=7, chain_version=3)],
    )


def code_of_call(error: grpc.aio.AioRpcError) -> int:
    metadata = dict(error.trailing_metadata())
    return int(str(metadata[CODE_METADATA_KEY]))


def test_chains_are_listed_rotated_and_rest_by_calls() -> None:
    async def scenario(stub: Stub) -> None:
        call = stub.Heartbeat()
        reports = [
            pb.TargetReport(
                target=101,
                state=pb.LOCAL_STATE_ONLINE,
                store=ONE_UUID,
                opening=1,
                not_whole=True,
                trouble="it lost power",
                sync=pb.SyncProgress(target=201, chunks_done=3, chunks_total=9, bytes_sent=7, began_ms=50),
            )
        ]
        await call.write(request())  # the chain is made
        assert (await call.read()).sequence == 1
        await call.write(pb.HeartbeatRequest(identity=request().identity, sequence=2, sent_ms=124, targets=reports))
        assert (await call.read()).sequence == 2
        (node,) = (await stub.ListNodes(pb.ListNodesRequest(reports=True))).nodes
        assert node.targets[0].not_whole and node.targets[0].trouble == "it lost power"
        reply = await stub.ListChains(pb.ListChainsRequest(degraded=True))
        assert [chain.chain for chain in reply.chains] == [1] and not reply.resting
        (view,) = reply.chains[0].targets
        assert (view.target, view.node, view.state) == (101, 1, pb.PUBLIC_STATE_SERVING)
        assert (view.standing, view.reason) == (pb.STANDING_LACKING, "it lost power")
        assert view.sync == reports[0].sync
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.RotateChain(pb.RotateChainRequest(chain=1, accept_loss=True))
        assert code_of_call(refused.value) == Code.INVALID.value.number
        assert "needs no rotation" in str(refused.value.details())
        await stub.Rest(pb.RestRequest())
        assert (await stub.ListChains(pb.ListChainsRequest())).resting
        call.cancel()

    with_stub(scenario, dataclasses.replace(LIVELY, storage_nodes=1, replicas=1))


def test_heartbeats_are_echoed_with_the_lease_and_newer_routing_only() -> None:
    async def scenario(stub: Stub) -> None:
        call = stub.Heartbeat()
        await call.write(request())
        reply = await call.read()
        assert (reply.sequence, reply.sent_ms, reply.lease_ms, reply.heartbeat_interval_ms) == (1, 123, 8000, 40)
        assert routing_record(reply.routing).version == 1
        second = request(2)
        second.routing_version = 1
        await call.write(second)
        reply = await call.read()
        assert reply.sequence == 2 and not reply.HasField("routing")
        nodes = (await stub.ListNodes(pb.ListNodesRequest(reports=True))).nodes
        assert len(nodes) == 1
        assert (nodes[0].node.node, nodes[0].routing_version) == (1, 1)
        assert [(t.target, t.state, t.used_bytes, t.chain_version) for t in nodes[0].targets] == [(101, 2, 7, 3)]
        call.cancel()

    with_stub(scenario)


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"cluster": "other"}, Code.WRONG_CLUSTER, "other"),
        ({"node": 0}, Code.INVALID, "node id 0"),
        ({"role": "client"}, Code.INVALID, "role"),
        ({"incarnation": 0}, Code.INVALID, "incarnation"),
        ({"port": 70_000}, Code.INVALID, "port 70000"),
        ({"host": "a..b"}, Code.INVALID, "neither an address nor a name"),
    ],
)
def test_bad_heartbeats_end_the_stream_with_their_reason(change: dict[str, Any], code: Code, says: str) -> None:
    async def scenario(stub: Stub) -> None:
        call = stub.Heartbeat(iter([request(**change)]))
        with pytest.raises(grpc.aio.AioRpcError, match=says) as refused:
            await call.read()
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert code_of_call(refused.value) == code.value.number
        assert (await stub.ListNodes(pb.ListNodesRequest(reports=True))).nodes == []

    with_stub(scenario)


def test_a_report_of_a_state_that_is_none_is_refused() -> None:
    async def scenario(stub: Stub) -> None:
        bad = request()
        bad.targets[0].state = 9
        with pytest.raises(grpc.aio.AioRpcError, match="local state of a target 9"):
            await stub.Heartbeat(iter([bad])).read()

    with_stub(scenario)


def test_a_stream_speaks_for_one_process() -> None:
    async def scenario(stub: Stub) -> None:
        call = stub.Heartbeat(iter([request(1), request(2, node=2)]))
        assert (await call.read()).sequence == 1
        with pytest.raises(grpc.aio.AioRpcError, match="one process of one node"):
            await call.read()

    with_stub(scenario)


def test_routing_is_watched_and_asked_for() -> None:
    async def scenario(stub: Stub) -> None:
        watch = stub.WatchRouting(pb.WatchRoutingRequest(cluster="test"))
        heartbeats = stub.Heartbeat()
        await heartbeats.write(request())
        assert [node.port for node in (await watch.read()).nodes] == [9]
        await heartbeats.write(request(2, leaving=True))
        goodbye = await heartbeats.read()
        assert (goodbye.sequence, goodbye.lease_ms) == (1, 8000)
        goodbye = await heartbeats.read()
        assert (goodbye.sequence, goodbye.lease_ms) == (2, 0)
        message = await watch.read()
        assert message.version == 2 and message.nodes[0].state == pb.NODE_STATE_LEFT
        assert (await stub.GetRouting(pb.GetRoutingRequest())).routing == message
        assert not (await stub.GetRouting(pb.GetRoutingRequest(known_version=2))).HasField("routing")
        late = stub.WatchRouting(pb.WatchRoutingRequest(known_version=1))
        assert (await late.read()).version == 2
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.WatchRouting(pb.WatchRoutingRequest(cluster="other")).read()
        assert code_of_call(refused.value) == Code.WRONG_CLUSTER.value.number
        for call in (watch, late, heartbeats):
            call.cancel()

    with_stub(scenario)


def test_a_goodbye_is_the_nodes_own() -> None:
    """Nothing that a stranger is told lets him say it."""

    async def scenario(stub: Stub) -> None:
        secret = 7_777_777_777
        heartbeats = stub.Heartbeat()
        await heartbeats.write(request(incarnation=secret))
        await heartbeats.read()
        listed = (await stub.ListNodes(pb.ListNodesRequest(reports=True))).nodes
        told = str(listed) + str(await stub.GetRouting(pb.GetRoutingRequest()))
        assert str(secret) not in told
        for change, code in (
            ({"incarnation": secret + 1}, Code.NODE_TAKEN),
            ({"node": 7}, Code.NODE_UNKNOWN),
            ({"cluster": "other"}, Code.WRONG_CLUSTER),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Heartbeat(iter([request(leaving=True, **change)])).read()
            assert code_of_call(refused.value) == code.value.number
        await heartbeats.write(request(2, incarnation=secret))
        assert (await heartbeats.read()).sequence == 2
        assert [node.node.state for node in listed] == [pb.NODE_STATE_UP]
        heartbeats.cancel()

    with_stub(scenario)


def test_a_process_that_the_manager_has_let_go_is_told_to_end() -> None:
    async def scenario() -> None:
        async with managing() as manager:
            daemon = await Daemon.start(manager.port, 1)
            await daemon.client.wait_acknowledged(10)
            assert not daemon.client.dismissed.is_set()
            manager.manager.membership.leave(manager.manager.nodes()[0][0].identity)
            await asyncio.wait_for(daemon.client.dismissed.wait(), 20)
            await daemon.crash()
            again = await Daemon.start(manager.port, 1, port=daemon.port)
            await again.client.wait_acknowledged(10)
            assert states(manager.routing) == {1: UP}
            await again.leave()
            assert states(manager.routing) == {1: LEFT}

    run(scenario())


def test_messages_over_the_bound_are_refused_and_the_server_goes_on() -> None:
    async def scenario(stub: Stub) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Heartbeat(iter([request(host="h" * 2_000_000)])).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not (await stub.GetRouting(pb.GetRoutingRequest())).HasField("routing")

    with_stub(scenario)


def test_garbage_does_not_stop_the_server() -> None:
    async def scenario() -> None:
        dice = random.Random(7)
        async with managing() as manager:
            for size in (1, 24, 1000):
                _, writer = await asyncio.open_connection("127.0.0.1", manager.port)
                writer.write(dice.randbytes(size))
                writer.close()
                await writer.wait_closed()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{manager.port}") as channel:
                raw = channel.unary_unary("/emberfs.control.v1.Manager/GetRouting")
                with pytest.raises(grpc.aio.AioRpcError):
                    await raw(b"\xff\xff\xff\xff")
                await control_pb2_grpc.ManagerStub(channel).GetRouting(pb.GetRoutingRequest())

    run(scenario())


def test_health_and_reflection_are_there() -> None:
    async def scenario() -> None:
        async with managing() as manager, grpc.aio.insecure_channel(f"127.0.0.1:{manager.port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", "emberfs.control.v1.Manager"):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            ask = reflection_pb2.ServerReflectionRequest(list_services="")
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]))
            listed = [service.name for service in (await call.read()).list_services_response.service]
            assert "emberfs.control.v1.Manager" in listed and "grpc.health.v1.Health" in listed
            call.cancel()

    run(scenario())


def test_a_port_that_is_taken_is_one_clear_error() -> None:
    async def scenario() -> None:
        async with managing() as manager:
            with pytest.raises(EmberError, match=f"cannot listen on 127.0.0.1:{manager.port}") as refused:
                await start_manager(MemoryStore(), Config(grpc_port=manager.port))
            assert refused.value.code is Code.UNREACHABLE and "\n" not in str(refused.value)

    run(scenario())


def test_closing_with_open_streams_ends_them() -> None:
    async def scenario() -> None:
        manager = await start_manager(MemoryStore(), LIVELY)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{manager.port}") as channel:
            stub = control_pb2_grpc.ManagerStub(channel)
            heartbeats = stub.Heartbeat()
            await heartbeats.write(request())
            await heartbeats.read()
            watch = stub.WatchRouting(pb.WatchRoutingRequest(known_version=1))
            await watch.initial_metadata() if watch.done() else None
            await manager.close()
            for call in (heartbeats, watch):
                with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
                    if await call.read() is grpc.aio.EOF:
                        raise asyncio.CancelledError

    run(scenario())


ONE_UUID, OTHER_UUID = bytes(range(16)), bytes(range(16, 32))


def test_a_node_belongs_to_the_cluster_it_met_first_and_to_no_other_of_its_name() -> None:
    kept: list[bytes] = []

    def client_of(port: int, uuid: bytes) -> ManagerClient:
        client = ManagerClient(
            f"127.0.0.1:{port}", NodeAddress("test", 1, "127.0.0.1", 9, uuid), lambda: STATUS, keep_cluster=kept.append
        )
        client.start()
        return client

    async def scenario() -> None:
        async with managing(cluster_uuid=ONE_UUID) as manager:
            client = client_of(manager.port, b"")
            await client.wait_acknowledged(10)
            assert kept == [ONE_UUID]
            await client.leave()
            again = client_of(manager.port, ONE_UUID)
            await again.wait_acknowledged(10)
            assert kept == [ONE_UUID], "once"
            await again.leave()
            stranger = client_of(manager.port, OTHER_UUID)
            with pytest.raises(EmberError) as error:
                await stranger.wait_acknowledged(10)
            assert error.value.code is Code.WRONG_CLUSTER and "\n" not in str(error.value)
            assert not stranger.lease_valid()
            await stranger.close()

    run(scenario())


def test_a_node_refuses_a_manager_that_does_not_compare() -> None:
    async def scenario() -> None:
        async with managing() as manager:  # of a release, or a store, without a uuid
            client = ManagerClient(
                f"127.0.0.1:{manager.port}", NodeAddress("test", 1, "127.0.0.1", 9, ONE_UUID), lambda: STATUS
            )
            client.start()
            with pytest.raises(EmberError) as error:
                await client.wait_acknowledged(10)
            assert error.value.code is Code.WRONG_CLUSTER and not client.lease_valid()
            await client.close()

    run(scenario())


def test_a_cluster_that_cannot_be_kept_gives_no_lease() -> None:
    def fails(uuid: bytes) -> None:
        raise OSError(28, "No space left on device")

    async def scenario() -> None:
        async with managing(cluster_uuid=ONE_UUID) as manager:
            client = ManagerClient(
                f"127.0.0.1:{manager.port}",
                NodeAddress("test", 1, "127.0.0.1", 9),
                lambda: STATUS,
                keep_cluster=fails,
            )
            client.start()
            with pytest.raises(EmberError) as error:
                await client.wait_acknowledged(0.5)
            assert error.value.code is Code.DISK_FAILED and not client.lease_valid()
            await client.close()

    run(scenario())


def test_verdicts_on_stores_reach_the_node() -> None:
    async def scenario() -> None:
        store: list[TargetStatus] = [TargetStatus(101, LocalState.OFFLINE, 0, no_store=True)]
        told: asyncio.Queue[TargetVerdict] = asyncio.Queue()

        def take(verdicts: list[TargetVerdict]) -> None:
            for verdict in verdicts:
                told.put_nowait(verdict)

        async with managing(Config(storage_nodes=1, replicas=1, heartbeat_interval_ms=40)) as manager:
            client = ManagerClient(
                f"127.0.0.1:{manager.port}",
                NodeAddress("test", 1, "127.0.0.1", 9),
                lambda: NodeStatus(1000, 10, store),
            )
            client.on_verdicts(take)
            client.start()
            assert (await told.get()).verdict is StoreVerdict.FORMAT
            store[0] = TargetStatus(101, LocalState.ONLINE, 7, 1, ONE_UUID, 4, 2)
            while (verdict := await told.get()).verdict is StoreVerdict.FORMAT:
                pass
            assert (verdict.verdict, verdict.opening) == (StoreVerdict.SERVE, 4)
            store[0] = TargetStatus(101, LocalState.ONLINE, 7, 1, ONE_UUID, 3, 1)
            while (verdict := await told.get()).verdict is StoreVerdict.SERVE:
                pass
            assert verdict[:5] == (101, StoreVerdict.ROLLED_BACK, 3, 4, 2) and "old copy" in verdict.reason
            await client.leave()

    run(scenario())


@pytest.mark.parametrize(("method", "many"), [("GetRouting", False), ("Heartbeat", True), ("WatchRouting", False)])
def test_bytes_that_are_no_message_are_refused_without_a_line(
    method: str, many: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with managing() as manager, grpc.aio.insecure_channel(f"127.0.0.1:{manager.port}") as channel:
            path = f"/emberfs.control.v1.Manager/{method}"
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                if many:
                    async for _ in channel.stream_stream(path)(iter([b"\xff\xff"])):
                        pass
                elif method == "WatchRouting":
                    await channel.unary_stream(path)(b"\xff\xff").read()
                else:
                    await channel.unary_unary(path)(b"\xff\xff")
            assert code_of_call(refused.value) == Code.BAD_BODY.value.number

    run(scenario())
    assert not caplog.records
