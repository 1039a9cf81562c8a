"""Configuration of a storage daemon: what `emberfs storage` reads from TOML and `EMBERFS_STORAGE_...` variables.

Source: DESIGN sections 5 and 9.
"""

from typing import Literal

import msgspec

from fs_common.http_ports import ABOVE_STORAGE, port_problem
from fs_common.limits import PAYLOAD_BYTES_MAX


class StorageConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
    capacity_bytes: int = 0
    """Most that the targets of this daemon may use together; 0: what the file system of `directory` has."""

    low_space_bytes: int = 0
    """Free bytes of a target's disk (or of its capacity) below which it takes no new chunks (NO_SPACE), so that updates
    of those that are there, removals and its own files go on; it takes them again a quarter above. 0: a 32nd of the
    disk, 16 GiB at most: more than a fast disk takes between two looks."""

    disk_shared_by: int = 1
    """Daemons whose directories are on that file system, this one included: each reports an equal part of it, so that
    the cluster does not promise the same bytes several times."""

    payload_memory_bytes: int = 256 << 20
    """Memory for the payloads of updates in work, for each position on a chain (see `payload.py`). Beyond it: BUSY."""
    updates_in_flight: int = 4096
    """Updates of one target in work or waiting for their chunk. Beyond it: BUSY."""
    read_threads: int = 32
    """Reads that may wait for a disk at the same time."""
    settle_interval_ms: int = 1000
    """How often versions that an interrupted update left pending are looked for."""
    resync_bytes_per_s: int = 0
    """Most that this daemon sends in a second to fill up replicas; 0: what disks and network give. No bound by default:
    the sooner a replica has everything, the smaller the risk that another failure meets the last copy, and clients are
    not held up, as filling takes a tenth of the time while any are served (`throttle.py`). Set it where others share
    the network."""

    scrub_bytes_per_s: int = 32 << 20
    """What the scrub reads at most, over all targets; a quarter of it while the daemon is busy. 2.7 TB a day: a disk of
    16 TB within a week, at a fifth of what a hard disk reads and a hundredth of what a fast one does. 0: no scrub but
    when it is asked for."""
    scrub_interval_h: int = 168
    """Hours from the beginning of one pass over a target to that of the next: a week, in which few bits flip and the
    second replica of a chunk is unlikely to be hit before the first is found."""

    slow_operation_ms: int = 1_000
    """A request that takes longer is told in the log and in `emberfs status`: far more than a healthy disk and network
    need. 0: none is."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False
    """One JSON object for each line instead of text."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work together; the message names the key (the loader makes it one line)."""
        for problem in self._problems():
            raise ValueError(problem)

    def _problems(self) -> list[str]:
        problems = []
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
        for name in (
            "capacity_bytes",
            "low_space_bytes",
            "resync_bytes_per_s",
            "scrub_bytes_per_s",
            "slow_operation_ms",
        ):
            if getattr(self, name) < 0:
                problems.append(f"{name}: at least 0")
        if self.payload_memory_bytes < PAYLOAD_BYTES_MAX:
            problems.append(f"payload_memory_bytes: at least {PAYLOAD_BYTES_MAX}, one frame's payload")
        for name in ("disk_shared_by", "updates_in_flight", "read_threads", "settle_interval_ms", "scrub_interval_h"):
            if getattr(self, name) < 1:
                problems.append(f"{name}: at least 1")
        if any(not host or not port.isdigit() for host, _, port in (a.rpartition(":") for a in self.managers)):
            problems.append(f"manager: {self.manager!r} is not host:port")
        return problems

    @property
    def bind(self) -> str:
        """The address to listen on."""
        return self.listen or self.host

    @property
    def managers(self) -> list[str]:
        return [address.strip() for address in self.manager.split(",")]
