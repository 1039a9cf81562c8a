"""Starting and stopping the manager with its control plane: what a metadata server calls."""

from collections.abc import Callable

from fs_common.records.routing import Routing
from fs_common.rpc import Service
from fs_common.tls.files import TlsFiles
from fs_meta.kv.interface import KeyValueStore
from fs_meta.manager.growth import Growth
from fs_meta.manager.grpc_service import GrpcServer, serve
from fs_meta.manager.manager import Manager
from fs_meta.manager.manager_config import ManagerConfig
from fs_meta.manager.target_calls import register_target_calls


class RunningManager:
    """A manager that serves its control plane. `close` it before its store."""

    def __init__(self, manager: Manager, server: GrpcServer) -> None:
        self.manager = manager
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

    def register_calls(self, service: Service) -> None:
        """Let the metadata service answer what operators ask of the manager."""
        register_target_calls(service, Growth(self.manager))

    async def close(self) -> None:
        """End all calls and tasks; the store stays open."""
        await self.manager.close()
        await self._server.close()


async def start_manager(
    kv: KeyValueStore, config: ManagerConfig, cluster_uuid: bytes = b"", tls: TlsFiles | None = None
) -> RunningManager:
    """Start the manager on `kv`, of cluster `cluster_uuid`, and listen on `config.bind:config.grpc_port`.

    Raises `EmberError`: WRONG_CLUSTER, INVALID (store and configuration differ), UNREACHABLE (cannot listen).
    """
    manager = Manager(kv, config, cluster_uuid=cluster_uuid)
    await manager.start()
    try:
        server = await serve(manager, config.bind, config.grpc_port, tls)
    except BaseException:
        await manager.close()
        raise
    return RunningManager(manager, server)
