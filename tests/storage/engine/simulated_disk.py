"""A disk that loses what was not synced, and an index on it.

What a crash leaves, each chosen by the seed:

* of a write since the last sync of its file: nothing, all of it, a prefix, or some of its 512-byte sectors; each
  write by itself, so later ones may be there and earlier ones not;
* of a change of a file's size since then: the old or the new one;
* of a name made or removed since the last sync of its directory: either.

A process that dies leaves everything. An `apply` of the index is all or nothing.

A sync that fails because the device does not take the bytes is told once; their pages are clean from then on, and read
back until they are forgotten (`lose_syncs_of`). What is written to such a page later takes all of it to the device.
"""

import errno
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fs_storage.engine.disk import NO_WAIT, Bytes, FileSystemSpace
from fs_storage.engine.index import Expiry
from fs_storage.engine.index_format import StoredAnswer, glance

PAGE = 4096
SECTOR = 512


class _File:
    def __init__(self) -> None:
        self.pages: dict[int, bytes] = {}
        """What a read sees."""
        self.size = 0
        self.durable_pages: dict[int, bytes] = {}
        self.durable_size = 0
        self.writes: list[tuple[int, bytes]] = []
        """Since the last sync."""
        self.refused: set[int] = set()
        """Pages that the device did not take and the page cache calls clean."""
        self.allocated: set[int] = set()
        """Pages that have storage."""

    def put(self, offset: int, data: bytes) -> None:
        _put(self.pages, offset, data)
        self.size = max(self.size, offset + len(data))

    def get(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        if length == 0:
            return b""
        first, last = offset // PAGE, (offset + length - 1) // PAGE
        data = b"".join(self.pages.get(page, bytes(PAGE)) for page in range(first, last + 1))
        return data[offset - first * PAGE : offset - first * PAGE + length]

    def sync(self) -> None:
        kept = {page: self.durable_pages[page] for page in self.refused & self.durable_pages.keys()}
        self.durable_pages = {page: data for page, data in self.pages.items() if page not in self.refused} | kept
        self.durable_size = self.size
        self.writes = []

    def refuse(self) -> None:
        """A sync that fails."""
        for offset, data in self.writes:
            self.refused.update(_pages(offset, len(data)))
        self.writes = []

    def forget(self) -> None:
        assert not self.writes, "synced before"
        for page in self.refused:
            if page in self.durable_pages:
                self.pages[page] = self.durable_pages[page]
            else:
                self.pages.pop(page, None)
        self.refused.clear()


def _pages(offset: int, length: int) -> range:
    return range(offset // PAGE, (offset + length - 1) // PAGE + 1) if length else range(0)


def _put(pages: dict[int, bytes], offset: int, data: bytes) -> None:
    position = 0
    while position < len(data):
        page, within = divmod(offset + position, PAGE)
        piece = data[position : position + PAGE - within]
        old = pages.get(page, bytes(PAGE))
        pages[page] = old[:within] + piece + old[within + len(piece) :]
        position += len(piece)


class SimulatedDisk:
    """Implements `engine.disk.Disk`."""

    def __init__(self, total_bytes: int = 1 << 30, boot: int = 1) -> None:
        self.total_bytes = total_bytes
        self.boot = boot
        self.files: dict[Path, _File] = {}
        self.durable_files: dict[Path, _File] = {}
        """Names as a crash may leave them: changed by `sync_directory`."""
        self.index = IndexState()
        self.steps = 0
        """Changes and syncs so far."""
        self.crash_at: int | None = None
        """From this step on nothing works: the machine (or the process) is dead."""
        self.tear = random.Random(0)
        """Decides how much of the write that the crash hits is done."""
        self.fail_syncs = False
        self.fail_writes = False
        self.lose_syncs_of: set[str] = set()
        """The next sync of a file of such a name fails, once, and its bytes never reach the device."""
        self.forgotten = 0
        """Files whose cached pages were forgotten."""
        self.unreadable: set[str] = set()
        """Names of files that cannot be read (EIO)."""
        self.uncached: set[str] = set()
        """Names of files that are not in the page cache until they are read."""
        self._open: dict[int, tuple[Path, _File]] = {}
        self._locked: dict[Path, int] = {}
        self._next = 3

    # -- crash -------------------------------------------------------------------------------------------------

    @property
    def dead(self) -> bool:
        return self.crash_at is not None and self.steps >= self.crash_at

    def _step(self) -> None:
        self.steps += 1
        self._alive()

    def _alive(self) -> None:
        if self.dead:
            raise OSError(errno.EIO, "the machine is dead")

    def after_power_loss(self, seed: int) -> "SimulatedDisk":
        """The disk as the machine finds it when it comes up again."""
        choose = random.Random(seed)
        disk = SimulatedDisk(self.total_bytes, self.boot + 1)
        disk.index = self.index.copy()
        for path in sorted({*self.files, *self.durable_files}):
            candidates = [names[path] for names in (self.files, self.durable_files) if path in names]
            if path not in self.durable_files and choose.random() < 0.5:
                continue
            old = candidates[choose.randrange(len(candidates))]
            new = disk.files[path] = _File()
            new.pages = dict(old.durable_pages)
            new.size = old.size if choose.random() < 0.5 else old.durable_size
            for offset, data in old.writes:
                for start, piece in _survivors(choose, data):
                    _put(new.pages, offset + start, piece)
                    new.size = max(new.size, offset + start + len(piece))
            new.allocated = set(old.allocated)
            new.sync()
        disk.durable_files = dict(disk.files)
        return disk

    def after_process_death(self) -> "SimulatedDisk":
        disk = SimulatedDisk(self.total_bytes, self.boot)
        disk.index = self.index.copy()
        disk.files = self.files
        disk.durable_files = self.durable_files
        return disk

    # -- Disk --------------------------------------------------------------------------------------------------

    def probe(self, file: int) -> None:
        pass

    def boot_id(self) -> bytes:
        return self.boot.to_bytes(16, "big")

    def exists(self, path: Path) -> bool:
        return path in self.files

    def list_directory(self, path: Path) -> list[str]:
        found = {child.relative_to(path).parts[0] for child in self.files if child.is_relative_to(path)}
        return sorted(found)

    def make_directory(self, path: Path) -> None:
        pass

    def open(self, path: Path, *, create: bool = False) -> int:
        self._alive()
        if path not in self.files:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            self._step()
            self.files[path] = _File()
        self._next += 1
        self._open[self._next] = (path, self.files[path])
        return self._next

    def close(self, file: int) -> None:
        path, _ = self._open.pop(file)
        if self._locked.get(path) == file:
            del self._locked[path]

    def size(self, file: int) -> int:
        return self._open[file][1].size

    def read(self, file: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
        path, content = self._open[file]
        if path.name in self.unreadable:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if path.name in self.uncached:
            if flags & NO_WAIT:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self.uncached.discard(path.name)
        total = 0
        for buffer in buffers:
            data = content.get(offset, len(buffer))
            memoryview(buffer)[: len(data)] = data
            offset += len(data)
            total += len(data)
        return total

    def allocated_bytes(self, file: int) -> int:
        return len(self._open[file][1].allocated) * PAGE

    def check_place(self, file: int, path: Path) -> None:
        if self.files.get(path) is not self._open[file][1]:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))

    def read_stored(self, file: int, buffer: memoryview, offset: int) -> int:
        assert offset % PAGE == 0
        return self.read(file, (buffer,), offset)

    def cached(self, file: int, offset: int, length: int) -> bool:
        return self._open[file][0].name not in self.uncached

    def write(self, file: int, parts: Sequence[Bytes], offset: int) -> None:
        data = b"".join(parts)
        content = self._open[file][1]
        if self.fail_writes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._allocate(content, offset, len(data))
        self.steps += 1
        if self.dead:
            if self.steps == self.crash_at:
                data = data[: self.tear.randrange(len(data) + 1)]
                content.put(offset, data)
                content.writes.append((offset, data))
            raise OSError(errno.EIO, "the machine is dead")
        content.put(offset, data)
        content.writes.append((offset, data))
        content.refused.difference_update(_pages(offset, len(data)))

    def start_writeback(self, file: int, offset: int, length: int) -> None:
        pass

    def allocate(self, file: int, offset: int, length: int) -> None:
        content = self._open[file][1]
        self._step()
        self._allocate(content, offset, length)
        content.size = max(content.size, offset + length)

    def _allocate(self, content: _File, offset: int, length: int) -> None:
        if length == 0:
            return
        new = set(_pages(offset, length)) - content.allocated
        if new and self._used() + len(new) * PAGE > self.total_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        content.allocated |= new

    def punch(self, file: int, offset: int, length: int) -> None:
        self._step()
        content = self._open[file][1]
        for page in range(offset // PAGE, (offset + length) // PAGE):
            content.pages.pop(page, None)
            content.durable_pages.pop(page, None)
            content.allocated.discard(page)
        content.writes = [
            (at, data) for at, data in content.writes if at + len(data) <= offset or at >= offset + length
        ]

    def truncate(self, file: int, length: int) -> None:
        self._step()
        content = self._open[file][1]
        content.pages = {page: data for page, data in content.pages.items() if page * PAGE < length}
        content.size = length

    def sync(self, file: int) -> None:
        if self.fail_syncs:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._step()
        path, content = self._open[file]
        if path.name in self.lose_syncs_of:
            self.lose_syncs_of.discard(path.name)
            content.refuse()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        content.sync()

    def forget_cached(self, file: int) -> None:
        self._open[file][1].forget()
        self.forgotten += 1

    def sync_directory(self, path: Path) -> None:
        self._step()
        for child in {*self.files, *self.durable_files}:
            if child.parent == path:
                if child in self.files:
                    self.durable_files[child] = self.files[child]
                else:
                    del self.durable_files[child]

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        self.files[target] = self.files.pop(source)

    def remove(self, path: Path) -> None:
        self._step()
        del self.files[path]

    def lock(self, file: int) -> None:
        path, _ = self._open[file]
        if path in self._locked:
            raise BlockingIOError
        self._locked[path] = file

    def space(self, path: Path) -> FileSystemSpace:
        return FileSystemSpace(self.total_bytes, self.total_bytes - self._used())

    def _used(self) -> int:
        return sum(len(file.allocated) for file in self.files.values()) * PAGE


def _survivors(choose: random.Random, data: bytes) -> Iterator[tuple[int, bytes]]:
    """What a crash leaves of one unsynced write."""
    kind = choose.randrange(4)
    if kind == 1:
        yield 0, data
    elif kind == 2:
        yield 0, data[: choose.randrange(len(data) + 1)]
    elif kind == 3:
        for start in range(0, len(data), SECTOR):
            if choose.random() < 0.5:
                yield start, data[start : start + SECTOR]


class IndexState:
    """What a `SimulatedIndex` has stored."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.answers: dict[bytes, StoredAnswer] = {}
        self.sequence = 0
        self.odometer = 0
        self.floor = 0

    def copy(self) -> "IndexState":
        state = IndexState()
        state.records = dict(self.records)
        state.answers = dict(self.answers)
        state.sequence = self.sequence
        state.odometer = self.odometer
        state.floor = self.floor
        return state


class SimulatedIndex:
    """Implements `engine.index.Index` on a simulated disk."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        self.floor = disk.index.floor
        self.full = False
        """`reserve` finds no room."""

    def sequence(self) -> int:
        return self._disk.index.sequence

    def odometer(self) -> int:
        return self._disk.index.odometer

    def raise_floor(self, floor: int) -> None:
        self.floor = max(self.floor, floor)

    def get(self, chunk: bytes) -> bytes | None:
        return self._disk.index.records.get(chunk)

    def answer(self, key: bytes) -> StoredAnswer | None:
        return self._disk.index.answers.get(key)

    def answers(self, first: bytes) -> Iterator[tuple[bytes, StoredAnswer]]:
        answers = self._disk.index.answers
        for key in sorted(key for key in answers if key >= first):
            yield key, answers[key]

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        records = self._disk.index.records
        for chunk in sorted(chunk for chunk in records if first <= chunk <= last):
            yield chunk, records[chunk]

    def apply(
        self,
        records: Mapping[bytes, bytes | None],
        answers: Mapping[bytes, StoredAnswer],
        sequence: int,
        expiry: Expiry,
    ) -> None:
        self._disk._step()
        state = self._disk.index.copy()
        for chunk, value in records.items():
            if value is None:
                state.records.pop(chunk, None)
            else:
                state.records[chunk] = value
        for chunk, value in list(state.records.items()):
            seen = glance(value)
            if 0 < seen.removed_at < expiry.tombstones_before and not seen.unsettled and chunk not in records:
                del state.records[chunk]
                self.floor = max(self.floor, seen.number)
        state.floor = self.floor
        state.odometer = expiry.now
        state.answers.update(answers)
        state.sequence = sequence
        self._disk.index = state
        self._disk._step()

    def reserve(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        pass
