"""The directory of an embedded store: who may open it, and what it must look like.

    DIR/lock          flock held by the process that has the store open
    DIR/data.mdb      LMDB's data (and DIR/lock.mdb, its reader table): the checkpoint
    DIR/journal.0     what has changed since; see `fs_meta.kv.journal`
    DIR/journal.1
    DIR/FORMAT        one line: `emberfs-kv <version>`; written last
    DIR/failed        there from a write or sync that failed until an opening has read what the disk really has

`failed` is empty and is not synced: it is for the next process in the same boot, whose page cache may say what the disk
does not have. In another boot there is no such cache.

Creation: 1. make the directory, 2. take the lock, 3. LMDB makes `data.mdb` (no transaction yet), 4. make the journal's
files, 5. write `FORMAT` (temporary file, sync, rename, sync of the directory): the commit point. A crash before it
leaves a directory without `FORMAT` whose data file has no transaction in it: the next open finishes the creation, with
a journal made anew. A data file with transactions and no `FORMAT` is not ours to guess about: refused.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from fs_common.errors import Code, EmberError

FORMAT_VERSION = 2
_FORMAT_FILE = "FORMAT"
_FORMAT_WORD = "emberfs-kv"
DATA_FILE = "data.mdb"
NEW_CLUSTER = "mount its disk or restore it; a new cluster is made once, with --format"
_FAILED_FILE = "failed"


class StoreDirectory:
    """A locked directory. `close` gives the lock back."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd: int | None = lock_fd

    @property
    def has_format(self) -> bool:
        return (self.path / _FORMAT_FILE).exists()

    @property
    def has_failed(self) -> bool:
        """A write or sync failed in the life before: what the page cache holds may not be on the disk."""
        return (self.path / _FAILED_FILE).exists()

    def note_failure(self) -> None:
        """From any thread. Raises nothing: if this disk takes no name either, there is nothing that could be done."""
        with contextlib.suppress(OSError):
            (self.path / _FAILED_FILE).touch()

    def forget_failure(self) -> None:
        """What the disk really has was read, and is believed."""
        (self.path / _FAILED_FILE).unlink(missing_ok=True)

    def check_format(self) -> None:
        """Refuse a directory of another format (INVALID)."""
        text = (self.path / _FORMAT_FILE).read_text(encoding="utf-8", errors="replace").strip()
        if text != f"{_FORMAT_WORD} {FORMAT_VERSION}":
            raise EmberError(
                Code.INVALID,
                f"metadata store {self.path} has format {text[:60]!r}, this release reads "
                f"'{_FORMAT_WORD} {FORMAT_VERSION}': use the release that wrote it",
            )

    def check_files(self, names: Iterable[str]) -> None:
        """Refuse a directory that has lost one of its files (INVALID)."""
        for name in names:
            if not (self.path / name).exists():
                raise EmberError(
                    Code.INVALID, f"metadata store {self.path} has lost its {name}: restore it from a backup"
                )

    def write_format(self) -> None:
        """The commit point of the store's creation; durable on return."""
        temporary = self.path / (_FORMAT_FILE + ".new")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(f"{_FORMAT_WORD} {FORMAT_VERSION}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path / _FORMAT_FILE)
        _sync_directory(self.path)

    def close(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


def require_store(path: Path) -> None:
    """Refuse a directory in which no store was made (INVALID), and touch nothing."""
    if not (path / _FORMAT_FILE).exists():
        what = "is empty" if not path.exists() or not os.listdir(path) else f"has no {_FORMAT_FILE}"
        raise EmberError(Code.INVALID, f"metadata store {path} {what}: {NEW_CLUSTER}")


def open_directory(path: Path) -> StoreDirectory:
    """Make the directory if it is missing and lock it. INVALID: not a directory, not writable; BUSY: it is open."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        _sync_directory(path.parent)
        lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EmberError(Code.INVALID, f"metadata store {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock_fd)
        raise EmberError(
            Code.BUSY, f"metadata store {path} is open in another process: stop that one, or use another directory"
        ) from error
    return StoreDirectory(path, lock_fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
