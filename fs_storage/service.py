"""A storage daemon, put together: RPC server, targets, replication, reads, membership.

Order of a start: listen, join the manager, open an engine for each target that routing names; a target serves once
its engine is open, its lease is valid and a tail's pending versions are committed. Order of an end: take no new
requests and finish those in work, say goodbye to the manager, close the engines (their checkpoint).

Called by: `__main__`; tests put several into one process.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from fs_common import methods
from fs_common.buffers import BufferPool
from fs_common.checks import InvariantViolation
from fs_common.limits import MIB
from fs_common.manager_client import NodeStatus, Security, TargetVerdict
from fs_common.metrics import Figures
from fs_common.peers import PeerPool
from fs_common.records.routing import Routing
from fs_common.records.session import PROTOCOL_VERSION, Hello
from fs_common.rpc import Service
from fs_common.security.permits import Right
from fs_common.slow_operations import SlowOperations
from fs_common.telemetry import set_log_level
from fs_common.tls.files import TlsFiles
from fs_common.transports import tcp
from fs_common.transports.payload import PayloadTransport
from fs_storage.config import StorageConfig
from fs_storage.disks import Disks
from fs_storage.finishing import Finishing
from fs_storage.forward import Forwarder
from fs_storage.gate import FOR_COMPARISON, FROM_NO_TARGET, Gate, of_its_own
from fs_storage.giving_way import give_way
from fs_storage.holdings import Holdings
from fs_storage.mending import Mending
from fs_storage.metrics import Parts, gather_storage
from fs_storage.payload import PayloadMemory
from fs_storage.permits import of_file, of_items, permitted, show_permit
from fs_storage.queries import Queries
from fs_storage.reads import Reads
from fs_storage.repairs import Repairs
from fs_storage.resync import Resync
from fs_storage.retiring import StoredTargets
from fs_storage.scattered import Joiner
from fs_storage.scrub import Scrub
from fs_storage.settling import Settling
from fs_storage.space import Disk
from fs_storage.target import Target
from fs_storage.targets import OpenStore, Targets
from fs_storage.throttle import Throttle
from fs_storage.updates import Updates
from fs_storage.warming import Warming

logger = logging.getLogger(__name__)

POOL_KEPT_BYTES = 128 * MIB
"""Unused payload memory that is kept instead of given back to the system."""
CLOSE_GRACE_S = 5.0
"""How long requests in work may take at the end. What is left pending is settled after the next start."""


class Manager(Protocol):
    """What the daemon uses of `fs_common.manager_client.ManagerClient`."""

    @property
    def routing(self) -> Routing | None: ...

    def lease_valid(self) -> bool: ...

    @property
    def lease_left_s(self) -> float: ...

    @property
    def heartbeat_age_s(self) -> float: ...

    @property
    def beats_answered(self) -> int: ...

    @property
    def beats_failed(self) -> int: ...

    def on_routing(self, callback: Callable[[Routing], None]) -> None: ...

    def on_verdicts(self, callback: Callable[[list[TargetVerdict]], None]) -> None: ...

    def on_security(self, callback: Callable[[Security | None], None]) -> None: ...

    def start(self) -> None: ...

    def nudge(self) -> None: ...

    async def leave(self, timeout_s: float = 2.0) -> None: ...


class Daemon:
    """One storage daemon. `start`, `join`, then `close`. Used from one event loop."""

    def __init__(
        self,
        config: StorageConfig,
        open_store: OpenStore,
        disk: StoredTargets | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self._config = config
        self._tls = tls
        self.manager: Manager | None = None
        """Once it has joined."""
        self._server: tcp.Server | None = None
        self.violation: asyncio.Future[InvariantViolation] = asyncio.get_running_loop().create_future()
        """Done when the core found its state impossible: the process has to end."""
        self.service = Service("storage", config.cluster, config.node)
        self.service.slow_operations = SlowOperations(config.slow_operation_ms)
        hello = Hello([PROTOCOL_VERSION], "storage", config.node.to_bytes(16, "big"), config.cluster)
        self._gate = Gate(self.service, hello, expected=bool(config.token_file))
        self._transport = PayloadTransport(config.chosen_transport)
        self.targets = Targets(config.node, self, open_store, disk)
        self._pool = BufferPool(POOL_KEPT_BYTES)
        self._threads = ThreadPoolExecutor(config.read_threads, thread_name_prefix="read")
        self._memory = PayloadMemory(self._pool, config.payload_memory_bytes)
        self._disk = Disk(Path(config.directory), config.capacity_bytes, config.disk_shared_by, config.low_space_bytes)
        counters = self.service.counters
        self._forwarder = Forwarder(self._make_pool, self.targets, self._pool, self._threads)
        self.updates = Updates(
            self.targets,
            self._forwarder,
            self._memory,
            Joiner(self._memory, self._threads),
            counters,
            config.updates_in_flight,
            self._on_violation,
        )
        self._reads = Reads(self.targets, self._forwarder, self._pool, self._threads, counters)
        self._warming = Warming(self.targets, counters)
        self._queries = Queries(self.targets, self.updates, self._disk)
        self._settling = Settling(self.targets, self.updates, self._forwarder, config.settle_interval_ms / 1000)
        self._throttle = throttle = Throttle(
            config.resync_bytes_per_s,
            lambda: counters["reads"] + counters["updates"] - counters["updates_while_syncing"],
        )
        self._holdings = Holdings(self.targets, self._pool, self._threads, throttle)
        self._mending = Mending(self.targets, self._make_pool, self._pool, counters, config.settle_interval_ms / 1000)
        self._disk_thread = ThreadPoolExecutor(1, thread_name_prefix="scrub", initializer=give_way)
        self._repairs = Repairs(self.targets, self._make_pool, self._pool, self._disk_thread, counters)
        self._finishing = Finishing(self.targets, self._make_pool, counters)
        self._scrub = Scrub(
            self.targets,
            self._repairs,
            self._make_pool,
            self._disk_thread,
            counters,
            bytes_per_s=config.scrub_bytes_per_s,
            interval_s=config.scrub_interval_h * 3600,
        )
        self._resync = Resync(
            self.targets,
            self.updates,
            self._make_pool,
            throttle,
            counters,
            config.settle_interval_ms / 1000,
        )
        self._disks = Disks(self.targets, self._disk)
        self.targets.changed = self._on_targets_changed
        self.targets.suspect = self._repairs.suspect
        self._queries.warnings = self._warnings
        self._register()

    def _make_pool(self) -> PeerPool:
        """Connections to other daemons: whoever must not wait behind somebody else's bytes has a pool of its own."""
        return PeerPool(self._gate, tls=self._tls, transport=self._transport)

    # -- membership, for the targets -------------------------------------------------------------------------------

    @property
    def routing(self) -> Routing | None:
        return self.manager.routing if self.manager is not None else None

    def lease_valid(self) -> bool:
        return self.manager is not None and self.manager.lease_valid()

    def status(self) -> NodeStatus:
        """For each heartbeat."""
        space = self._disk.last_space()
        targets = self.targets.statuses()
        used_bytes = self._disk.used_bytes(space, sum(target.used_bytes for target in targets))
        return NodeStatus(space.capacity_bytes, used_bytes, targets)

    def apply(self, config: StorageConfig) -> None:
        """The one place where a changed configuration takes effect: every key of `StorageSettings.LIVE`."""
        self._disk.low_space_bytes = config.low_space_bytes
        self._memory.limit_bytes = config.payload_memory_bytes
        self.updates.in_flight_max = config.updates_in_flight
        self._throttle.bytes_per_s = config.resync_bytes_per_s
        self._scrub.bytes_per_s = config.scrub_bytes_per_s
        self._scrub.interval_s = config.scrub_interval_h * 3600
        self.service.slow_operations.set_threshold(config.slow_operation_ms)
        set_log_level(config.log_level)

    def gather(self, figures: Figures) -> None:
        """For Prometheus."""
        assert self._server is not None
        parts = Parts(self._server, self.targets, self._scrub, self._repairs, self._memory, self._pool, self._disk)
        gather_storage(figures, parts, self.manager)
        self._transport.gather(figures)

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> tuple[str, int]:
        """Listen; host and port. Nothing is served before `join`. Raises `OSError` when the port is taken, `EmberError`
        where RDMA is demanded and cannot be used."""
        self._transport.offer(self.service)
        self._server = await tcp.serve(self.service, self._config.bind, self._config.port, tls=self._tls)
        self._settling.start()
        self._mending.start()
        self._resync.start()
        self._repairs.start()
        self._scrub.start()
        self._disks.start()
        return self._server.host, self._server.port

    def join(self, manager: Manager) -> None:
        """Follow `manager`."""
        self.manager = manager
        manager.on_security(self._gate.adopt)
        manager.on_verdicts(self.targets.judge)
        manager.on_routing(self.targets.apply)
        manager.on_routing(self._forwarder.follow)
        manager.start()

    async def close(self) -> None:
        """End in order. Every acknowledged update is on disk; the engines are closed when it returns."""
        await self._settling.close()
        await self._mending.close()
        await self._disks.close()
        await self._scrub.close()
        await self._repairs.close()
        await self._resync.close()
        await self._finishing.close()
        if self._server is not None:
            await self._server.close(CLOSE_GRACE_S)
        if self.manager is not None:
            await self.manager.leave()
        await self.updates.close()
        await self._reads.close()
        await asyncio.to_thread(self._warming.close)
        await self._forwarder.close()
        await self.targets.close()
        self._transport.close()
        self._threads.shutdown()
        self._disk_thread.shutdown()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _register(self) -> None:
        register = self.service.register
        any_right = Right.READ | Right.WRITE
        register(methods.READ_CHUNKS, permitted(self._reads.read, of_items, Right.READ))
        update = permitted(self.updates.update, of_items, Right.WRITE)
        update = of_its_own(update, "source", otherwise=FROM_NO_TARGET)
        register(methods.UPDATE_CHUNKS, update, allocate=self.updates.allocate)
        register(methods.SHOW_PERMIT, show_permit(lambda: self._gate.ring))
        register(methods.COMMITTED_VERSIONS, self._queries.committed_versions)
        register(methods.AT_VERSION, self._queries.at_version)
        register(methods.QUERY_LAST_CHUNK, permitted(self._queries.query_last_chunk, of_file, any_right))
        register(methods.REMOVE_CHUNKS, self._queries.remove_chunks)
        register(methods.REMOVE_FILES, self._queries.remove_files)
        register(methods.LIST_CHUNKS, permitted(self._queries.list_chunks, of_file, any_right))
        register(methods.SYNC_CHAINS, self._queries.sync_chains)
        register(methods.WARM_CHUNKS, permitted(self._warming.warm, of_items, Right.READ))
        register(methods.LIST_HELD, of_its_own(self._holdings.list_held, "target", otherwise=FOR_COMPARISON))
        register(methods.LIST_REMEMBERED, self._holdings.list_remembered)
        register(methods.PULL_VERSION, self._holdings.pull_version)
        register(methods.REFILL_TARGET, self._queries.refill_target)
        register(methods.SCRUB, self._scrub.scrub)
        register(methods.SUSPECT_CHUNKS, self._repairs.suspect_chunks)
        register(methods.FINISH_SYNC, of_its_own(self._finishing.finish_sync, "source"))
        register(methods.SPACE_INFO, self._queries.space_info)
        self.service.add_stats(self._stats)

    def _stats(self) -> dict[str, int]:
        stats = {
            "payload_memory_bytes": self._memory.used_bytes,
            "pool_outstanding_bytes": self._pool.outstanding_bytes,
        }
        for target in self.targets.all():
            stats["updates_in_flight"] = stats.get("updates_in_flight", 0) + target.in_flight
            differing = len(target.replica.differing) + self._scrub.differing(target.id)
            stats["chunks_differing"] = stats.get("chunks_differing", 0) + differing
            stats["chunks_damaged"] = stats.get("chunks_damaged", 0) + len(self._repairs.damaged(target.id))
            stats["chunks_pending"] = stats.get("chunks_pending", 0) + len(target.replica.unsettled)
            for name, value in target.store.counters().items():
                stats[f"engine_{name}"] = stats.get(f"engine_{name}", 0) + value
        return stats

    def _warnings(self, target: Target) -> list[str]:
        warnings = [target.store.low_space] if target.store.low_space else []
        damaged, differing = len(self._repairs.damaged(target.id)), self._scrub.differing(target.id)
        if damaged:
            warnings.append(f"{damaged} of its chunks are damaged, and no replica could give them: `emberfs scrub`")
        if differing:
            warnings.append(f"{differing} of its chunks differ from those of other replicas: `emberfs fsck --repair`")
        return warnings

    def _on_targets_changed(self) -> None:
        self.updates.chains_changed()
        self._settling.kick()
        self._mending.kick()
        self._resync.kick()
        if self.manager is not None:
            self.manager.nudge()

    def _on_violation(self, error: InvariantViolation) -> None:
        if not self.violation.done():
            self.violation.set_result(error)
