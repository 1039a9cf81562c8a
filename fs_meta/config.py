"""Configuration of a metadata process: what `emberfs meta` reads from TOML and `EMBERFS_META_...` variables.

Every key has its unit in its name; unknown keys are refused by the loader; relations between values are checked here,
so that a file which loads is a file which works. Values that a whole cluster must agree on (`cluster`, `replicas`) are
written to the store at its first start and only compared afterwards.
"""

from pathlib import Path
from typing import Literal

from fs_common.http_ports import ABOVE_METADATA, port_of, port_problem
from fs_common.layout import Durability, Layout, validate
from fs_common.limits import CHUNK_SIZE_DEFAULT
from fs_common.loopback import is_loopback
from fs_common.settings import MetaSettings


class MetaConfig(MetaSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cluster: str
    """Cluster id, 1 to 64 characters. A store formatted for another cluster is refused."""
    directory: str
    """Where the embedded store lives; made if it is missing."""
    store: str = ""
    """URL of the metadata store; empty: `lmdb://<directory>/kv`."""

    host: str = "127.0.0.1"
    """Address to bind and to advertise. Loopback by default: opening a cluster to the network is a decision."""
    listen: str = ""
    """Address to bind, where that is not `host`: "0.0.0.0" in a container, whose name stays when its address changes;
    empty: `host`."""
    port: int = 9700
    """Data plane (RPC). 0: any free port, told by the readiness line."""
    grpc_port: int = 9701
    """Control plane (gRPC). 0: any free port."""
    http_port: int | None = None
    """HTTP: health, figures, administration. Left out: `port` + 2, which is 9702, or any free port where `port` is 0.
    0: any free port, told by the log. -1: none."""

    tls_dir: str = ""
    """Directory with ca.pem, cert.pem and key.pem, made by `emberfs certs`: every port speaks TLS then, and nothing
    else. Empty: none does."""
    security: Literal["auto", "on", "off"] = "auto"
    """Whether callers of the whole cluster have to say who they are (docs/SECURITY.md). "auto": on, unless `host` is a
    loopback address, which nobody but this machine's users can reach."""
    tokens_dir: str = ""
    """Where the first start with security writes the first tokens; empty: `<directory>/tokens`."""
    key_rotation_h: int = 24
    """How often passes get a new key. A pass that is not shown again is void after at most two such times."""

    storage_nodes: int = 3
    """Storage daemons to wait for before the first chain table is made."""
    replicas: int = 3
    """Targets of each chain."""
    chunk_size_bytes: int = CHUNK_SIZE_DEFAULT
    """The root directory's; inherited by everything below it that does not say otherwise."""
    stripe: int = 16
    """Chains a file is spread over, capped to the table's length when a file is made."""
    durability: Literal["disk", "memory"] = "disk"
    """When a write counts as stored: synced on every serving replica, or in its page cache."""

    heartbeat_interval_ms: int = 1_000
    lease_ms: int = 8_000
    """A target serves for this long after it sent its last answered heartbeat."""
    failure_ms: int = 10_000
    """Silence after which a node is failed. Above `lease_ms`: it has stopped serving before the manager moves on."""

    def problems(self) -> list[str]:
        problems = super().problems()
        if not 1 <= len(self.cluster) <= 64:
            problems.append("cluster: 1 to 64 characters")
        if not self.directory and not self.store:
            problems.append("directory: empty")
        for name in ("port", "grpc_port"):
            if not 0 <= getattr(self, name) <= 65_535:
                problems.append(f"{name}: 0 to 65535")
        if self.port and self.port == self.grpc_port:
            problems.append("grpc_port: the same as port")
        http_problem = port_problem(self.http_port, self.port, ABOVE_METADATA)
        if http_problem is not None:
            problems.append(http_problem)
        elif self.grpc_port and self.grpc_port == port_of(self.http_port, self.port, ABOVE_METADATA):
            problems.append("http_port: the same as grpc_port")
        if self.key_rotation_h < 1:
            problems.append("key_rotation_h: at least 1")
        if self.replicas < 1:
            problems.append("replicas: at least 1")
        if self.replace_lost_after_ms and self.replace_lost_after_ms < self.failure_ms:
            problems.append("replace_lost_after_ms: 0, or at least failure_ms: before, nobody knows that it is lost")
        if self.storage_nodes < self.replicas:
            problems.append("storage_nodes: fewer than replicas, so no chain could be made")
        problems += self.at_least(1, "heartbeat_interval_ms")
        if self.lease_ms < 2 * self.heartbeat_interval_ms:
            problems.append("lease_ms: less than two heartbeats, so one lost heartbeat stops a target")
        if self.failure_ms <= self.lease_ms:
            problems.append("failure_ms: must be above lease_ms, else a target serves after it was replaced")
        try:
            validate(self.root_layout)
        except OSError as error:
            problems.append(f"chunk_size_bytes or stripe: {error}")
        return problems

    @property
    def bind(self) -> str:
        """The address to listen on."""
        return self.listen or self.host

    @property
    def security_on(self) -> bool:
        listening = is_loopback(self.host) and is_loopback(self.bind)
        return self.security == "on" or (self.security == "auto" and not listening)

    @property
    def first_tokens(self) -> Path:
        """The directory of the first tokens."""
        return Path(self.tokens_dir or Path(self.directory, "tokens"))

    @property
    def store_url(self) -> str:
        return self.store or f"lmdb://{self.directory}/kv"

    @property
    def root_layout(self) -> Layout:
        """What the root directory gets when the store is formatted."""
        durability = Durability.DISK if self.durability == "disk" else Durability.MEMORY
        return Layout(chunk_size=self.chunk_size_bytes, stripe=self.stripe, durability=durability)
