"""What the cluster's configuration may say, for daemons of each kind and mounts: keys, defaults, bounds, what takes
effect when.

A daemon's own configuration (`fs_meta/config.py`, `fs_storage/config.py`) has these keys, too, and those that are the
process's own: who it is, where it listens, where its data lies, what a whole cluster must never disagree on. What a
daemon runs on is: the default of a key, over it the cluster's configuration, over that the daemon's own file and its
environment.

Every key has its unit in its name. Those of `LIVE` take effect at once; others when a daemon is started again.
"""

from typing import Any, ClassVar, Final, Literal

import msgspec

from fs_common.limits import PAYLOAD_BYTES_MAX

REQUEST_KEEP_MS_MIN: Final = 60_000
"""A client gives up on an operation within a minute; its answer must be remembered for longer than that."""

MOST: Final = {"_ms": 3_155_760_000_000, "_h": 876_600, "_bytes": 1 << 60, "_bytes_per_s": 1 << 60, "": 2**31 - 1}
"""By the unit at the end of its name: the most that a number may be. A hundred years and an exbibyte mean "for ever"
and "no bound", and records hold them in nanoseconds and bytes."""

META: Final = "meta"
STORAGE: Final = "storage"
MOUNT: Final = "mount"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of any kind of daemon."""

    LIVE: ClassVar[frozenset[str]] = frozenset()
    """Keys whose change takes effect at once."""

    slow_operation_ms: int = 1_000
    """A request that takes longer is told in the log and in `emberfs status`: far more than a healthy disk and network
    need. 0: none is."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def __post_init__(self) -> None:
        """Refuse values that cannot work together; the message names the key (the loader makes it one line)."""
        for problem in self.problems():
            raise ValueError(problem)

    def problems(self) -> list[str]:
        return self.at_least(0, "slow_operation_ms") + self._beyond_most()

    def at_least(self, bound: int, *names: str) -> list[str]:
        """The problems of keys that are below a bound."""
        return [f"{name}: at least {bound}" for name in names if getattr(self, name) < bound]

    def _beyond_most(self) -> list[str]:
        found = []
        for name, value in msgspec.structs.asdict(self).items():
            most = next(most for unit, most in MOST.items() if name.endswith(unit))
            if isinstance(value, int) and value > most:
                found.append(f"{name}: at most {most}")
        return found


class DaemonSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of those that ask for the configuration before they begin to log."""

    log_json: bool = False
    """One JSON object for each line instead of text."""


class MountConfig(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of mounts. What they promise to programs is said where each is made, in its options."""

    LIVE: ClassVar[frozenset[str]] = frozenset({"log_level", "slow_operation_ms"})


class MetaSettings(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    LIVE: ClassVar[frozenset[str]] = frozenset(
        {
            "log_level",
            "slow_operation_ms",
            "targets_per_node",
            "moves_per_node",
            "moves_at_once",
            "replace_lost_after_ms",
            "gc_interval_ms",
            "gc_retry_ms",
            "storage_timeout_ms",
        }
    )

    targets_per_node: int = 0
    """How many replicas a node holds; 0: as many as `replicas`, so there is a chain for each
    node. With more, a dead node's reads spread over more of the others (`emberfs placement`), and each daemon has more
    stores to keep."""
    moves_per_node: int = 2
    """Targets that are filled up on one node at a time, when targets move. The bandwidth of
    each is bounded by the daemon that fills it."""
    moves_at_once: int = 64
    """The same in the whole cluster."""
    replace_lost_after_ms: int = 0
    """A target that was away for so long is replaced on another node, where there is one with room; 0: not by itself,
    because a node that is repaired within hours comes back with all it had. `emberfs up` sets a minute."""
    opening_ms: int = 10_000
    """How long a chain that somebody else could serve waits for a target that opens its store. As long as for a silent
    node: nothing is written meanwhile, and to be filled up again costs only what has changed."""

    gc_delay_ms: int = 300_000
    """How long the chunks of a removed file stay, so that readers which had it open go on."""
    gc_interval_ms: int = 1_000
    """Pause between two looks at the collection queue. Bounds how late space comes back, costs one range read."""
    gc_retry_ms: int = 60_000
    """Pause before a file whose chunks could not be removed is tried again (a daemon is down)."""
    client_timeout_ms: int = 30_000
    """How long a client without a connection keeps its locks and open files. A client whose network breaks notices
    after 10 s (keepalive and `UNACKNOWLEDGED_MS` of `fs_common.transports.tcp`) and connects anew: this leaves it twice
    that. One that vanishes silently is missed after as long, so others wait for its locks 40 s at most. A client counts
    on its locks for two thirds of it."""
    request_keep_ms: int = 600_000
    """How long the answer of a mutating operation is remembered for retries."""
    storage_timeout_ms: int = 8_000
    """Total time the service tries to cut or measure chunks for one operation: less than a client waits for the answer
    (10 s a try), so that it hears which chain cannot do it, and why. Its next try goes on where this one ended."""

    def problems(self) -> list[str]:
        problems = super().problems()
        if not 0 <= self.targets_per_node <= 99:
            problems.append("targets_per_node: 0 to 99")
        problems += self.at_least(1, "moves_per_node", "moves_at_once", "opening_ms", "gc_interval_ms", "gc_retry_ms")
        problems += self.at_least(1, "storage_timeout_ms", "client_timeout_ms")
        problems += self.at_least(0, "gc_delay_ms", "replace_lost_after_ms")
        if self.request_keep_ms < REQUEST_KEEP_MS_MIN:
            problems.append(f"request_keep_ms: at least {REQUEST_KEEP_MS_MIN}, a client retries for that long")
        return problems


class StorageSettings(DaemonSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    LIVE: ClassVar[frozenset[str]] = frozenset(
        {
            "log_level",
            "slow_operation_ms",
            "low_space_bytes",
            "payload_memory_bytes",
            "updates_in_flight",
            "resync_bytes_per_s",
            "scrub_bytes_per_s",
            "scrub_interval_h",
        }
    )

    low_space_bytes: int = 0
    """Free bytes of a target's disk (or of its capacity) below which it takes no new chunks (NO_SPACE), so that updates
    of those that are there, removals and its own files go on; it takes them again a quarter above. 0: a 32nd of the
    disk, 16 GiB at most: more than a fast disk takes between two looks."""
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

    def problems(self) -> list[str]:
        problems = super().problems() + self.at_least(0, "low_space_bytes", "resync_bytes_per_s", "scrub_bytes_per_s")
        if self.payload_memory_bytes < PAYLOAD_BYTES_MAX:
            problems.append(f"payload_memory_bytes: at least {PAYLOAD_BYTES_MAX}, one frame's payload")
        problems += self.at_least(1, "updates_in_flight", "read_threads", "settle_interval_ms", "scrub_interval_h")
        return problems


KINDS: Final[dict[str, type[Settings]]] = {
    META: MetaSettings,
    STORAGE: StorageSettings,
    MOUNT: MountConfig,
}


def keys_of(settings: type[Settings]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(settings)]


def defaults_of(settings: type[Settings]) -> dict[str, Any]:
    return msgspec.structs.asdict(settings())
