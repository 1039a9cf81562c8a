"""Configuration of a storage daemon: what `emberfs storage` reads from TOML and `EMBERFS_STORAGE_...` variables."""

from typing import Literal

from fs_common.http_ports import ABOVE_STORAGE, port_problem
from fs_common.settings import StorageSettings
from fs_common.transports.choice import TransportChoice, transport_choice


class StorageConfig(StorageSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cluster: str
    """Cluster id. A directory that holds another cluster's data is refused."""
    node: int
    """This daemon's node id, from 1 on; its targets are `node * 100 + k`."""
    directory: str
    """Where the targets live; made if its parent exists."""
    manager: str
    """`host:port` of the cluster manager's gRPC; several separated by commas."""

    host: str = "127.0.0.1"
    """Address to bind and to advertise. Loopback by default: opening a cluster to the network is a decision."""
    listen: str = ""
    """Address to bind, where that is not `host`: "0.0.0.0" in a container, whose name stays when its address changes;
    empty: `host`."""
    port: int = 9710
    """Data plane. 0: any free port, told by the readiness line."""
    http_port: int | None = None
    """HTTP: health and figures. Left out: `port` + 100, or any free port where `port` is 0. 0: any free port, told by
    the log. -1: none."""
    tls_dir: str = ""
    """Directory with ca.pem, cert.pem and key.pem, made by `emberfs certs`: every port speaks TLS then, and nothing
    else. Empty: none does."""
    token_file: str = ""
    """File with this daemon's token, where the cluster has security on; read at each connection to the manager."""
    transport: Literal["auto", "tcp", "rdma"] = "auto"
    """How contents travel between this daemon and those who can the same: `auto` is RDMA where both sides can; `rdma`
    means that a daemon which cannot does not start, and that it talks so with the others or not at all. With `tls_dir`,
    `auto` is TCP."""
    rdma_devices: str = ""
    """NAME or NAME:PORT of the RDMA devices to use, several separated by commas; empty: all."""
    rdma_subnets: str = ""
    """ADDRESS/BITS of the networks that RDMA devices are used in, several separated by commas; empty: all."""
    capacity_bytes: int = 0
    """Most that the targets of this daemon may use together; 0: what the file system of `directory` has."""

    disk_shared_by: int = 1
    """Daemons whose directories are on that file system, this one included: each reports an equal part of it, so that
    the cluster does not promise the same bytes several times."""

    def problems(self) -> list[str]:
        problems = super().problems()
        if not 1 <= len(self.cluster) <= 64:
            problems.append("cluster: 1 to 64 characters")
        if not 1 <= self.node < 1 << 24:
            problems.append("node: from 1 on")
        if not self.directory:
            problems.append("directory: empty")
        if not 0 <= self.port <= 65_535:
            problems.append("port: 0 to 65535")
        http_problem = port_problem(self.http_port, self.port, ABOVE_STORAGE)
        if http_problem is not None:
            problems.append(http_problem)
        try:
            transport_choice(self.transport, self.rdma_devices, self.rdma_subnets, tls=bool(self.tls_dir))
        except ValueError as error:
            problems.append(str(error))
        problems += self.at_least(0, "capacity_bytes") + self.at_least(1, "disk_shared_by")
        if any(not host or not port.isdigit() for host, _, port in (a.rpartition(":") for a in self.managers)):
            problems.append(f"manager: {self.manager!r} is not host:port")
        return problems

    @property
    def chosen_transport(self) -> TransportChoice:
        return transport_choice(self.transport, self.rdma_devices, self.rdma_subnets, tls=bool(self.tls_dir))

    @property
    def bind(self) -> str:
        """The address to listen on."""
        return self.listen or self.host

    @property
    def managers(self) -> list[str]:
        return [address.strip() for address in self.manager.split(",")]
