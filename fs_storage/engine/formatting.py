"""What a target's directory looks like, and making a new one.

    target.json    which target this is, and what cannot change: the marker of a formatted directory
    lock           held (flock) by the process that has the target open
    blocks/        block files (`blocks`)
    index/         the index (`index`)
    log/           the redo log (`log`)
    formatting     present only while a directory is being made

Steps of formatting; the commit point is 3:

    1  `formatting` is made. A crash leaves a directory that is ours and has nothing of value.
    2  directories and log files are made and synced. The same.
    3  `target.json` is renamed into place. From here on the target exists, empty.
    4  `formatting` is removed. A crash before leaves a file that the next opening removes.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from fs_common.errors import Code, EmberError
from fs_storage.engine.blocks import FILE_BYTES
from fs_storage.engine.disk import Disk
from fs_storage.engine.log import format_log

FORMAT = 1
MARKER = "target.json"
LOCK = "lock"
FORMATTING = "formatting"
BLOCKS = "blocks"
INDEX = "index"
LOG = "log"
_MARKER_NEW = "target.json.new"
_OURS = {MARKER, _MARKER_NEW, LOCK, FORMATTING, BLOCKS, INDEX, LOG}
_LOG_STEP_BYTES_MIN = 1 << 20
_LOG_STEP_BYTES_MAX = 8 << 20


@dataclass(frozen=True, slots=True)
class Marker:
    """What `target.json` holds."""

    target: int
    file_bytes: int
    """Of a full block file; a power of two."""
    log_step_bytes: int


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


def open_directory(disk: Disk, directory: Path, target: int) -> Marker:
    """Format the directory if it is empty; returns its marker. The caller holds the lock."""
    names = set(disk.list_directory(directory))
    if MARKER not in names:
        _format(disk, directory, target, names)
    else:
        if FORMATTING in names:
            disk.remove(directory / FORMATTING)
        # The process that renamed the marker into place may have died before that was durable.
        disk.sync_directory(directory)
    marker = _read_marker(disk, directory)
    if marker.target != target:
        raise EmberError(Code.INVALID, f"{directory} holds target {marker.target}, not {target}")
    return marker


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
    text = json.dumps({"format": FORMAT, "target": target, "file_bytes": FILE_BYTES, "log_step_bytes": step}) + "\n"
    file = disk.open(directory / _MARKER_NEW, create=True)
    try:
        disk.truncate(file, 0)
        disk.write(file, [text.encode()], 0)
        disk.sync(file)
    finally:
        disk.close(file)
    disk.rename(directory / _MARKER_NEW, directory / MARKER)
    disk.sync_directory(directory)
    disk.remove(directory / FORMATTING)
    disk.sync_directory(directory)


def _read_marker(disk: Disk, directory: Path) -> Marker:
    path = directory / MARKER
    file = disk.open(path)
    try:
        data = bytearray(disk.size(file))
        disk.read(file, (data,), 0)
    finally:
        disk.close(file)
    try:
        found = json.loads(data)
        form = found["format"]
        marker = Marker(int(found["target"]), int(found["file_bytes"]), int(found["log_step_bytes"]))
    except (ValueError, KeyError, TypeError) as error:
        raise EmberError(Code.DISK_FAILED, f"{path} is damaged: {error}") from None
    if form != FORMAT:
        raise EmberError(Code.INVALID, f"{path} has format {form}, this program knows {FORMAT}; upgrade it")
    return marker
