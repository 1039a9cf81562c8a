"""A daemon that does nothing but what its configuration says: for tests of the supervisor.

As `meta` it answers the routing that the supervisor waits for; as `storage` it notes, when it is told to end, whether
the manager is there to be told. `behaviour`: "serve", "fail" (one line, exit 1),
"silent" (never ready), "stubborn" (ignores SIGTERM).
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import tomllib
from pathlib import Path

import grpc.aio

from fs_common import control_pb2, control_pb2_grpc, making
from fs_common.methods import GET_ROUTING
from fs_common.records.routing import Chain, ChainTable, GetRoutingReply, NodeInfo, NodeState, Routing
from fs_common.rpc import Reply, Service
from fs_common.transports import tcp


class Administration(control_pb2_grpc.AdministrationServicer):  # type: ignore[misc]
    async def Rest(self, request: object, context: object) -> control_pb2.RestReply:
        print("told to rest", file=sys.stderr, flush=True)
        return control_pb2.RestReply()


async def _control_plane(host: str, port: int) -> grpc.aio.Server:
    server = grpc.aio.server()
    control_pb2_grpc.add_AdministrationServicer_to_server(Administration(), server)
    server.add_insecure_port(f"{host}:{port}")
    await server.start()
    return server


async def serve(config: dict[str, object]) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set if config.get("behaviour") != "stubborn" else lambda: None)
    role = "storage" if "node" in config else "meta"
    cluster, host, port = str(config["cluster"]), str(config["host"]), int(str(config["port"]))
    service = Service(role, cluster, int(str(config.get("node", 0))))
    if role == "meta":
        count = int(str(config["storage_nodes"]))
        nodes = [NodeInfo(node, host, 1, NodeState.UP) for node in range(1, count + 1)]
        routing = Routing(1, cluster, nodes, [Chain(1, 1, [])], [ChainTable(1, 1, [1])])
        service.register(GET_ROUTING, lambda call: Reply(GetRoutingReply(routing)))
    server = await tcp.serve(service, host, port)
    manager = await _control_plane(host, int(str(config["grpc_port"]))) if role == "meta" else None
    if config.get("behaviour") != "silent":
        print(f"ready {role} {host}:{port}", flush=True)
    print("serving", file=sys.stderr, flush=True)
    await ended.wait()
    if role == "storage":
        print("the manager", await _state_of(str(config["manager"])), file=sys.stderr, flush=True)
    if manager is not None:
        await manager.stop(None)
    await server.close(grace_s=1.0)


async def _state_of(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return "is gone"
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return "listens"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    making.add_options(parser)
    options = parser.parse_args()
    print("may format:", options.making, file=sys.stderr, flush=True)
    config = tomllib.loads(options.config.read_text())
    directory = Path(config["directory"])
    directory.mkdir(exist_ok=True)
    (directory / "data").touch()
    if config.get("behaviour") == "fail":
        sys.exit("storage: the disk is made of cheese")
    asyncio.run(serve(config))


main()
