"""Small words that the tests are made of: make a file, hold a descriptor, expect an errno, let the clock move."""

import contextlib
import errno
import itertools
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

DEADLINE_S = 30.0
"""For conditions that come true at once unless something is broken."""
_POLL_S = 0.001


def make(path: Path, data: bytes = b"", mode: int = 0o644) -> Path:
    """A regular file with exactly this mode."""
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode) as descriptor:
        write_all(descriptor, data)
        os.fchmod(descriptor, mode)
    return path


@contextlib.contextmanager
def opened(
    path: AnyPath, flags: int = os.O_RDONLY, mode: int = 0o666, *, directory: int | None = None
) -> Iterator[int]:
    descriptor = os.open(path, flags, mode, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes, offset: int | None = None) -> None:
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view) if offset is None else os.pwrite(descriptor, view, offset)
        assert written > 0
        view = view[written:]
        if offset is not None:
            offset += written


def read_all(descriptor: int, offset: int = 0) -> bytes:
    """From `offset` to the end, without moving the descriptor's position."""
    pieces = []
    while piece := os.pread(descriptor, 1 << 20, offset):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


@contextlib.contextmanager
def refused(*numbers: int) -> Iterator[None]:
    """The block has to fail with one of these errnos."""
    expected = " or ".join(errno.errorcode[number] for number in numbers)
    try:
        yield
    except OSError as error:
        assert error.errno in numbers, f"expected {expected}, got {errno.errorcode.get(error.errno or 0)}: {error}"
    else:
        raise AssertionError(f"expected {expected}, but it succeeded")


def exists(path: AnyPath) -> bool:
    return os.path.lexists(path)


def names(path: AnyPath) -> set[str]:
    return set(os.listdir(os.fsdecode(path)))


_probes = itertools.count()


def clock_moves(directory: Path) -> int:
    """Return a ctime of this file system that is later than every ctime it has given out before.

    Time stamps have the granularity of a clock tick, so two changes in a row may get the same one.
    """
    probe = directory.parent / f".clock-{os.getpid()}-{next(_probes)}"
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.unlink(probe)
        first = os.fstat(descriptor).st_ctime_ns
        deadline = time.monotonic() + DEADLINE_S
        mode = 0o600
        while (now := os.fstat(descriptor).st_ctime_ns) <= first:
            assert time.monotonic() < deadline, "the file system's clock stands still"
            time.sleep(_POLL_S)
            mode ^= 0o100
            os.fchmod(descriptor, mode)
        return now
    finally:
        os.close(descriptor)


_PERIOD = 65521
"""A prime: no block size hides it."""
_unit = bytes((i * 7 + i // 251 * 13) & 0xFF for i in range(_PERIOD))


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes that tell where they belong; another seed gives others."""
    start = seed * 257 % _PERIOD
    return (_unit[start:] + _unit * ((start + size) // _PERIOD + 1))[:size]


def remove_tree(path: Path) -> None:
    """Whatever is in it; whoever is not root may have to give itself the rights first."""
    if os.geteuid() != 0:
        _open_up(os.fsencode(path))
    shutil.rmtree(path)


def _open_up(directory: bytes) -> None:
    with contextlib.suppress(OSError):
        os.chmod(directory, stat.S_IRWXU)
    with os.scandir(directory) as entries:
        below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for one in below:
        _open_up(one)
