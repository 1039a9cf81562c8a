"""What a storage daemon tells over HTTP: whether it serves, and its figures.

It serves when a manager has told it the routing, its lease is valid, and the store of each of its targets is open and
acknowledged. Targets that are filled up, or wait for that, are no reason: the others of their chains serve.
"""

import asyncio

from fs_common.daemon_pages import DaemonPages, Readiness
from fs_common.http_ports import ABOVE_STORAGE, NONE, port_of
from fs_common.http_server import HttpServer, LoopBridge
from fs_common.metrics import Metrics
from fs_common.tls.files import TlsFiles
from fs_storage.config import StorageConfig
from fs_storage.service import Daemon


def start_http(config: StorageConfig, daemon: Daemon, tls: TlsFiles | None = None) -> HttpServer | None:
    """Serve HTTP, if the configuration says so. Raises UNREACHABLE when the port is taken."""
    port = port_of(config.http_port, config.port, ABOVE_STORAGE)
    if port == NONE:
        return None
    bridge = LoopBridge(asyncio.get_running_loop())
    identity: dict[str, str | int] = {"role": "storage", "cluster": config.cluster, "node": config.node}
    pages = DaemonPages(bridge, lambda: readiness(daemon), identity=identity, metrics=Metrics(bridge, [daemon.gather]))
    server = HttpServer(pages, config.bind, port, tls)
    server.start()
    return server


def readiness(daemon: Daemon) -> Readiness:
    targets, manager = daemon.targets, daemon.manager
    waits_for = []
    routing = manager.routing if manager is not None else None
    if routing is None:
        waits_for.append("no manager has answered yet")
    elif not daemon.lease_valid():
        waits_for.append("its lease is over: no manager answers its heartbeats")
    waits_for += [f"target {target}: its store is being opened" for target in targets.opening()]
    waits_for += [f"target {target}: {why}" for target, why in sorted(targets.troubles().items())]
    details: dict[str, int | float | str] = {
        "lease_left_s": round(manager.lease_left_s, 3) if manager is not None else 0.0,
        "routing_version": routing.version if routing is not None else 0,
        "targets_open": len(targets.all()),
        "targets_serving": sum(target.serves for target in targets.all()),
    }
    return Readiness(waits_for=waits_for, details=details)
