"""Starting and stopping the manager with its control plane: what a metadata server calls."""

import time
from collections.abc import Callable
from typing import Any

from fs_common.live_config import LiveConfig
from fs_common.records.cluster_config import PushedConfig
from fs_common.records.control import GetControlReply
from fs_common.records.routing import NodeState, Routing
from fs_common.settings import META, MOUNT
from fs_common.tls.files import TlsFiles
from fs_meta.kv.interface import KeyValueStore
from fs_meta.manager.growth import Growth
from fs_meta.manager.grpc_service import GrpcServer, serve
from fs_meta.manager.manager import Manager
from fs_meta.manager.manager_config import ManagerConfig
from fs_meta.scrubs import Scrubs
from fs_meta.users.users import Users


class RunningManager:
    """A manager that serves its control plane. `close` it before its store."""

    def __init__(self, manager: Manager, growth: Growth, server: GrpcServer) -> None:
        self.manager = manager
        self.growth = growth
        self._server = server

    @property
    def host(self) -> str:
        return self._server.host

    @property
    def port(self) -> int:
        """Of the control plane."""
        return self._server.port

    @property
    def routing(self) -> Routing:
        """The newest routing; version 0 and empty before any node has come."""
        return self.manager.routing

    @property
    def ready(self) -> bool:
        return self.manager.ready

    def subscribe(self, callback: Callable[[Routing], None]) -> None:
        """Call `callback` at each new version, on the loop. It must not raise."""
        self.manager.subscribe(callback)

    async def wait_ready(self) -> None:
        """Until there is a chain table. Raises CLOSING when the manager closes first."""
        await self.manager.wait_ready()

    def reconfigure(self, config: ManagerConfig) -> None:
        """What of it takes effect at once does."""
        self.manager.reconfigure(config)

    def reach(self, scrubs: Scrubs) -> None:
        """How storage daemons are asked, once the metadata server can."""
        self._server.administration.scrubs = scrubs

    def where(self) -> GetControlReply:
        """Where the control plane is, for those who know the data plane."""
        return GetControlReply(self.port, self.manager.acts)

    def mount_config(self) -> PushedConfig:
        """What the cluster configures for mounts, for those who know the data plane. Raises NOT_MANAGER."""
        return self.manager.configuration().pushed(MOUNT)

    async def close(self) -> None:
        """End all calls and tasks; the store stays open."""
        await self.manager.close()
        await self._server.close()


async def start_manager(
    kv: KeyValueStore,
    config: ManagerConfig,
    cluster_uuid: bytes = b"",
    tls: TlsFiles | None = None,
    live: LiveConfig[Any] | None = None,
    users: Users | None = None,
) -> RunningManager:
    """Start the manager on `kv`, of cluster `cluster_uuid`, and listen on `config.bind:config.grpc_port`.

    `users`: who may call what; None: anybody anything.

    Raises `EmberError`: WRONG_CLUSTER, INVALID (store and configuration differ), UNREACHABLE (cannot listen).
    """
    manager = Manager(kv, config, cluster_uuid=cluster_uuid)
    if live is not None:
        manager.cluster_config.follow(META, live)
    if users is None:
        users = Users(kv, time.time_ns, enabled=False)
    users.vouching.up_nodes = lambda: [node.node for node in manager.routing.nodes if node.state is NodeState.UP]
    await manager.start()
    try:
        growth = Growth(manager)
        server = await serve(manager, growth, users, config.bind, config.grpc_port, tls)
    except BaseException:
        await manager.close()
        raise
    return RunningManager(manager, growth, server)
