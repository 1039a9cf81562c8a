"""Figures of a storage daemon for Prometheus, gathered from what its parts count anyway.

Called by: `service`, on the loop. Names: `fs_common.metric_families`.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from fs_common import metric_families as families
from fs_common.buffers import BufferPool
from fs_common.metrics import Figures
from fs_common.service_metrics import gather_service
from fs_common.transports import tcp
from fs_storage.payload import PayloadMemory
from fs_storage.repairs import Repairs
from fs_storage.scrub import Scrub
from fs_storage.space import Disk
from fs_storage.target import Target
from fs_storage.targets import Targets

if TYPE_CHECKING:
    from fs_storage.service import Manager

STATES = ("serving", "syncing", "idle", "opening", "trouble")


class Parts(NamedTuple):
    """Of a daemon."""

    server: tcp.Server
    targets: Targets
    scrub: Scrub
    repairs: Repairs
    memory: PayloadMemory
    pool: BufferPool
    disk: Disk


def gather_storage(figures: Figures, parts: Parts, manager: "Manager | None") -> None:
    service = parts.server.service
    gather_service(figures, parts.server)
    figures.add_counters(families.STORAGE_COUNTERS, service.counters.snapshot())
    if manager is not None:
        routing = manager.routing
        figures.add(families.LEASE_LEFT, manager.lease_left_s)
        figures.add(families.HEARTBEATS, manager.beats_answered, "answered")
        figures.add(families.HEARTBEATS, manager.beats_failed, "failed")
        if math.isfinite(manager.heartbeat_age_s):
            figures.add(families.HEARTBEAT_AGE, manager.heartbeat_age_s, service.node)
        figures.add(families.ROUTING_VERSION, 0 if routing is None else routing.version)
    figures.add(families.PAYLOAD_MEMORY, parts.memory.used_bytes)
    figures.add(families.POOL_MEMORY, parts.pool.outstanding_bytes)
    used_bytes = sum(_gather_target(figures, parts, target) for target in parts.targets.all())
    space = parts.disk.last_space()
    figures.add(families.CAPACITY, space.capacity_bytes, service.node)
    figures.add(families.USED, parts.disk.used_bytes(space, used_bytes), service.node)
    for number, chain, state in _states(parts.targets):
        for name in STATES:
            figures.add(families.TARGET_STATE, name == state, number, chain, name)
    _gather_engines(figures, parts.targets)


def _gather_target(figures: Figures, parts: Parts, target: Target) -> int:
    """One that is open. Returns its used bytes."""
    store, number = target.store, target.id
    try:
        space = store.space()
    except OSError:
        used_bytes = 0  # its disk does not answer: its state tells
    else:
        used_bytes = space.used_bytes
        figures.add(families.TARGET_USED, used_bytes, number)
        figures.add(families.TARGET_CHUNKS, space.chunks, number)
    figures.add(families.TARGET_LOW, bool(store.low_space), number)
    figures.add(families.TARGET_IN_WORK, target.in_flight, number)
    figures.add(families.TARGET_PENDING, len(target.replica.unsettled), number)
    figures.add(families.TARGET_DAMAGED, len(parts.repairs.damaged(number)), number)
    differing = len(target.replica.differing) + parts.scrub.differing(number)
    figures.add(families.TARGET_DIFFERING, differing, number)
    if target.sync is not None:
        figures.add(families.SYNC_DONE, target.sync.chunks_done, target.sync.target)
        figures.add(families.SYNC_ALL, target.sync.chunks_total, target.sync.target)
    progress = parts.scrub.progress(number)
    figures.add(families.SCRUB_RUNNING, progress.running, number)
    figures.add(families.SCRUB_DONE, progress.chunks, number)
    figures.add(families.SCRUB_ENDED, progress.ended_s, number)
    return used_bytes


def _states(targets: Targets) -> Iterator[tuple[int, int | str, str]]:
    """Target, chain, state."""
    troubles = targets.troubles()
    opened = {target.id: target for target in targets.all()}
    for number in sorted({*opened, *targets.opening(), *troubles}):
        target = opened.get(number)
        position = target.position if target is not None else None
        if number in troubles:
            state = "trouble"
        elif target is None:
            state = "opening"
        elif target.serves:
            state = "serving"
        else:
            state = "syncing" if position is not None and position.syncing else "idle"
        yield number, position.chain if position is not None else "", state


def _gather_engines(figures: Figures, targets: Targets) -> None:
    """Of all targets together."""
    sums: dict[str, int] = {}
    for target in targets.all():
        for name, value in target.store.counters().items():
            sums[name] = sums.get(name, 0) + value
    for name, family in _ENGINE.items():
        figures.add(family, sums.get(name, 0))
    for kind, name in _READS.items():
        figures.add(families.ENGINE_READS, sums.get(name, 0), kind)


_ENGINE = {
    "syncs": families.ENGINE_SYNCS,
    "groups": families.ENGINE_GROUPS,
    "committed": families.ENGINE_COMMITTED,
    "checkpoints": families.ENGINE_CHECKPOINTS,
    "log_bytes": families.ENGINE_LOG,
    "patch_bytes": families.ENGINE_PATCHES,
}
"""By the engine's counter."""
_READS = {
    "small": "small_reads",
    "large": "large_reads",
    "uncached": "uncached_reads",
    "damaged": "damaged_reads",
}
