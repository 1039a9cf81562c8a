"""Plays operations on real files and on byte arrays, and compares.

Every byte that is read is compared, every length, every hole; times never go back.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.posix import calls
from tests.posix.exerciser.operations import FILES, PAGE, Operation
from tests.posix.files import pattern

PUNCH = calls.FALLOC_FL_PUNCH_HOLE | calls.FALLOC_FL_KEEP_SIZE
NOT_WITH_LOCKS = ("replace", "clone", "unlink", "reopen")
"""They give a file another inode, or close the descriptor that the lock hangs on."""
OPEN_FLAGS = (0, 0, os.O_DIRECT, os.O_SYNC)
"""Of reopenings; a direct one comes often because it goes other ways."""
_SHOWN = 32


class Mismatch(Exception):
    """The file system did something else than the model."""


class PlayedFile:
    """One file: its model, and the descriptors that are open on it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.data = bytearray()
        self.mtime_ns = 0
        self.path = Path()
        self.descriptor = -1
        self.worker = -1
        """For plain reads and writes: with the flags of the last reopening."""
        self.appender = -1
        self.direct = False
        self.mapping: mmap.mmap | None = None

    def open(self, place: Path, flags: int) -> None:
        self.path = place / self.name
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        self.worker = os.open(self.path, os.O_RDWR | flags)
        self.appender = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self.direct = bool(flags & os.O_DIRECT)

    def close(self) -> None:
        self.unmap()
        for descriptor in (self.worker, self.descriptor, self.appender):
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = self.worker = self.appender = -1

    def unmap(self) -> None:
        if self.mapping is not None:
            self.mapping.close()
            self.mapping = None


class Player:
    """Two files in one directory, which `places` name through one or several mounts.

    With `locks` the files stay open on every mount, and the one that works holds a lock on them; without, a switch to
    another mount closes them on this one and opens them there.
    """

    def __init__(self, places: Sequence[Path], size_max: int, *, locks: bool = False) -> None:
        self.places = list(places)
        self._size_max = size_max
        self._place = 0
        self._locks = locks
        self._files = [
            [PlayedFile(f"file-{number}") for number in range(FILES)] for _ in range(len(places) if locks else 1)
        ]
        """Of each mount with locks; otherwise one set that moves from mount to mount."""
        self._scratch = mmap.mmap(-1, size_max + (1 << 20))
        """Aligned memory, for direct reads and writes."""
        self._actions: dict[str, Callable[[PlayedFile, Operation], None]] = {
            "read": self._read,
            "write": self._write,
            "append": self._append,
            "truncate": self._truncate,
            "map": self._map,
            "mapped-read": self._mapped_read,
            "mapped-write": self._mapped_write,
            "punch": self._punch,
            "zero": self._zero,
            "allocate": self._allocate,
            "copy": self._copy,
            "copy-within": self._copy_within,
            "seek": self._seek,
            "fsync": lambda file, operation: os.fsync(file.descriptor),
            "fdatasync": lambda file, operation: os.fdatasync(file.descriptor),
            "forget": self._forget,
            "reopen": self._reopen,
            "stat": self._stat,
            "replace": self._replace,
            "clone": self._clone,
            "unlink": self._unlink,
            "verify": lambda file, operation: self.verify(file),
            "switch": self._switch,
        }

    def __enter__(self) -> "Player":
        for place, files in zip(self.places, self._files, strict=False):
            for file in files:
                file.open(place, 0)
        if self._locks:
            self._lock(fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        for files in self._files:
            for file in files:
                file.close()
        self._scratch.close()

    def play(self, operation: Operation) -> None:
        """Raises Mismatch; OSError for a call that should have worked."""
        self._actions[operation.name](self._current[operation.file], operation)

    def finish(self) -> None:
        """Everything once more: as it is open now, and from every mount after closing it."""
        for file in self._current:
            self.verify(file)
        for file in self._current:
            file.close()
        for place in self.places:
            for file in self._current:
                with open(place / file.name, "rb", buffering=0) as opened:
                    self._compare(
                        file, 0, self._read_at(opened.fileno(), 0, len(file.data) + 1), f"{place}: at the end"
                    )

    @property
    def _current(self) -> list[PlayedFile]:
        return self._files[self._place if self._locks else 0]

    # reading

    def _read(self, file: PlayedFile, operation: Operation) -> None:
        offset, length = self._aligned(file, operation)
        if file.direct:
            got = os.preadv(file.worker, [memoryview(self._scratch)[:length]], offset)
            found = self._scratch[:got]
        else:
            found = os.pread(file.worker, length, offset)
        expected = file.data[offset : offset + length]
        if len(found) < len(expected) and found:
            found += self._read_at(file.worker, offset + len(found), len(expected) - len(found))
        self._compare_bytes(file, offset, expected, found, "read")

    def verify(self, file: PlayedFile) -> None:
        size = os.fstat(file.descriptor).st_size
        if size != len(file.data):
            raise Mismatch(f"{file.path}: {size} bytes long, expected {len(file.data)}")
        self._compare(file, 0, self._read_at(file.descriptor, 0, len(file.data) + 1), "verify")

    def _read_at(self, descriptor: int, offset: int, length: int) -> bytes:
        """Until the end or `length` bytes; through aligned memory, as a direct descriptor wants it."""
        found = b""
        start = offset & -PAGE
        while start + len(found) < offset + length:
            wanted = (offset + length - start - len(found) + PAGE - 1) & -PAGE
            got = os.preadv(descriptor, [memoryview(self._scratch)[:wanted]], start + len(found))
            found += self._scratch[:got]
            if got == 0 or len(found) % PAGE:
                break
        return found[offset - start : offset - start + length]

    def _compare(self, file: PlayedFile, offset: int, found: bytes, what: str) -> None:
        self._compare_bytes(file, offset, file.data[offset:], found, what)

    def _compare_bytes(
        self, file: PlayedFile, offset: int, expected: bytes | bytearray, found: bytes, what: str
    ) -> None:
        if expected == found:
            return
        if len(expected) != len(found):
            raise Mismatch(f"{file.path}: {what} at {offset} gives {len(found)} bytes, expected {len(expected)}")
        differing = [index for index in range(len(found)) if found[index] != expected[index]]
        first, last = differing[0], differing[-1]
        raise Mismatch(
            f"{file.path}: {what}: {len(differing)} bytes differ between {offset + first} and {offset + last}"
            f" (a length of {last - first + 1});\n"
            f"    expected {bytes(expected[first : first + _SHOWN]).hex(' ')}\n"
            f"    found    {found[first : first + _SHOWN].hex(' ')}"
        )

    def _seek(self, file: PlayedFile, operation: Operation) -> None:
        """A hole holds zeros; how fine holes are is the file system's affair."""
        size = len(file.data)
        offset = operation.offset
        data = self._position(file, offset, os.SEEK_DATA)
        hole = self._position(file, offset, os.SEEK_HOLE)
        if offset >= size:
            if data is not None or hole is not None:
                raise Mismatch(f"{file.path}: data at {data}, hole at {hole} from {offset} on, where the end is {size}")
            return
        end = size if data is None else data
        if not offset <= end <= size or file.data.count(0, offset, end) != end - offset:
            raise Mismatch(f"{file.path}: SEEK_DATA from {offset} gives {data} and leaves out bytes that are not zero")
        if hole is None or not offset <= hole <= size:
            raise Mismatch(f"{file.path}: SEEK_HOLE from {offset} gives {hole} in a file of {size}")
        if hole < size and file.data[hole] != 0:
            raise Mismatch(f"{file.path}: SEEK_HOLE from {offset} gives {hole}, where the byte is not zero")

    def _position(self, file: PlayedFile, offset: int, whence: int) -> int | None:
        try:
            return os.lseek(file.descriptor, offset, whence)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None

    def _stat(self, file: PlayedFile, operation: Operation) -> None:
        for status in (os.fstat(file.descriptor), os.stat(file.path)):
            if status.st_size != len(file.data):
                raise Mismatch(f"{file.path}: {status.st_size} bytes long, expected {len(file.data)}")
            if status.st_nlink != 1:
                raise Mismatch(f"{file.path}: {status.st_nlink} links, expected 1")
            if status.st_mtime_ns < file.mtime_ns:
                raise Mismatch(f"{file.path}: mtime went back from {file.mtime_ns} to {status.st_mtime_ns}")
            file.mtime_ns = status.st_mtime_ns

    # writing

    def _write(self, file: PlayedFile, operation: Operation) -> None:
        offset, length = self._aligned(file, operation)
        data = pattern(length, operation.seed)
        done = 0
        while done < length:
            if file.direct:
                self._scratch[: length - done] = data[done:]
                wrote = os.pwritev(file.worker, [memoryview(self._scratch)[: length - done]], offset + done)
            else:
                wrote = os.pwrite(file.worker, data[done:], offset + done)
            if wrote <= 0:
                raise Mismatch(f"{file.path}: a write of {length - done} bytes wrote {wrote}")
            done += wrote
        self._put(file, offset, data)

    def _append(self, file: PlayedFile, operation: Operation) -> None:
        length = min(operation.length, self._size_max - len(file.data))
        data = pattern(length, operation.seed)
        wrote = os.write(file.appender, data) if length else 0
        if wrote != length:
            raise Mismatch(f"{file.path}: an append of {length} bytes wrote {wrote}")
        file.data += data

    def _truncate(self, file: PlayedFile, operation: Operation) -> None:
        if operation.argument:
            os.truncate(file.path, operation.offset)
        else:
            os.ftruncate(file.descriptor, operation.offset)
        self._resize(file, operation.offset)

    def _punch(self, file: PlayedFile, operation: Operation) -> None:
        calls.fallocate(file.descriptor, PUNCH, operation.offset, operation.length)
        self._put_zeros(file, operation.offset, min(operation.offset + operation.length, len(file.data)))

    def _zero(self, file: PlayedFile, operation: Operation) -> None:
        calls.fallocate(file.descriptor, calls.FALLOC_FL_ZERO_RANGE, operation.offset, operation.length)
        end = operation.offset + operation.length
        self._put_zeros(file, operation.offset, min(end, len(file.data)))
        self._resize(file, max(end, len(file.data)))

    def _allocate(self, file: PlayedFile, operation: Operation) -> None:
        mode = calls.FALLOC_FL_KEEP_SIZE if operation.argument else 0
        calls.fallocate(file.descriptor, mode, operation.offset, operation.length)
        if not operation.argument:
            self._resize(file, max(operation.offset + operation.length, len(file.data)))

    def _copy(self, file: PlayedFile, operation: Operation) -> None:
        self._copy_range(file, self._current[1 - operation.file], operation)

    def _copy_within(self, file: PlayedFile, operation: Operation) -> None:
        if abs(operation.argument - operation.offset) >= operation.length:
            self._copy_range(file, file, operation)

    def _copy_range(self, source: PlayedFile, target: PlayedFile, operation: Operation) -> None:
        length = min(operation.length, self._size_max - operation.argument)
        expected = bytes(source.data[operation.offset : operation.offset + length])
        wanted = length if source is not target else len(expected)  # a copy to its own end would go on for ever
        done = 0
        while done < wanted:
            moved = calls.copy_file_range(
                source.descriptor, operation.offset + done, target.descriptor, operation.argument + done, wanted - done
            )
            if moved == 0:
                break
            done += moved
        if done != len(expected):
            raise Mismatch(f"{source.path}: copied {done} bytes from {operation.offset} on, expected {len(expected)}")
        if expected:
            self._put(target, operation.argument, expected)

    # mapping

    def _map(self, file: PlayedFile, operation: Operation) -> None:
        """A mapping that stays while other operations go on beside it."""
        file.unmap()
        if file.data:
            file.mapping = mmap.mmap(file.descriptor, len(file.data))

    def _mapped_read(self, file: PlayedFile, operation: Operation) -> None:
        with self._mapped(file, operation) as (memory, start, end):
            if memory is not None:
                self._compare_bytes(file, start, file.data[start:end], memory[start:end], "mapped read")

    def _mapped_write(self, file: PlayedFile, operation: Operation) -> None:
        with self._mapped(file, operation) as (memory, start, end):
            if memory is not None:
                data = pattern(end - start, operation.seed)
                memory[start:end] = data
                file.data[start:end] = data
                if operation.argument:
                    memory.flush()

    @contextlib.contextmanager
    def _mapped(self, file: PlayedFile, operation: Operation):  # type: ignore[no-untyped-def]
        """The mapping and what of the range both it and the file have; behind the file's end is SIGBUS."""
        fresh = file.mapping is None
        memory = file.mapping
        if memory is None and file.data:
            memory = mmap.mmap(file.descriptor, len(file.data))
        end = min(operation.offset + operation.length, len(file.data), 0 if memory is None else len(memory))
        try:
            yield (memory if operation.offset < end else None), operation.offset, end
        finally:
            if fresh and memory is not None:
                memory.close()

    # opening and naming

    def _forget(self, file: PlayedFile, operation: Operation) -> None:
        """Drop the page cache of this file, so that the next read comes from further away."""
        os.fsync(file.descriptor)
        os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def _reopen(self, file: PlayedFile, operation: Operation) -> None:
        place = file.path.parent
        file.close()
        file.open(place, OPEN_FLAGS[operation.argument % len(OPEN_FLAGS)])
        self._stat(file, operation)

    def _replace(self, file: PlayedFile, operation: Operation) -> None:
        """A new file is renamed over this one; who had the old one open keeps its bytes."""
        data = pattern(min(operation.offset, 1 << 18), operation.seed)
        self._replace_by(file, data)

    def _clone(self, file: PlayedFile, operation: Operation) -> None:
        """The other file becomes a copy of this one, by way of a temporary name."""
        self._replace_by(self._current[1 - operation.file], self._read_at(file.descriptor, 0, len(file.data)))
        self.verify(file)

    def _replace_by(self, file: PlayedFile, data: bytes) -> None:
        temporary = file.path.with_name(f".{file.name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        os.rename(temporary, file.path)
        self._old_one_lives_on(file)
        self._fresh(file, data)

    def _unlink(self, file: PlayedFile, operation: Operation) -> None:
        """Unlinked while it is open; then there is a new one of the same name."""
        os.unlink(file.path)
        self._old_one_lives_on(file)
        place = file.path.parent
        file.close()
        os.close(os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        file.open(place, 0)
        file.data = bytearray()
        file.mtime_ns = 0
        self._write(file, operation._replace(offset=0, length=max(1, min(operation.offset, 1 << 18))))

    def _old_one_lives_on(self, file: PlayedFile) -> None:
        self.verify(file)
        links = os.fstat(file.descriptor).st_nlink
        if links != 0:
            raise Mismatch(f"{file.path}: the file that has no name any more has {links} links")
        os.pwrite(file.appender, b"the end", 0)
        file.data += b"the end"
        self.verify(file)

    def _fresh(self, file: PlayedFile, data: bytes) -> None:
        place = file.path.parent
        file.close()
        file.open(place, 0)
        file.data = bytearray(data)
        file.mtime_ns = 0
        self.verify(file)

    def _switch(self, file: PlayedFile, operation: Operation) -> None:
        """To another mount. With locks: what was written is synced, then unlocked, then locked there."""
        old = self._current
        target = (self._place + 1) % len(self.places)
        if self._locks:
            for one in old:
                if one.mapping is not None:
                    one.mapping.flush()
                os.fsync(one.descriptor)
            self._lock(fcntl.LOCK_UN)
        self._place = target
        if self._locks:
            self._lock(fcntl.LOCK_EX)
            for mine, theirs in zip(self._current, old, strict=True):
                mine.data, mine.mtime_ns = theirs.data, theirs.mtime_ns
                self._stat(mine, operation)  # asks for the length, as programs do that share a file under locks
        else:
            for one in old:
                one.close()
                one.open(self.places[target], 0)
                self._stat(one, operation)

    def _lock(self, kind: int) -> None:
        for file in self._current:
            fcntl.flock(file.descriptor, kind)

    # the model

    def _aligned(self, file: PlayedFile, operation: Operation) -> tuple[int, int]:
        if not file.direct:
            return operation.offset, operation.length
        return operation.offset & -PAGE, (operation.length + PAGE - 1) & -PAGE

    def _put(self, file: PlayedFile, offset: int, data: bytes) -> None:
        if offset > len(file.data):
            self._resize(file, offset)
        file.data[offset : offset + len(data)] = data

    def _put_zeros(self, file: PlayedFile, start: int, end: int) -> None:
        if start < end:
            file.data[start:end] = bytes(end - start)

    def _resize(self, file: PlayedFile, size: int) -> None:
        if size < len(file.data):
            del file.data[size:]
        else:
            file.data += bytes(size - len(file.data))


def missing_features(place: Path) -> list[str]:
    """Operations that the file system says it does not have."""
    missing = []
    with tempfile.TemporaryFile(dir=place) as file:
        for name, mode in (("zero", calls.FALLOC_FL_ZERO_RANGE), ("punch", PUNCH), ("allocate", 0)):
            try:
                calls.fallocate(file.fileno(), mode, 0, PAGE)
            except OSError as error:
                if not calls.unsupported(error):
                    raise
                missing.append(name)
    return missing
