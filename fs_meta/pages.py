"""What a metadata server tells over HTTP: whether it serves, its figures, and the application of `fs_meta.http`.

It serves when its store works and it is the manager, or knows what the manager has decided. A cluster without chains
yet is no reason: storage daemons that wait for this server would wait for ever.
"""

import asyncio

from fs_common.daemon_pages import DaemonPages, Readiness
from fs_common.http_ports import ABOVE_METADATA, NONE, port_of
from fs_common.http_server import App, HttpServer, LoopBridge
from fs_common.metrics import Metrics
from fs_common.records.routing import NodeState
from fs_common.tls.files import TlsFiles
from fs_meta.config import MetaConfig
from fs_meta.http.backend import Backend
from fs_meta.http.later import MadeLater
from fs_meta.kv.interface import KeyValueStore
from fs_meta.manager.manager import Manager
from fs_meta.manager.service import RunningManager
from fs_meta.metrics import ChainFigures, gather_meta
from fs_meta.server import MetaServer


def start_http(
    config: MetaConfig, kv: KeyValueStore, manager: RunningManager, server: MetaServer, tls: TlsFiles | None = None
) -> HttpServer | None:
    """Serve HTTP, if the configuration says so. Raises UNREACHABLE when the port is taken."""
    port = port_of(config.http_port, config.port, ABOVE_METADATA)
    if port == NONE:
        return None
    bridge = LoopBridge(asyncio.get_running_loop())
    backend = Backend(config, bridge, manager.manager, manager.growth, server)

    def make() -> App:
        from fs_meta.http.app import make_app

        return make_app(backend)

    chains = ChainFigures()
    pages = DaemonPages(
        bridge,
        lambda: readiness(kv, manager.manager),
        identity={"role": "meta", "cluster": config.cluster},
        metrics=Metrics(bridge, [lambda figures: gather_meta(figures, server, manager.manager, kv, chains)]),
        rest=MadeLater(make),
    )
    http = HttpServer(pages, config.bind, port, tls)
    http.start()
    return http


def readiness(kv: KeyValueStore, manager: Manager) -> Readiness:
    waits_for = []
    failure = getattr(kv, "failure", None)
    if failure is not None:
        waits_for.append(f"the metadata store has stopped working: {failure}")
    routing, manages = manager.routing, manager.lease.held()
    if not manages and not routing.version:
        waits_for.append("another metadata server is the manager, and has decided nothing yet")
    details: dict[str, int | float | str] = {
        "manager": "this server" if manages else "another server",
        "routing_version": routing.version,
        "nodes_up": sum(node.state is NodeState.UP for node in routing.nodes),
        "chains": len(routing.chains),
    }
    return Readiness(waits_for=waits_for, details=details)
