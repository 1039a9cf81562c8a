"""What a mount tells over HTTP with `-o metrics_port=PORT`: that it serves, and its figures.

To this machine alone, or with `metrics_host=ADDRESS` to whoever reaches that address: in plain HTTP, as a mount has no
certificate, and without a token, as daemons tell their figures.
"""

import asyncio
import importlib.util

from fs_client.fuse.metrics import gather_mount
from fs_client.fuse.mount import Mount
from fs_common.daemon_pages import DaemonPages, Readiness
from fs_common.errors import Code, EmberError
from fs_common.http_server import HttpServer, LoopBridge
from fs_common.metrics import Metrics
from fs_common.slow_operations import SlowOperations


def start_http(host: str, port: int, mount: Mount, slow: SlowOperations) -> HttpServer:
    """Serve HTTP. Raises UNREACHABLE when the port is taken, INVALID without the packages that it takes."""
    missing = [name for name in ("uvicorn", "prometheus_client") if importlib.util.find_spec(name) is None]
    if missing:
        raise EmberError(
            Code.INVALID, f"metrics_port needs {' and '.join(missing)}: pip install 'emberfs[server]', or leave it out"
        )
    bridge = LoopBridge(asyncio.get_running_loop())
    cluster = mount.fs.routing.routing.cluster
    pages = DaemonPages(
        bridge,
        lambda: readiness(mount),
        identity={"role": "mount", "cluster": cluster},
        metrics=Metrics(bridge, [lambda figures: gather_mount(figures, mount, slow)]),
    )
    server = HttpServer(pages, host, port)
    server.start()
    return server


def readiness(mount: Mount) -> Readiness:
    ended = mount.channel.ended
    waits_for = [] if ended is None else [f"the mount has ended: it is {ended.value}"]
    silent_s = round(max(mount.loop.time() - mount.heard_at, 0.0), 3)
    return Readiness(waits_for=waits_for, details={"metadata_silent_s": silent_s, "in_work": mount.channel.in_work})
