"""Opens a target: directory, files, recovery, and what the store needs in memory. Waits for the disk."""

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fs_common.checks import check
from fs_common.errors import Code, EmberError
from fs_storage.engine import index_guard
from fs_storage.engine.blocks import BlockFiles, unit_slots
from fs_storage.engine.disk import Disk
from fs_storage.engine.formatting import BLOCKS, INDEX, LOG, has_store, lock_directory, open_directory
from fs_storage.engine.index import ANSWER_S, TOMBSTONE_S, Expiry, Index, LmdbIndex
from fs_storage.engine.index_format import IndexDamaged, decode_record, encode_record, glance
from fs_storage.engine.interface import NoStore
from fs_storage.engine.log import RedoLog
from fs_storage.engine.log_format import LogDamaged
from fs_storage.engine.mark import NO_BOOT, MarkFile
from fs_storage.engine.mark import opened as opened_mark
from fs_storage.engine.odometer import Odometer
from fs_storage.engine.recovery import Recovered, replay
from fs_storage.engine.slots import Slots
from fs_storage.engine.syncing import Syncs
from fs_storage.engine.table import Table
from fs_storage.engine.transitions import blocks_of
from fs_storage.engine.versions import NOTHING, Record

logger = logging.getLogger(__name__)

LOG_STEPS_MAX = 8
"""A log this long (64 MiB on any but small disks) is half a second to replay and a second's worth of small writes."""
_KEY_MAX = b"\xff" * 12


@dataclass(frozen=True, slots=True)
class Settings:
    target: int
    capacity_bytes: int
    records_cached: int
    checkpoint_interval_s: float
    make: bool
    """Make the store if there is none."""


@dataclass(slots=True)
class Opened:
    """The parts of an open target."""

    settings: Settings
    lock_file: int
    log: RedoLog
    log_bytes_max: int
    """A log this large calls for a checkpoint."""
    blocks: BlockFiles
    index: Index
    table: Table
    slots: Slots
    recovered: Recovered
    mark: MarkFile
    syncs: Syncs
    odometer: Odometer

    def close(self, disk: Disk) -> None:
        """Release everything. Nobody reads or writes any more."""
        self.index.close()
        self.blocks.close()
        self.log.close()
        disk.close(self.lock_file)


def expiry(now: int, *, whole: bool) -> Expiry:
    """A store that is not whole forgets nothing: others of its chain may have lost the removal that it remembers, and
    learn of it from here when all of them are back, however long that takes."""
    return Expiry(now, now - TOMBSTONE_S, now - ANSWER_S) if whole else Expiry(now, 0, 0)


def open_target(
    disk: Disk,
    directory: Path,
    settings: Settings,
    open_index: Callable[[Path], Index] | None,
    clock: Callable[[], float],
) -> Opened:
    """See `store.open_store`, whose errors these are."""
    undo: list[Callable[[], None]] = []
    try:
        return _open(disk, directory, settings, open_index, clock, undo)
    except BaseException as error:
        for step in reversed(undo):
            step()
        if isinstance(error, LogDamaged | IndexDamaged):
            raise EmberError(Code.DISK_FAILED, f"{directory}: {error}") from error
        if isinstance(error, OSError) and not isinstance(error, EmberError):
            code = Code.NO_SPACE if error.errno == errno.ENOSPC else Code.DISK_FAILED
            raise EmberError(code, f"{directory} cannot be opened: {error}") from error
        raise


def _open(
    disk: Disk,
    directory: Path,
    settings: Settings,
    open_index: Callable[[Path], Index] | None,
    clock: Callable[[], float],
    undo: list[Callable[[], None]],
) -> Opened:
    if not settings.make and not has_store(disk, directory):
        raise NoStore(f"{directory} has no store")
    lock_file = lock_directory(disk, directory)
    undo.append(lambda: disk.close(lock_file))
    marker, found = open_directory(disk, directory, settings.target)
    mark = MarkFile(disk, directory, found)
    if found.failed:
        for name in (BLOCKS, INDEX, LOG):
            _forget_cached(disk, directory / name)
    syncs = Syncs(disk, mark.fail)
    total = disk.space(directory).total_bytes
    if open_index is not None:
        index = open_index(directory / INDEX)
    else:
        undo.append(lambda: index_guard.end(disk, directory))
        index_guard.begin(disk, directory, directory / INDEX)
        index = LmdbIndex(directory / INDEX, max(4 << 30, total // 16) & -4096)
    undo.append(index.close)
    index.reserve()
    blocks = BlockFiles(disk, syncs, directory / BLOCKS, marker.file_bytes)
    undo.append(blocks.close)
    units = blocks.open()
    log = RedoLog(disk, syncs, directory / LOG, settings.target, marker.log_step_bytes)
    undo.append(log.close)
    log.open()
    disk.probe(log.files[0])
    recovered = replay(disk, index, log, blocks.locate, believed=not found.failed)
    boot = disk.boot_id()
    if found.boot == NO_BOOT:
        # The log knows, until recovery has begun a new one.
        mark.found_boot(min(recovered.boots - {boot}, default=boot))
    odometer = Odometer(max(1, index.odometer(), _newest(recovered)), clock)
    scan = _scan(index, blocks, recovered)
    try:
        whole = opened_mark(mark.mark, boot).whole
        _finish_recovery(disk, index, log, blocks, recovered, scan, expiry(odometer.now(), whole=whole))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            mark.fail()
        raise
    # Only now: a crash before leaves the mark of the life before, and the next opening judges by it again.
    mark.open(boot)
    if open_index is None:
        index_guard.end(disk, directory)
    slots = Slots(settings.capacity_bytes)
    slots.restore(units, scan.taken)
    table = Table(index, blocks.locate, settings.records_cached)
    table.pending = scan.pending
    table.chunks = scan.chunks
    log_bytes_max = marker.log_step_bytes * LOG_STEPS_MAX
    return Opened(
        settings, lock_file, log, log_bytes_max, blocks, index, table, slots, recovered, mark, syncs, odometer
    )


def _forget_cached(disk: Disk, directory: Path) -> None:
    """What is read from here on is what the disk has. Raises `OSError` if it still does not take what it is given."""
    for name in disk.list_directory(directory):
        file = disk.open(directory / name)
        try:
            disk.sync(file)
            disk.forget_cached(file)
        finally:
            disk.close(file)


def _newest(recovered: Recovered) -> int:
    """What the odometer showed when the newest of it was decided."""
    removed = (record.committed.removed_at for record in recovered.records.values() if record.committed is not None)
    return max(*removed, *(answer.when for answer in recovered.answers.values()), 0, 0)


@dataclass(slots=True)
class _Scan:
    """What all records together say."""

    taken: dict[int, set[int]]
    """By class, the slots that versions own."""
    pending: set[bytes]
    chunks: int
    patched: dict[bytes, Record]
    """Records whose committed version has patches."""


def _scan(index: Index, blocks: BlockFiles, recovered: Recovered) -> _Scan:
    """Raises `InvariantViolation` if a block has two owners."""
    scan = _Scan({}, set(), 0, {})
    changed = recovered.records
    for chunk, value in index.scan(b"", _KEY_MAX):
        if chunk in changed:
            continue
        seen = glance(value)
        if seen.unsettled:
            _count(scan, chunk, decode_record(value, blocks.locate))
            continue
        if seen.present:
            scan.chunks += 1
            if seen.size_class:
                _own(scan, chunk, seen.size_class, seen.slot)
    for chunk, record in changed.items():
        _count(scan, chunk, record)
    return scan


def _count(scan: _Scan, chunk: bytes, record: Record) -> None:
    committed, pending, _ = record
    if committed is not None and not committed.removed:
        scan.chunks += 1
    if committed is not None and committed.patches:
        scan.patched[chunk] = record
    if pending is not None:
        scan.pending.add(chunk)
    for size_class, slot in {(block.size_class, block.slot) for block in blocks_of(record)}:
        _own(scan, chunk, size_class, slot)


def _own(scan: _Scan, chunk: bytes, size_class: int, slot: int) -> None:
    owned = scan.taken.setdefault(size_class, set())
    check(slot not in owned, "a block has one owner", chunk.hex(), size_class, slot)
    owned.add(slot)


def _finish_recovery(
    disk: Disk,
    index: Index,
    log: RedoLog,
    blocks: BlockFiles,
    recovered: Recovered,
    scan: _Scan,
    expiry: Expiry,
) -> None:
    """Steps 3 and 4 of `recovery`."""
    records = dict(recovered.records)
    sequence = max(recovered.sequence, log.highest)
    if recovered.frames:
        # Patches end the life of the bytes under them, so what they come from must be durable first.
        log.sync_files()
        # The storage of a unit may be lost where none of its bytes were durable.
        for size_class, slots in scan.taken.items():
            for unit in {slot // unit_slots(size_class) for slot in slots}:
                if not blocks.is_backed(size_class, unit):
                    blocks.back(size_class, unit)
        blocks.sync_all()
    for chunk, record in scan.patched.items():
        committed = record.committed
        assert committed is not None and committed.block is not None
        for offset, data in committed.patches:
            disk.write(committed.block.file.fd, (data,), committed.block.position + offset)
        pending = record.pending
        if pending is not None and pending.block == committed.block:
            pending = pending._replace(patches=pending.patches[len(committed.patches) :])
        records[chunk] = Record(committed._replace(patches=()), pending, record.identity)
    if recovered.frames or scan.patched:
        blocks.sync_all()
        logger.info(
            "recovered %d chunks from %d log frames; %d bytes verified, %d versions dropped",
            len(recovered.records),
            recovered.frames,
            recovered.verified_bytes,
            recovered.dropped,
        )
    if records or recovered.answers or sequence != index.sequence():
        encoded = {
            chunk: None if record[:2] == NOTHING[:2] else encode_record(record) for chunk, record in records.items()
        }
        index.apply(encoded, recovered.answers, sequence, expiry)
    log.begin(sequence)
