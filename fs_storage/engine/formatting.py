"""What a target's directory looks like, and making a new one.

    target.json    which target and store this is, and what cannot change: the marker of a formatted directory
    mark.json      whether what the store holds can be believed (`mark`)
    lock           held (flock) by the process that has the target open
    blocks/        block files (`blocks`)
    index/         the index (`index`)
    log/           the redo log (`log`)
    formatting     present only while a directory is being made

Steps of formatting; the commit point is 3:

    1  `formatting` is made. A crash leaves a directory that is ours and has nothing of value.
    2  directories, log files and the mark are made and synced. The same.
    3  `target.json` is renamed into place. From here on the target exists, empty.
    4  `formatting` is removed. A crash before leaves a file that the next opening removes.

Format 1 had no mark and no uuid. Such a directory is taken over: a mark of which nothing is known is made, then
`target.json` is replaced (the commit point). A crash between leaves format 1 with a mark, whose uuid the next opening
takes. An older program refuses format 2, as it would not keep the mark.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fs_common.errors import Code, EmberError
from fs_storage.engine.blocks import FILE_BYTES
from fs_storage.engine.disk import Disk
from fs_storage.engine.log import format_log
from fs_storage.engine.mark import NAME as MARK
from fs_storage.engine.mark import Mark, new_mark, read_mark, unknown_mark, write_mark
from fs_storage.engine.whole_files import read_file, replace_file

FORMAT = 2
MARKER = "target.json"
LOCK = "lock"
FORMATTING = "formatting"
BLOCKS = "blocks"
INDEX = "index"
LOG = "log"
_RESTORE = "restore the target from its other replicas"
_LOG_STEP_BYTES_MIN = 1 << 20
_LOG_STEP_BYTES_MAX = 8 << 20


@dataclass(frozen=True, slots=True)
class Marker:
    """What `target.json` holds."""

    target: int
    uuid: bytes
    """16 bytes."""
    file_bytes: int
    """Of a full block file; a power of two."""
    log_step_bytes: int


def has_store(disk: Disk, directory: Path) -> bool:
    """There is one, or something else that is not ours to make one over."""
    try:
        names = set(disk.list_directory(directory))
    except FileNotFoundError:
        return False
    return MARKER in names or (FORMATTING not in names and bool(names - {LOCK}))


def lock_directory(disk: Disk, directory: Path) -> int:
    """The descriptor that holds the lock. Raises BUSY, or INVALID for a directory that is not ours to touch."""
    disk.make_directory(directory)
    names = set(disk.list_directory(directory))
    if MARKER not in names and FORMATTING not in names and names - {LOCK}:
        found = ", ".join(sorted(names - {LOCK})[:3])
        raise EmberError(
            Code.INVALID,
            f"{directory} is not a target of EmberFS ({MARKER} is missing, {found} is there); name an empty directory",
        )
    file = disk.open(directory / LOCK, create=True)
    try:
        disk.lock(file)
    except BlockingIOError:
        disk.close(file)
        raise EmberError(Code.BUSY, f"{directory} is open in another process; stop that first") from None
    except BaseException:
        disk.close(file)
        raise
    return file


def open_directory(disk: Disk, directory: Path, target: int) -> tuple[Marker, Mark]:
    """Format the directory if it is empty; returns what it says of itself. The caller holds the lock."""
    names = set(disk.list_directory(directory))
    if MARKER not in names:
        _format(disk, directory, target, names)
    else:
        if FORMATTING in names:
            disk.remove(directory / FORMATTING)
        # The process that renamed the marker into place may have died before that was durable.
        disk.sync_directory(directory)
    form, marker = _read_marker(disk, directory)
    if marker.target != target:
        raise EmberError(Code.INVALID, f"{directory} holds target {marker.target}, not {target}")
    if form == 1:
        return _take_over(disk, directory, marker)
    if MARK not in names and MARKER in names:
        raise EmberError(Code.DISK_FAILED, f"{directory} has no {MARK}: what it holds cannot be believed; {_RESTORE}")
    mark = read_mark(disk, directory, target)
    if mark.uuid != marker.uuid:
        raise EmberError(Code.DISK_FAILED, f"{directory / MARK} is the mark of another store; {_RESTORE}")
    return marker, mark


def _format(disk: Disk, directory: Path, target: int, names: set[str]) -> None:
    disk.close(disk.open(directory / FORMATTING, create=True))
    disk.sync_directory(directory)
    for name in (BLOCKS, INDEX, LOG):
        if name in names:
            for leftover in disk.list_directory(directory / name):
                disk.remove(directory / name / leftover)
        disk.make_directory(directory / name)
    total = disk.space(directory).total_bytes
    step = min(max(total >> 8, _LOG_STEP_BYTES_MIN), _LOG_STEP_BYTES_MAX) & -_LOG_STEP_BYTES_MIN
    format_log(disk, directory / LOG, target, step)
    mark = new_mark(target, disk.boot_id())
    write_mark(disk, directory, mark)
    replace_file(disk, directory, MARKER, _encode(Marker(target, mark.uuid, FILE_BYTES, step)))
    disk.remove(directory / FORMATTING)
    disk.sync_directory(directory)


def _take_over(disk: Disk, directory: Path, marker: Marker) -> tuple[Marker, Mark]:
    """A directory of format 1 becomes one of this format."""
    target = marker.target
    try:
        mark = read_mark(disk, directory, target)
    except FileNotFoundError:
        mark = unknown_mark(target)
        write_mark(disk, directory, mark)
    marker = replace(marker, uuid=mark.uuid)
    replace_file(disk, directory, MARKER, _encode(marker))
    return marker, mark


def _encode(marker: Marker) -> bytes:
    fields = asdict(marker) | {"uuid": marker.uuid.hex()}
    return json.dumps({"format": FORMAT, **fields}).encode() + b"\n"


def _read_marker(disk: Disk, directory: Path) -> tuple[int, Marker]:
    """Its format, and what it says; a uuid of zeros where the format has none."""
    path = directory / MARKER
    try:
        found = json.loads(read_file(disk, path))
        form = found["format"]
        if form not in (1, FORMAT):
            raise EmberError(Code.INVALID, f"{path} has format {form}, this program knows {FORMAT}; upgrade it")
        uuid = bytes.fromhex(found["uuid"]) if form == FORMAT else bytes(16)
        marker = Marker(int(found["target"]), uuid, int(found["file_bytes"]), int(found["log_step_bytes"]))
    except (ValueError, KeyError, TypeError) as error:
        raise EmberError(Code.DISK_FAILED, f"{path} is damaged: {error}") from None
    return form, marker
