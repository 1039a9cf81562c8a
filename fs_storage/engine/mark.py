"""The mark of a target: which store this is, and whether what it holds can be believed. `mark.json` in its directory.

Two lines of text:

    line  content
    1     a JSON object with the keys of `Mark`, uuid and boot in hexadecimal, and "format"
    2     CRC32C of line 1 without its end, 8 hexadecimal digits

The whole file is replaced at each change: written to `mark.json.new`, synced, renamed (the commit point), and the
directory synced. When, and what it says then:

    event               opening  incarnation  whole          clean  failed
    formatting          0        1            yes            yes    no
    opening             + 1      + 1 if lost  no if lost     no     no
    a failed sync       same     same         same           no     yes
    `declare_whole`     same     same         yes            same   same
    `declare_filled`    same     + 1          yes            same   same
    `renew`             raised   raised       no             same   same
    closing in order    same     same         same           yes    same

*Lost*: the store was not closed in order and the machine has been started since (so the page cache is gone), or a write
or sync had failed (so the page cache says what the disk does not have). A process that dies loses nothing.

What a crash leaves:

* before the rename: the mark as it was. At an opening that is the mark of the life before, which the next opening
  judges again: nothing was served yet.
* after it, before the directory's sync: the old or the new mark, and another boot. The new one says that it is not
  clean and names the boot before; so does the old one, unless it was clean, and then nothing was written since.
* the mark of a failed sync not written, as the disk takes nothing at all any more: the same boot would believe the page
  cache. So it is renamed into place even if its own sync fails: this boot sees it, and another boot has lost the page
  cache anyway.

Page: `docs/concurrency/engine.md`.
"""

import json
import logging
import threading
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from crc32c import crc32c

from fs_common.errors import Code, EmberError
from fs_storage.engine.disk import Disk
from fs_storage.engine.whole_files import read_file, replace_file

logger = logging.getLogger(__name__)

FORMAT = 1
NAME = "mark.json"
NEW = "mark.json.new"
NO_BOOT = bytes(16)
"""Of a store that was made before there were marks."""


@dataclass(frozen=True, slots=True)
class Mark:
    target: int
    uuid: bytes
    """16 bytes, made once with the store."""
    opening: int
    """Grows with every opening, durably before anything is served."""
    incarnation: int
    """Grows with every opening that may have lost something that was acknowledged, and whenever it was filled up."""
    boot: bytes
    """Of the machine when the store was opened last; `NO_BOOT`: not known."""
    clean: bool
    """Closed in order: everything is on the disk."""
    failed: bool
    """A write or a sync failed: what the page cache holds may not be on the disk."""
    whole: bool
    """Holds everything that was acknowledged by it, or its chain has given it back."""


def new_mark(target: int, boot: bytes) -> Mark:
    """Of a store that is being made."""
    return Mark(target, uuid.uuid4().bytes, 0, 1, boot, clean=True, failed=False, whole=True)


def unknown_mark(target: int) -> Mark:
    """Of a store from before there were marks: nobody noted how it was closed."""
    return Mark(target, uuid.uuid4().bytes, 0, 1, NO_BOOT, clean=False, failed=False, whole=True)


def opened(mark: Mark, boot: bytes) -> Mark:
    """The mark of an opening in `boot`, after `mark`."""
    lost = mark.failed or (not mark.clean and mark.boot != boot)
    return replace(
        mark,
        opening=mark.opening + 1,
        incarnation=mark.incarnation + lost,
        boot=boot,
        clean=False,
        failed=False,
        whole=mark.whole and not lost,
    )


def encode(mark: Mark) -> bytes:
    fields = asdict(mark) | {"uuid": mark.uuid.hex(), "boot": mark.boot.hex()}
    line = json.dumps({"format": FORMAT, **fields}).encode()
    return b"%s\n%08x\n" % (line, crc32c(line))


def decode(data: bytes, path: Path) -> Mark:
    """Raises DISK_FAILED, or INVALID for a newer format; the message names `path`."""
    line, _, rest = data.partition(b"\n")
    if rest.strip() != b"%08x" % crc32c(line):
        raise EmberError(Code.DISK_FAILED, f"{path} is damaged: its checksum does not match")
    try:
        fields = json.loads(line)
        form = fields.pop("format")
        if form != FORMAT:
            raise EmberError(Code.INVALID, f"{path} has format {form}, this program knows {FORMAT}; upgrade it")
        for name in ("uuid", "boot"):
            fields[name] = bytes.fromhex(fields[name])
        mark = Mark(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EmberError(Code.DISK_FAILED, f"{path} is damaged: {error}") from None
    if len(mark.uuid) != 16 or len(mark.boot) != 16:
        raise EmberError(Code.DISK_FAILED, f"{path} is damaged: uuid and boot are 16 bytes")
    return mark


def read_mark(disk: Disk, directory: Path, target: int) -> Mark:
    """Raises `OSError`, DISK_FAILED, INVALID."""
    path = directory / NAME
    mark = decode(read_file(disk, path), path)
    if mark.target != target:
        raise EmberError(Code.INVALID, f"{path} is the mark of target {mark.target}, not of {target}")
    return mark


def write_mark(disk: Disk, directory: Path, mark: Mark) -> None:
    """Durable on return. Raises `OSError`."""
    replace_file(disk, directory, NAME, encode(mark))


class MarkFile:
    """The mark of a store in this process's hands. Changes come from the event loop and from the threads that meet a
    failure, one at a time: `_lock` is held while the file is replaced."""

    def __init__(self, disk: Disk, directory: Path, mark: Mark) -> None:
        self._disk = disk
        self._directory = directory
        self._lock = threading.Lock()
        self.mark = mark

    def fail(self) -> None:
        """A write or sync has failed. Raises nothing: what is known is kept as well as this disk can."""
        with self._lock:
            if self.mark.failed:
                return
            self.mark = replace(self.mark, clean=False, failed=True)
            try:
                replace_file(self._disk, self._directory, NAME, encode(self.mark), although_unsynced=True)
            except OSError as error:
                logger.error(
                    "%s: that a sync failed cannot be noted (%s): do not open this target again before the machine "
                    "was started anew",
                    self._directory,
                    error.strerror or error,
                )

    def found_boot(self, boot: bytes) -> None:
        """That was the boot of a store from before there were marks. Raises `OSError`."""
        self._change(boot=boot)

    def open(self, boot: bytes) -> None:
        """Recovery is done: a new opening. Only now, so that a crash before leaves the mark of the life before, by
        which the next opening judges again. Raises `OSError`."""
        with self._lock:
            mark = opened(self.mark, boot)
            write_mark(self._disk, self._directory, mark)
            self.mark = mark

    def close(self) -> None:
        """Everything is on the disk, and nothing is written any more. Raises nothing: a mark that stays as it was only
        makes the next opening more careful."""
        try:
            self._change(clean=True)
        except OSError as error:
            logger.warning("%s: cannot note that it was closed in order: %s", self._directory, error)

    def declare_whole(self) -> None:
        """Raises `OSError`."""
        self._change(whole=True)

    def declare_filled(self) -> None:
        """Raises `OSError`."""
        self._change(whole=True, incarnation=self.mark.incarnation + 1)

    def renew(self, opening: int, incarnation: int) -> None:
        """Counters go past what was known of this store elsewhere, and it is not whole. Raises `OSError`."""
        mark = self.mark
        self._change(
            opening=max(mark.opening, opening) + 1,
            incarnation=max(mark.incarnation, incarnation) + 1,
            whole=False,
        )

    def _change(self, **fields: int | bool | bytes) -> None:
        with self._lock:
            if self.mark.failed:
                return  # a store whose disk failed says nothing better of itself
            changed = replace(self.mark, **fields)  # type: ignore[arg-type]
            write_mark(self._disk, self._directory, changed)
            self.mark = changed
