"""The control plane's server: gRPC in front of the manager, with health and reflection; what nodes ask.

Thin: it converts messages. What operators ask is in `grpc_administration`, how errors are told in `grpc_errors`.
Runs on the metadata server's own loop.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fs_common import control_pb2 as pb
from fs_common import control_pb2_grpc
from fs_common.control_records import (
    STORAGE_ROLE,
    config_report_record,
    local_state,
    pushed_config_message,
    routing_message,
    sync_record,
)
from fs_common.errors import Code, EmberError
from fs_common.limits import MIB
from fs_common.security.identity import Identity as Caller
from fs_common.settings import STORAGE
from fs_common.tls.control_plane import server_credentials
from fs_common.tls.files import TlsFiles
from fs_meta.manager.callers import Callers
from fs_meta.manager.chains import Report
from fs_meta.manager.growth import Growth
from fs_meta.manager.grpc_administration import AdministrationServicer
from fs_meta.manager.grpc_decoding import Decoding
from fs_meta.manager.grpc_errors import abort, answering
from fs_meta.manager.manager import Manager, NodeStream
from fs_meta.manager.membership import Beat, Identity, TargetReport
from fs_meta.manager.routing_bytes import RoutingBytes
from fs_meta.manager.stores import Judged, StoreReport
from fs_meta.users.users import Users
from fs_meta.users.vouching import Vouching

SERVICE_NAMES = tuple(service.full_name for service in pb.DESCRIPTOR.services_by_name.values())
REQUEST_BYTES_MAX = 1 * MIB
"""A heartbeat with a report of each of 99 targets is about 3 KB."""
HANDSHAKE_MS = 10_000
"""Who connects and does not get as far as HTTP/2 in that time is cut off: he holds a descriptor of this process."""
IDLE_MS = 300_000
"""A connection without a call is closed after that; callers open another one without noticing."""
REPLY_BYTES_MAX = 64 * MIB
"""A routing of 100,000 chains of 3 targets is about 4 MB."""


class ManagerServicer(control_pb2_grpc.ManagerServicer):  # type: ignore[misc]
    """Each method is one call of the manager."""

    def __init__(self, manager: Manager, users: Users, callers: Callers) -> None:
        self._manager = manager
        self._users = users
        self._callers = callers
        self._streams: set[asyncio.Task[Any]] = set()
        """The tasks of open streams; each is gRPC's, and is made for one call."""
        self._routing_bytes = RoutingBytes()

    def _opened(self) -> None:
        """A stream begins: its task is known until it has ended."""
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)

    async def end_streams(self) -> None:
        """Streams have no end of their own, and gRPC's server would not wait for the tasks of those it cuts."""
        for task in self._streams:
            task.cancel()
        if self._streams:
            await asyncio.wait(self._streams)

    async def Heartbeat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        self._opened()
        config = self._manager.config
        vouching = self._users.vouching
        stream: NodeStream | None = None
        try:
            async for request in requests:
                try:
                    identity = _identity(request.identity)
                    caller = self._speaker(context, identity)
                    if stream is None:
                        stream = self._manager.open_stream(
                            request.identity.cluster, identity, request.identity.cluster_uuid
                        )
                    elif stream.identity != identity:
                        raise EmberError(Code.INVALID, "a stream speaks for one process of one node")
                    if request.leaving:
                        await stream.leave()
                        routing = self._manager.routing
                    else:
                        routing = await stream.heartbeat(_beat(request))
                except EmberError as error:
                    await abort(context, error)
                vouching.heard(identity.node, request.security_version)
                reply = pb.HeartbeatReply(
                    sequence=request.sequence,
                    sent_ms=request.sent_ms,
                    lease_ms=0 if request.leaving else config.lease_ms,
                    heartbeat_interval_ms=config.heartbeat_interval_ms,
                    cluster_uuid=self._manager.cluster_uuid,
                    verdicts=[_verdict_message(judged) for judged in stream.verdicts],
                    config=self._news_of_config(request),
                    security_version=0 if caller is None else vouching.version,
                    security=None
                    if caller is None or request.security_version == vouching.version
                    else security_message(vouching, caller, identity.node),
                )
                newer = routing.version > request.routing_version
                yield self._routing_bytes.in_reply(reply, routing) if newer else reply
        finally:
            if stream is not None:
                stream.close()

    def _speaker(self, context: Any, node: Identity) -> Caller | None:
        """Who calls, if he may speak for `node`. Raises UNAUTHENTICATED, ACCESS_DENIED."""
        caller = self._callers.identify(context)
        if caller is not None and not caller.speaks_for(node.node):
            raise EmberError(Code.ACCESS_DENIED, f"the token of {caller} does not speak for storage node {node.node}")
        return caller

    def _news_of_config(self, request: Any) -> Any:
        """The cluster's configuration, where a node that takes one has another."""
        pushed = self._manager.cluster_config.pushed(STORAGE)
        if not request.HasField("config") or request.config.version == pushed.version:
            return None
        return pushed_config_message(pushed)

    @answering
    async def PullConfig(self, request: Any) -> Any:
        if request.cluster != self._manager.config.cluster:
            raise EmberError(Code.WRONG_CLUSTER)
        return pushed_config_message(self._manager.configuration().pushed(request.kind))

    async def WatchRouting(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._opened()
        if request.cluster and request.cluster != self._manager.config.cluster:
            await abort(context, EmberError(Code.WRONG_CLUSTER))
        version = request.known_version
        while True:
            try:
                routing = await self._manager.wait_newer(version)
                self._callers.identify(context)
            except EmberError as error:
                await abort(context, error)
            version = routing.version
            yield self._routing_bytes.message(routing)

    async def GetRouting(self, request: Any, context: Any) -> Any:
        routing = self._manager.routing
        if routing.version <= request.known_version:
            return pb.GetRoutingReply()
        return pb.GetRoutingReply(routing=routing_message(routing))


def security_message(vouching: Vouching, caller: Caller, node: int) -> Any:
    """What a daemon of storage node `node` is told, with a pass of its own."""
    record = vouching.record
    own = Caller(STORAGE_ROLE, node.to_bytes(16, "big"), node=node, token=caller.token)
    return pb.Security(
        keys=[pb.PassKey(id=key.id, secret=key.secret) for key in record.ring.keys],
        revoked=[revoked.token for revoked in record.revoked],
        given_pass=vouching.give(own),
    )


def _identity(message: Any) -> Identity:
    if message.role != STORAGE_ROLE:
        raise EmberError(Code.INVALID, f"node {message.node}: role {message.role!r}, expected {STORAGE_ROLE!r}")
    return Identity(message.node, message.host, message.port, message.release, message.incarnation)


def _beat(message: Any) -> Beat:
    targets = {
        target.target: TargetReport(
            Report(local_state(target.state), target.chain_version, not target.not_whole),
            target.used_bytes,
            target.trouble,
            sync_record(target.sync) if target.HasField("sync") else None,
        )
        for target in message.targets
    }
    stores = {
        target.target: StoreReport(target.store, target.opening, target.incarnation, target.position, target.recovered)
        for target in message.targets
        if target.store or target.no_store
    }
    config = config_report_record(message.config)
    return Beat(
        message.capacity_bytes, message.used_bytes, targets, message.routing_version, stores, message.sent_ms, config
    )


def _verdict_message(judged: Judged) -> Any:
    known = judged.known
    return pb.TargetVerdict(
        target=judged.target,
        verdict=int(judged.verdict),
        opening=judged.opening,
        known_opening=known.opening if known is not None else 0,
        known_incarnation=known.incarnation if known is not None else 0,
        reason=judged.reason,
        remove=judged.remove,
    )


class GrpcServer:
    """The listening server. Use `serve`."""

    def __init__(
        self,
        server: Any,
        servicer: ManagerServicer,
        administration: AdministrationServicer,
        health_servicer: Any,
        host: str,
        port: int,
    ) -> None:
        self._server = server
        self._servicer = servicer
        self.administration = administration
        self._health = health_servicer
        self.host = host
        self.port = port

    async def close(self) -> None:
        """End all calls: what is cut off is said again, to this server when it is back or to the next."""
        await self._health.enter_graceful_shutdown()
        await self._servicer.end_streams()
        await self._server.stop(None)


async def serve(
    manager: Manager, growth: Growth, users: Users, host: str, port: int, tls: TlsFiles | None = None
) -> GrpcServer:
    """Listen on `host:port` (0: any); with `tls`, over TLS alone. `users`: who may call what. Raises UNREACHABLE when
    that cannot be."""
    callers = Callers(users)
    server = grpc.aio.server(
        interceptors=(callers, Decoding()),
        options=[
            ("grpc.so_reuseport", 0),  # a taken port is an error, not a second owner
            ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
            ("grpc.max_send_message_length", REPLY_BYTES_MAX),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.max_connection_idle_ms", IDLE_MS),
        ],
    )
    health_servicer = health.aio.HealthServicer()
    servicer = ManagerServicer(manager, users, callers)
    control_pb2_grpc.add_ManagerServicer_to_server(servicer, server)
    administration = AdministrationServicer(manager, growth, users)
    control_pb2_grpc.add_AdministrationServicer_to_server(administration, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection((*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    for name in ("", *SERVICE_NAMES):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if tls is None:
            bound_port = server.add_insecure_port(address)
        else:
            bound_port = server.add_secure_port(address, server_credentials(tls))
    except RuntimeError as error:
        bound_port = 0
        reason: object = error
    else:
        reason = "address in use or not of this machine"
    if bound_port == 0:
        with contextlib.suppress(asyncio.CancelledError):
            await server.stop(None)
        raise EmberError(Code.UNREACHABLE, f"control plane cannot listen on {host}:{port}: {reason}")
    await server.start()
    return GrpcServer(server, servicer, administration, health_servicer, host, bound_port)
