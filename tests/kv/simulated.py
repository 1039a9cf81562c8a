"""A disk that loses what was not synced, and a thread that takes turns of the loop: the same way every time."""

import asyncio
import errno
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fs_meta.kv.directory import DATA_FILE
from fs_meta.kv.worker import Done

SECTOR = 512


class _Write(NamedTuple):
    number: int
    offset: int
    data: bytes


class _File:
    def __init__(self) -> None:
        self.durable = bytearray()
        self.unsynced: list[_Write] = []
        self.refused: list[_Write] = []
        """What a sync that failed could not bring to the device: the page cache calls it clean, and reads it back."""

    def content(self) -> bytearray:
        content = bytearray(self.durable)
        for write in sorted(self.refused + self.unsynced):
            _put(content, write.offset, write.data)
        return content

    def copy(self) -> "_File":
        copied = _File()
        copied.durable = bytearray(self.durable)
        copied.unsynced = list(self.unsynced)
        copied.refused = list(self.refused)
        return copied


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class SimulatedDisk:
    """A `Disk`. Files are known by their names; a real, empty file of that name is made beside."""

    def __init__(self) -> None:
        self.files: dict[str, _File] = {}
        self.full = False
        """Files cannot grow, and nothing is free."""
        self.faults: dict[str, Exception] = {}
        """Method name to what its next call raises, once."""
        self.on_step: Callable[[], None] = lambda: None
        """Called before and after everything that changes what a crash leaves."""
        self.writes = 0
        self.syncs = 0
        self.sync_up_to: int | None = None
        """A sync that runs now was asked for when so many writes were done: later ones are not covered."""
        self._open: list[str] = []

    # Disk

    def open(self, path: Path, *, create: bool = False) -> int:
        if path.name == DATA_FILE and path.exists():
            self.files.setdefault(path.name, _File())  # LMDB's, which does not use this disk
        if create:
            path.touch()
            self.files[path.name] = _File()
        elif path.name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        self._open.append(path.name)
        return len(self._open) - 1

    def close(self, file: int) -> None:
        pass

    def size(self, file: int) -> int:
        return len(self._file(file).content())

    def read(self, file: int, length: int, offset: int) -> bytes:
        return bytes(self._file(file).content()[offset : offset + length])

    def write(self, file: int, data: bytes, offset: int) -> None:
        self._fail("write")
        found = self._file(file)
        if self.full and offset + len(data) > len(found.content()):
            self._add(found, offset, data[: max(len(found.content()) - offset, 0)])
            raise OSError(errno.ENOSPC, "no space")
        self.on_step()
        self._add(found, offset, data)
        self.on_step()

    def sync(self, file: int) -> None:
        found = self._file(file)
        if "sync" in self.faults:
            found.refused += found.unsynced
            found.unsynced = []
        self._fail("sync")
        self.on_step()
        kept = []
        for write in found.unsynced:
            if self.sync_up_to is None or write.number <= self.sync_up_to:
                _put(found.durable, write.offset, write.data)
            else:
                kept.append(write)
        found.unsynced = kept
        self.syncs += 1
        self.on_step()

    def sync_directory(self, path: Path) -> None:
        pass

    def forget_cached(self, file: int) -> None:
        assert not self._file(file).unsynced, "synced before"
        self._file(file).refused = []

    def free_bytes(self, path: Path) -> int:
        return 0 if self.full else 1 << 40

    # Crashes

    def copy(self) -> "SimulatedDisk":
        """As it is now: what the death of the process leaves."""
        copied = SimulatedDisk()
        copied.files = {name: file.copy() for name, file in self.files.items()}
        copied.writes = self.writes
        return copied

    def after_power_loss(self, choose: random.Random) -> "SimulatedDisk":
        """Each write that was not synced is there, lost or torn, by itself."""
        left = SimulatedDisk()
        keep, tear = choose.choice([(0.0, 0.0), (1.0, 0.0), (0.5, 0.2), (0.9, 0.1), (0.8, 0.0), (0.3, 0.7)])
        for name, file in self.files.items():
            left.files[name] = _File()
            content = bytearray(file.durable)
            for write in file.unsynced:
                fate = choose.random()
                if fate < keep:
                    _put(content, write.offset, write.data)
                elif fate < keep + tear:
                    self._tear(content, write, choose)
            left.files[name].durable = content
        return left

    @staticmethod
    def _tear(content: bytearray, write: _Write, choose: random.Random) -> None:
        """Some of its sectors."""
        start = write.offset
        while start < write.offset + len(write.data):
            end = min(start - start % SECTOR + SECTOR, write.offset + len(write.data))
            if choose.random() < 0.5:
                _put(content, start, write.data[start - write.offset : end - write.offset])
            start = end

    def _file(self, file: int) -> _File:
        return self.files[self._open[file]]

    def _add(self, file: _File, offset: int, data: bytes) -> None:
        if data:
            self.writes += 1
            file.unsynced.append(_Write(self.writes, offset, data))

    def _fail(self, method: str) -> None:
        if method in self.faults:
            raise self.faults.pop(method)


class SimulatedWorker:
    """A `Worker` that runs each step some turns of the loop later, and tells some turns after that."""

    def __init__(self, choose: random.Random, disk: SimulatedDisk) -> None:
        self._choose = choose
        self._disk = disk
        self._steps: deque[tuple[Callable[[], None], Done, int]] = deque()
        self._running = False
        self.held = False
        """No step is begun."""

    def start(self, step: Callable[[], None], done: Done) -> None:
        self._steps.append((step, done, self._disk.writes))
        self._go_on()

    def release(self) -> None:
        self.held = False
        self._go_on()

    def close(self) -> None:
        assert not self._steps and not self._running

    def _go_on(self) -> None:
        if not self._running and not self.held and self._steps:
            self._running = True
            self._later(self._run)

    def _later(self, then: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()

        def turn(left: int) -> None:
            if left:
                loop.call_soon(turn, left - 1)
            else:
                then()

        loop.call_soon(turn, self._choose.choice((0, 0, 1, 3, 10)))

    def _run(self) -> None:
        step, done, writes = self._steps.popleft()
        error: BaseException | None = None
        self._disk.sync_up_to = writes
        try:
            step()
        except Exception as raised:
            error = raised
        finally:
            self._disk.sync_up_to = None

        def tell() -> None:
            self._running = False
            done(error)
            self._go_on()

        self._later(tell)
