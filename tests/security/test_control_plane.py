"""The control plane with security on, over real gRPC: who may call what, and daemons speak for their own node."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fs_common import control_pb2 as pb
from fs_common import control_pb2_grpc
from fs_common.control_records import CODE_METADATA_KEY
from fs_common.errors import Code, EmberError
from fs_common.manager_client import ManagerClient, NodeAddress, Security
from fs_common.security.bearer import bearer, shown_token
from fs_common.security.passes import check_pass
from fs_common.security.tokens import make_token, parse_token, token_text
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.manager import grpc_service
from fs_meta.manager.service import RunningManager, start_manager
from fs_meta.users.records import UserFlags
from fs_meta.users.users import Users
from tests.manager.cluster import LIVELY
from tests.manager.test_control_plane import STATUS
from tests.support import run

ADMIN, MOUNT, DAEMON = "admin.token", "mount.token", "storage.token"


class Secured:
    def __init__(self, manager: RunningManager, users: Users, written: dict[str, str]) -> None:
        self.manager = manager
        self.users = users
        self.written = written
        self.clients: list[ManagerClient] = []

    async def plain(self) -> str:
        await self.users.add("ada", 1000, 1000)
        return await self.users.issue("ada", lasts_s=None)

    def node(self, token: str, node: int) -> tuple[ManagerClient, list[Security | None]]:
        who = NodeAddress("test", node, "127.0.0.1", 1)
        client = ManagerClient(f"127.0.0.1:{self.manager.port}", who, lambda: STATUS, token=lambda: token)
        told: list[Security | None] = []
        client.on_security(told.append)
        client.start()
        self.clients.append(client)
        return client, told


@asynccontextmanager
async def secured(*, enabled: bool = True) -> AsyncIterator[Secured]:
    kv = MemoryStore()
    users = Users(kv, time.time_ns, enabled=enabled)
    written: dict[str, str] = {}
    await users.begin(written.update)
    manager = await start_manager(kv, LIVELY, users=users)
    secured = Secured(manager, users, written)
    try:
        yield secured
    finally:
        for client in secured.clients:
            await client.close()
        await manager.close()


@asynccontextmanager
async def channel_to(cluster: Secured) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{cluster.manager.port}") as channel:
        yield channel


async def outcome(call: Any) -> tuple[grpc.StatusCode, Code | None]:
    """How a call ends, after its first answer if it has any."""
    try:
        if hasattr(call, "read"):
            await call.read()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        codes = [value for key, value in error.trailing_metadata() or () if key == CODE_METADATA_KEY]
        return error.code(), next((code for code in Code if codes == [str(code.value.number)]), None)
    finally:
        call.cancel()
    return grpc.StatusCode.OK, None


def test_every_method_asks_who_calls_and_health_alone_does_not() -> None:
    async def main() -> None:
        async with secured() as cluster, channel_to(cluster) as channel:
            refused = (grpc.StatusCode.UNAUTHENTICATED, Code.UNAUTHENTICATED)
            service = pb.DESCRIPTOR.services_by_name
            for name in service:
                for method in service[name].methods:
                    path = f"/{service[name].full_name}/{method.name}"
                    for metadata in ((), bearer(token_text(make_token(bytes(36)))), (("authorization", "Basic x"),)):
                        if method.server_streaming:
                            kind = channel.stream_stream if method.client_streaming else channel.unary_stream
                        else:
                            kind = channel.unary_unary
                        stub = kind(path, request_serializer=lambda empty: b"", response_deserializer=bytes)
                        call = stub(metadata=metadata) if method.client_streaming else stub(None, metadata=metadata)
                        assert await outcome(call) == refused, path
            reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
            assert await outcome(reflection.ServerReflectionInfo(iter([]))) == refused
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1

    run(main())


def test_users_read_and_administrators_do() -> None:
    async def main() -> None:
        async with secured() as cluster, channel_to(cluster) as channel:
            stub = control_pb2_grpc.ManagerStub(channel)
            plain = await cluster.plain()
            ok = (grpc.StatusCode.OK, None)
            denied = (grpc.StatusCode.PERMISSION_DENIED, Code.ACCESS_DENIED)
            for token in (plain, cluster.written[MOUNT], cluster.written[ADMIN], cluster.written[DAEMON]):
                assert await outcome(stub.GetRouting(pb.GetRoutingRequest(), metadata=bearer(token))) == ok
                allowed = ok if token == cluster.written[ADMIN] else denied
                rest = channel.unary_unary(
                    f"/{_service_with('Rest')}/Rest", pb.RestRequest.SerializeToString, pb.RestReply.FromString
                )
                assert await outcome(rest(pb.RestRequest(), metadata=bearer(token))) == allowed
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
            assert await outcome(reflection.ServerReflectionInfo(iter([request]), metadata=bearer(plain))) == ok

    run(main())


def _service_with(method: str) -> str:
    services = pb.DESCRIPTOR.services_by_name
    return next(service.full_name for service in services.values() if method in service.methods_by_name)


@pytest.mark.parametrize("kind", ["another node's", "a user's", "an administrator's", "none"])
def test_nobody_else_speaks_for_a_node(kind: str) -> None:
    async def main() -> None:
        async with secured() as cluster:
            if kind == "another node's":
                token = await cluster.users.issue_for_daemon(1, lasts_s=None)
            elif kind == "a user's":
                token = await cluster.plain()
            else:
                token = cluster.written[ADMIN] if kind == "an administrator's" else ""
            client, told = cluster.node(token, 2)
            with pytest.raises(EmberError) as refused:
                await client.wait_acknowledged(20)
            assert refused.value.code is (Code.ACCESS_DENIED if token else Code.UNAUTHENTICATED)
            assert not told and not client.lease_valid() and not cluster.manager.routing.nodes

    run(main())


def test_a_daemon_speaks_for_its_own_node() -> None:
    async def main() -> None:
        async with secured() as cluster:
            one = await cluster.users.issue_for_daemon(1, lasts_s=None)
            for token, node in ((one, 1), (cluster.written[DAEMON], 2)):
                client, told = cluster.node(token, node)
                await client.wait_acknowledged(20)
                (security,) = told
                assert security is not None
                identity = check_pass(security.ring, security.given_pass)
                assert (identity.role, identity.node, identity.client) == ("storage", node, node.to_bytes(16, "big"))
                assert identity.token == parse_token(token).id

    run(main())


def test_daemons_hear_of_new_keys_and_revoked_tokens_and_lose_their_own() -> None:
    async def main() -> None:
        async with secured() as cluster:
            users = cluster.users
            client, told = cluster.node(cluster.written[DAEMON], 1)
            await client.wait_acknowledged(20)
            token = await cluster.plain()
            await users.revoke(parse_token(token).id)
            await _until(lambda: len(told) > 1)
            assert told[-1] is not None and told[-1].revoked == {parse_token(token).id}
            await users.rotate_keys(0)
            await _until(lambda: len(told) > 2)
            assert told[-1] is not None and [key.id for key in told[-1].ring.keys] == [1, 2]
            await _until(lambda: users.vouching.signing.id == 2)
            await users.revoke(parse_token(cluster.written[DAEMON]).id)
            await _until(lambda: not client.lease_valid())
            with pytest.raises(EmberError, match="nobody knows this token"):
                await client.wait_acknowledged(20)

    run(main())


def test_who_watches_hears_nothing_after_his_token_is_revoked() -> None:
    async def main() -> None:
        async with secured() as cluster, channel_to(cluster) as channel:
            token = await cluster.plain()
            stub = control_pb2_grpc.ManagerStub(channel)
            watch = stub.WatchRouting(pb.WatchRoutingRequest(), metadata=bearer(token))
            await stub.GetRouting(pb.GetRoutingRequest(), metadata=bearer(token))
            await cluster.users.revoke(parse_token(token).id)
            cluster.node(cluster.written[DAEMON], 1)
            assert await outcome(watch) == (grpc.StatusCode.UNAUTHENTICATED, Code.UNAUTHENTICATED)

    run(main())


def test_a_backup_ends_with_the_token_or_its_right(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with secured() as cluster, channel_to(cluster) as channel:
            go_on = asyncio.Event()

            async def parts() -> AsyncIterator[bytes]:
                yield b"head"
                await go_on.wait()
                yield b"names of everybody"

            monkeypatch.setattr(cluster.manager.manager, "backup", parts)
            await cluster.users.add("op", 0, 0, [], UserFlags.ADMIN)
            token = await cluster.users.issue("op", lasts_s=None)
            stub = control_pb2_grpc.AdministrationStub(channel)
            taking = stub.Backup(pb.BackupRequest(), metadata=bearer(token))
            assert (await taking.read()).data == b"head"
            await cluster.users.revoke(parse_token(token).id)
            go_on.set()
            assert await outcome(taking) == (grpc.StatusCode.UNAUTHENTICATED, Code.UNAUTHENTICATED)

    run(main())


def test_where_security_is_off_nobody_is_asked() -> None:
    async def main() -> None:
        async with secured(enabled=False) as cluster, channel_to(cluster) as channel:
            stub = control_pb2_grpc.ManagerStub(channel)
            for metadata in ((), bearer("whatever")):
                assert (await outcome(stub.GetRouting(pb.GetRoutingRequest(), metadata=metadata)))[1] is None
            client, told = cluster.node("", 1)
            await client.wait_acknowledged(20)
            assert told == [None]

    run(main())


async def _until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_the_token_of_a_call() -> None:
    assert bearer("") == () and bearer("t") == (("authorization", "Bearer t"),)
    assert shown_token(bearer("t")) == "t"
    assert shown_token([("x", "y"), ("Authorization", b"bearer  t ")]) == "t"
    assert shown_token([("authorization", "Basic t")]) == shown_token([]) == ""


@pytest.mark.parametrize("sent", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))])
def test_strangers_who_call_nothing_are_cut_off(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sent`: nothing; as much of HTTP/2 as comes before a call."""
    monkeypatch.setattr(grpc_service, "HANDSHAKE_MS", 300)
    monkeypatch.setattr(grpc_service, "IDLE_MS", 300)

    def stays(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as stranger:
            stranger.sendall(sent)
            while stranger.recv(1000):
                pass

    async def main() -> None:
        async with secured() as cluster:
            await asyncio.to_thread(stays, cluster.manager.port)

    run(main())
