"""What each process of a cluster does, from what it has counted at two moments. Pure.

A process whose counters went back has started anew: what it counted since is what it did.
"""

from collections.abc import Mapping
from typing import NamedTuple

NAMESPACE_LOOKS = (
    "stat", "batch_stat", "lookup", "statfs", "open", "readdir", "readlink", "real_path", "usage", "access",
    "get_xattr", "list_xattrs", "get_lock", "kept",
)  # fmt: skip
NAMESPACE_CHANGES = (
    "create", "batch_create", "create_unnamed", "close", "fsync", "mkdir", "mknod", "unlink", "rmdir", "remove_tree",
    "rename", "symlink", "link", "set_attr", "truncate", "set_xattr", "remove_xattr",
)  # fmt: skip

Counters = Mapping[str, int]


class StorageRates(NamedTuple):
    """Of one storage daemon, a second. Updates are counted at each replica."""

    reads: float
    read_bytes: float
    read_ms: float | None
    """Each frame of reads took this long, on average; None: there was none."""
    updates: float
    written_bytes: float
    update_ms: float | None
    """Each frame of updates, which waits for the replicas behind."""
    resync_bytes: float
    errors: float
    in_flight: int
    """Updates under way at the end."""
    slow: float
    """Calls that took longer than `slow_operation_ms`."""
    connections: int
    """At the end."""
    rdma_connections: int
    """Of these: whose payload travels by RDMA."""


class MetaRates(NamedTuple):
    """Of one metadata server, a second."""

    looks: float
    changes: float
    refused: float
    """Of these, ended with an errno."""
    mean_ms: float | None
    slow: float


def storage_rates(before: Counters, after: Counters, seconds: float) -> StorageRates:
    did = _Did(before, after, seconds)
    return StorageRates(
        did.each_second("reads"),
        did.each_second("bytes_read"),
        did.mean_ms("read_chunks"),
        did.each_second("updates"),
        did.each_second("bytes_written"),
        did.mean_ms("update_chunks"),
        did.each_second("bytes_resynced", "bytes_mended"),
        did.each_second("rpc_read_chunks_errors", "rpc_update_chunks_errors", "updates_failed"),
        after.get("updates_in_flight", 0),
        did.each_second("slow_operations"),
        after.get("connections_tcp", 0) + after.get("connections_rdma", 0),
        after.get("connections_rdma", 0),
    )


def meta_rates(before: Counters, after: Counters, seconds: float) -> MetaRates:
    did = _Did(before, after, seconds)
    names = (*NAMESPACE_LOOKS, *NAMESPACE_CHANGES)
    return MetaRates(
        did.each_second(*(f"rpc_{name}_calls" for name in NAMESPACE_LOOKS)),
        did.each_second(*(f"rpc_{name}_calls" for name in NAMESPACE_CHANGES)),
        did.each_second(*(f"rpc_{name}_errors" for name in names)),
        did.mean_ms(*names),
        did.each_second("slow_operations"),
    )


class _Did:
    """What was done between two readings."""

    def __init__(self, before: Counters, after: Counters, seconds: float) -> None:
        self._before = before
        self._after = after
        self._seconds = max(seconds, 1e-9)

    def each_second(self, *names: str) -> float:
        return sum(map(self._more, names)) / self._seconds

    def mean_ms(self, *methods: str) -> float | None:
        calls = sum(self._more(f"rpc_{name}_calls") for name in methods)
        if not calls:
            return None
        return sum(self._more(f"rpc_{name}_ns") for name in methods) / calls / 1e6

    def _more(self, name: str) -> int:
        now, then = self._after.get(name, 0), self._before.get(name, 0)
        return now - then if now >= then else now
