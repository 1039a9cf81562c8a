"""Every figure that a process of EmberFS gives to Prometheus: name, type, labels, meaning. Pure.

`docs/METRICS.md` lists the same, which a test compares both ways. Names and units are Prometheus' conventions: base
units (seconds, bytes), counters end in `_total`.
"""

import enum
from typing import NamedTuple

META, STORAGE, MOUNT = "metadata server", "storage daemon", "mount"
SERVERS = (META, STORAGE)
ALL = (META, STORAGE, MOUNT)


class Kind(enum.Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Family(NamedTuple):
    name: str
    kind: Kind
    labels: tuple[str, ...]
    processes: tuple[str, ...]
    """Which processes give it."""
    meaning: str


FAMILIES: dict[str, Family] = {}
"""By name."""


def _counter(name: str, labels: tuple[str, ...], processes: tuple[str, ...], meaning: str) -> Family:
    return _add(Family(f"emberfs_{name}_total", Kind.COUNTER, labels, processes, meaning))


def _gauge(name: str, labels: tuple[str, ...], processes: tuple[str, ...], meaning: str) -> Family:
    return _add(Family(f"emberfs_{name}", Kind.GAUGE, labels, processes, meaning))


def _histogram(name: str, labels: tuple[str, ...], processes: tuple[str, ...], meaning: str) -> Family:
    return _add(Family(f"emberfs_{name}", Kind.HISTOGRAM, labels, processes, meaning))


def _add(family: Family) -> Family:
    assert family.name not in FAMILIES, family.name
    FAMILIES[family.name] = family
    return family


# -- every process -----------------------------------------------------------------------------------------------------

INFO = _gauge(
    "info", ("role", "cluster", "node", "release"), ALL, "1: which process this is; `node` is 0 but for nodes"
)
LOOP_DELAY = _gauge(
    "loop_delay_seconds",
    (),
    ALL,
    "How long the process's loop took to come to this scrape: what a request waits for it",
)
SLOW_OPERATIONS = _counter(
    "slow_operations", ("operation",), ALL, "Requests, of a mount operations, that took longer than `slow_operation_ms`"
)

# -- servers: the data plane -------------------------------------------------------------------------------------------

RPC_CALLS = _counter("rpc_calls", ("method",), SERVERS, "Requests, of methods that were ever called")
RPC_ERRORS = _counter(
    "rpc_errors", ("method", "code"), SERVERS, "Error frames sent, by name of the error; method `none`: to a connection"
)
RPC_LATENCY = _histogram(
    "rpc_latency_seconds", ("method",), SERVERS, "From a request that is here, with its payload, to its answer"
)
RPC_RECEIVED = _counter("rpc_received_bytes", ("method",), SERVERS, "Payload of requests")
RPC_SENT = _counter("rpc_sent_bytes", ("method",), SERVERS, "Payload of answers")
RPC_IN_WORK = _gauge(
    "rpc_requests_in_work", (), SERVERS, "Requests that are not answered yet, or whose payload arrives"
)
RPC_BYTES_IN_WORK = _gauge("rpc_bytes_in_work", (), SERVERS, "Their payload")
RPC_UNSENT = _gauge("rpc_unsent_bytes", (), SERVERS, "Answers that wait for the callers' sockets")
CONNECTIONS = _gauge(
    "connections",
    ("role", "transport"),
    SERVERS,
    "Connections, by who called (`client`, `meta`, `storage`), and how payload travels (`tcp`, `rdma`)",
)

# -- RDMA --------------------------------------------------------------------------------------------------------------

PAYLOAD = (STORAGE, MOUNT)
RDMA_QUEUE_PAIRS = _gauge(
    "rdma_queue_pairs", (), PAYLOAD, "Connections over RDMA, made by this process or by others to it"
)
RDMA_REGIONS = _gauge("rdma_regions", (), PAYLOAD, "Pieces of memory that its RDMA devices may use")
RDMA_REGISTERED = _gauge("rdma_registered_bytes", (), PAYLOAD, "Memory in them, which is locked")
RDMA_REFUSED = _counter(
    "rdma_registrations_refused",
    (),
    PAYLOAD,
    "Pieces of memory that could not be registered: `ulimit -l`, or the device",
)
RDMA_MESSAGES = _counter(
    "rdma_messages", ("direction",), PAYLOAD, "Messages with headers of frames, `sent` and `received`"
)
RDMA_BYTES = _counter(
    "rdma_bytes", ("operation",), PAYLOAD, "Payload that this process moved from (`read`) and to (`write`) its callers"
)
RDMA_FALLBACKS = _counter(
    "rdma_fallbacks", ("reason",), PAYLOAD,
    "Connections that stay on TCP though this process can RDMA: the server does not offer it (`there`), it did not get"
    " through (`between`)",
)  # fmt: skip

# -- storage daemons ---------------------------------------------------------------------------------------------------

LEASE_LEFT = _gauge("lease_left_seconds", (), (STORAGE,), "For how long its targets may serve; 0: the lease is over")
HEARTBEATS = _counter("heartbeats", ("outcome",), (STORAGE,), "Heartbeats `answered`, and tries that `failed`")
HEARTBEAT_AGE = _gauge(
    "heartbeat_age_seconds", ("node",), SERVERS,
    "Since the last heartbeat: that was answered (storage daemon), that came from each node (manager)",
)  # fmt: skip
CAPACITY = _gauge("capacity_bytes", ("node",), SERVERS, "Of a node's disks, by its last heartbeat or its own look")
USED = _gauge("used_bytes", ("node",), SERVERS, "Of that, not free any more")
TARGET_STATE = _gauge(
    "target_state", ("target", "chain", "state"), (STORAGE,),
    "1 for the state of each target of this node: `serving`, `syncing`, `idle` (may not serve), `opening`, `trouble`",
)  # fmt: skip
TARGET_USED = _gauge("target_used_bytes", ("target",), (STORAGE,), "Storage of each open target's chunks")
TARGET_CHUNKS = _gauge("target_chunks", ("target",), (STORAGE,), "Its chunks")
TARGET_LOW = _gauge("target_low_on_space", ("target",), (STORAGE,), "1: it takes no new chunks")
TARGET_IN_WORK = _gauge("target_updates_in_work", ("target",), (STORAGE,), "Updates in work or waiting for their chunk")
TARGET_PENDING = _gauge(
    "target_pending_chunks", ("target",), (STORAGE,), "Chunks with a version that is not committed yet"
)
TARGET_DAMAGED = _gauge("target_damaged_chunks", ("target",), (STORAGE,), "Chunks that no replica could give whole")
TARGET_DIFFERING = _gauge(
    "target_differing_chunks", ("target",), (STORAGE,), "Chunks that replicas have different versions of"
)
SYNC_DONE = _gauge(
    "resync_chunks_done",
    ("target",),
    (STORAGE,),
    "Of the replica that this node fills up: chunks compared, and sent where they differed",
)
SYNC_ALL = _gauge("resync_chunks", ("target",), (STORAGE,), "Of the same: chunks to compare")
SCRUB_RUNNING = _gauge("scrub_running", ("target",), (STORAGE,), "1: a pass over the target is under way")
SCRUB_DONE = _gauge("scrub_chunks_done", ("target",), (STORAGE,), "Chunks read in this pass, or the last one")
SCRUB_ENDED = _gauge("scrub_ended_timestamp_seconds", ("target",), (STORAGE,), "When the last pass ended; 0: none has")
PAYLOAD_MEMORY = _gauge("payload_memory_bytes", (), (STORAGE,), "Payload of updates in work")
POOL_MEMORY = _gauge("buffer_pool_bytes", (), (STORAGE,), "Memory of reads in work")
ENGINE_SYNCS = _counter("engine_syncs", (), (STORAGE,), "Syncs of groups of updates to the disk")
ENGINE_GROUPS = _counter("engine_groups", (), (STORAGE,), "Groups of updates that were written")
ENGINE_COMMITTED = _counter("engine_commits", (), (STORAGE,), "Versions committed")
ENGINE_CHECKPOINTS = _counter("engine_checkpoints", (), (STORAGE,), "Checkpoints of the chunk index")
ENGINE_LOG = _gauge("engine_log_bytes", (), (STORAGE,), "Of the logs, since their last checkpoints")
ENGINE_PATCHES = _gauge("engine_patch_bytes", (), (STORAGE,), "Small overwrites that are in the log alone")
ENGINE_READS = _counter(
    "engine_reads",
    ("kind",),
    (STORAGE,),
    "Reads of chunks: `small` (copied), `large` (sendfile), `uncached` (left to a thread), `damaged`",
)

STORAGE_COUNTERS = {
    counter: _counter(f"storage_{counter}", (), (STORAGE,), meaning)
    for counter, meaning in {
        "reads": "Pieces of chunks asked for",
        "reads_blocked": "Of those, not in memory: read by a thread",
        "reads_asked": "Of those, for which the tail was asked what is committed",
        "bytes_read": "Bytes of pieces of chunks read",
        "bytes_warmed": "Bytes of chunks brought into memory (`emberfs warmup`)",
        "updates": "Updates of chunks asked for, by clients and predecessors",
        "updates_of_clients": "Of those, by clients",
        "updates_failed": "Updates that failed",
        "updates_joined": "Scattered updates that were made one write",
        "updates_while_syncing": "Updates taken while the target was filled up",
        "bytes_written": "Payload of updates by clients",
        "forwards": "Updates sent to a successor",
        "forward_retries": "Of those, sent again",
        "resends": "Versions sent whole to a successor",
        "pushes": "Chunks sent to fill up a replica",
        "settles": "Leftovers driven to their end",
        "confirms": "Versions committed by the tail's word",
        "abandons": "Versions dropped that reached no other replica",
        "chunks_differed": "Chunks found to differ between replicas",
        "chunks_mended": "Chunks given back to a target that may have lost something",
        "bytes_mended": "Their bytes",
        "targets_mended": "Targets made whole",
        "chunks_repaired": "Damaged chunks written again from another replica",
        "pages_repaired": "Their pages that were damaged",
        "chunks_resynced": "Chunks sent to replicas that were filled up",
        "bytes_resynced": "Their bytes",
        "targets_filled": "Replicas filled up",
        "targets_synced": "Targets of this node that have been filled up",
        "resync_rounds_interrupted": "Rounds of filling up that ended before their end",
        "scrub_chunks": "Chunks read by the scrub",
        "scrub_bytes": "Their bytes",
        "scrub_chunks_damaged": "Of those, damaged",
        "scrub_passes": "Passes of the scrub that ended",
    }.items()
}
"""By the counter's name (`Service.counters`)."""

# -- metadata servers --------------------------------------------------------------------------------------------------

MANAGER = _gauge("manager", (), (META,), "1: this server is the cluster's manager")
ROUTING_VERSION = _gauge("routing_version", (), SERVERS, "Version of the routing that the process knows")
NODES = _gauge("nodes", ("state",), (META,), "Storage nodes, by state: `up`, `failed`, `left`")
NODE_UP = _gauge("node_up", ("node",), (META,), "1: the node is up")
CHAINS = _gauge("chains", ("state",), (META,), "Chains, by state: `serving`, `degraded`, `offline`")
CHAIN_DEGRADED = _gauge(
    "chain_degraded",
    ("chain", "state"),
    (META,),
    "1 for each chain that is `degraded` or `offline`, the first 1000 of them; none for the others",
)
TARGETS = _gauge(
    "targets", ("state",), (META,), "Targets on chains, by state: `serving`, `syncing`, `waiting`, `offline`, `lastsrv`"
)
MOVES = _gauge("moves", ("state",), (META,), "Moves of targets that are not over: `queued`, `filling`, `leaving`")
INODES = _gauge("inodes", (), (META,), "Inodes in use")
CLIENTS = _gauge("clients", (), (META,), "Clients with a connection")
SESSIONS = _gauge("sessions", (), (META,), "Opens for writing and holds of clients; counted up to 1000")
FOLLOWERS = _gauge("followers", (), (META,), "Mounts that are told of changes")
PROMISES = _gauge("promises", (), (META,), "What they were promised to hear of")
ROUTING_WAITS = _gauge("routing_waits", (), (META,), "Calls that wait for a newer routing")
GC_DUE = _gauge(
    "gc_due_files", (), (META,), "Removed files whose chunks may go and have not gone yet; counted up to 1000"
)
GC_LAG = _gauge("gc_lag_seconds", (), (META,), "For how long the oldest of them has been due; 0: none is")
KV_TRANSACTION = _histogram(
    "kv_transaction_seconds",
    ("durable",),
    (META,),
    "From a transaction's begin until it is told: `yes` synced, `no` relaxed",
)
KV_SYNC = _histogram("kv_sync_seconds", (), (META,), "Syncs of the store's journal")
KV_QUEUE = _gauge("kv_queue", (), (META,), "Transactions that wait to be run, or for a sync")
KV_JOURNAL = _gauge("kv_journal_bytes", (), (META,), "Of the journal, not in LMDB yet")
META_COUNTERS = {
    counter: _counter(name, (), (META,), meaning)
    for counter, name, meaning in (
        ("gc_files", "gc_files", "Removed files whose chunks were freed"),
        ("gc_directories", "gc_directories", "Removed directories that were taken apart"),
        ("gc_failures", "gc_failures", "Removed files that could not be freed, to be tried again"),
        ("pruned_clients", "pruned_clients", "Clients that were gone, and what they had was taken"),
        ("pruned_locks", "pruned_locks", "Their locks"),
        ("pruned_sessions", "pruned_sessions", "Their open files"),
        ("prune_failures", "prune_failures", "What could not be taken yet"),
    )
}
"""By the counter's name (`Service.counters`)."""

# -- mounts ------------------------------------------------------------------------------------------------------------

MOUNT_OPERATIONS = _counter("mount_operations", ("operation",), (MOUNT,), "Requests of the kernel")
MOUNT_ERRORS = _counter(
    "mount_errors",
    ("operation",),
    (MOUNT,),
    "Of those, failed; no such name is an answer",
)
MOUNT_LATENCY = _histogram(
    "mount_latency_seconds", ("operation",), (MOUNT,), "From a request of the kernel to its answer"
)
MOUNT_IN_WORK = _gauge("mount_requests_in_work", (), (MOUNT,), "Requests that are not answered yet")
MOUNT_GAVE_UP = _counter("mount_gave_up", (), (MOUNT,), "Requests interrupted, or past their deadline")
MOUNT_NODES = _gauge("mount_nodes", (), (MOUNT,), "Inodes that it knows something of")
MOUNT_OPEN = _gauge("mount_open", ("kind",), (MOUNT,), "Open `files` and `directories`")
MOUNT_DIRTY = _gauge("mount_dirty_bytes", (), (MOUNT,), "Written by programs, and not stored yet")
MOUNT_CACHE = _gauge("mount_cache_bytes", (), (MOUNT,), "Cached for direct I/O")
MOUNT_CACHE_HITS = _counter("mount_cache_hits", (), (MOUNT,), "Pages found there")
MOUNT_CACHE_MISSES = _counter("mount_cache_misses", (), (MOUNT,), "Pages not found there")
MOUNT_LOST = _counter("mount_lost_bytes", (), (MOUNT,), "Written by programs, and could not be stored")
