"""Which call changes which time stamp: of the file it is about, and of the directory that the name is in.

A table: for each call the stamps it moves; every other stamp has to stay. Reading is apart, in
`test_reading_moves_atime`, because a file system may be mounted `noatime`.
"""

import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.posix import calls
from tests.posix.files import clock_moves, exists, make, opened, pattern

FUTURE_NS = 4_000_000_000_000_000_000


class Stamps(NamedTuple):
    accessed: int
    modified: int
    changed: int


def stamps(path: Path) -> Stamps:
    status = os.lstat(path)
    return Stamps(status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)


class Case(NamedTuple):
    call: Callable[[Path], object]
    """Gets a directory with `file`, `other`, `dir`, `dir/sub` and `link` in it."""
    moved: dict[str, str]
    """Path -> which of `a`, `m`, `c` moves; a path that is not named keeps all three."""


def _on_descriptor(flags: int, change: Callable[[int], object]) -> Callable[[Path], None]:
    def run(directory: Path) -> None:
        with opened(directory / "file", flags) as descriptor:
            change(descriptor)

    return run


def _copy(directory: Path) -> None:
    with opened(directory / "other") as source, opened(directory / "file", os.O_WRONLY) as target:
        assert calls.copy_file_range(source, 0, target, 0, 10) == 10


PUNCH = calls.FALLOC_FL_PUNCH_HOLE | calls.FALLOC_FL_KEEP_SIZE
CASES = {
    "write": Case(_on_descriptor(os.O_WRONLY, lambda fd: os.write(fd, b"xy")), {"file": "mc"}),
    "write-beyond-the-end": Case(_on_descriptor(os.O_WRONLY, lambda fd: os.pwrite(fd, b"x", 9999)), {"file": "mc"}),
    "append": Case(_on_descriptor(os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"x")), {"file": "mc"}),
    "write-nothing": Case(_on_descriptor(os.O_WRONLY, lambda fd: os.write(fd, b"")), {}),
    "open-and-close": Case(_on_descriptor(os.O_RDWR, lambda fd: None), {}),
    "open-existing-with-create": Case(_on_descriptor(os.O_RDWR | os.O_CREAT, lambda fd: None), {}),
    "open-truncate": Case(_on_descriptor(os.O_WRONLY | os.O_TRUNC, lambda fd: None), {"file": "mc"}),
    "ftruncate-cut": Case(_on_descriptor(os.O_WRONLY, lambda fd: os.ftruncate(fd, 1)), {"file": "mc"}),
    "ftruncate-grow": Case(_on_descriptor(os.O_WRONLY, lambda fd: os.ftruncate(fd, 99_999)), {"file": "mc"}),
    "ftruncate-same": Case(_on_descriptor(os.O_WRONLY, lambda fd: os.ftruncate(fd, 5000)), {"file": "mc"}),
    "truncate": Case(lambda d: os.truncate(d / "file", 1), {"file": "mc"}),
    "truncate-grow": Case(lambda d: os.truncate(d / "file", 99_999), {"file": "mc"}),
    "fallocate": Case(_on_descriptor(os.O_WRONLY, lambda fd: os.posix_fallocate(fd, 0, 99_999)), {"file": "mc"}),
    "punch-hole": Case(_on_descriptor(os.O_WRONLY, lambda fd: calls.fallocate(fd, PUNCH, 0, 4096)), {"file": "mc"}),
    "copy-file-range": Case(_copy, {"file": "mc", "other": "a?"}),
    "fsync": Case(_on_descriptor(os.O_RDWR, os.fsync), {}),
    "chmod": Case(lambda d: os.chmod(d / "file", 0o600), {"file": "c"}),
    "chmod-same": Case(lambda d: os.chmod(d / "file", 0o644), {"file": "c"}),
    "chown": Case(lambda d: os.chown(d / "file", os.geteuid(), os.getegid()), {"file": "c"}),
    "utime": Case(lambda d: os.utime(d / "file"), {"file": "amc"}),
    "set-xattr": Case(lambda d: os.setxattr(d / "file", "user.x", b"1"), {"file": "c"}),
    "remove-xattr": Case(lambda d: os.removexattr(d / "file", "user.there"), {"file": "c"}),
    "get-xattr": Case(lambda d: os.getxattr(d / "file", "user.there"), {}),
    "stat": Case(lambda d: os.stat(d / "file"), {}),
    "access": Case(lambda d: os.access(d / "file", os.R_OK), {}),
    "create": Case(lambda d: make(d / "new"), {".": "mc"}),
    "create-inside": Case(lambda d: make(d / "dir" / "new"), {"dir": "mc"}),
    "mkdir": Case(lambda d: os.mkdir(d / "new"), {".": "mc"}),
    "symlink": Case(lambda d: os.symlink("x", d / "new"), {".": "mc"}),
    "mkfifo": Case(lambda d: os.mkfifo(d / "new"), {".": "mc"}),
    "mksocket": Case(lambda d: os.mknod(d / "new", stat.S_IFSOCK | 0o600), {".": "mc"}),
    "link": Case(lambda d: os.link(d / "file", d / "new"), {".": "mc", "file": "c"}),
    "link-elsewhere": Case(lambda d: os.link(d / "file", d / "dir" / "new"), {"dir": "mc", "file": "c"}),
    "unlink": Case(lambda d: os.unlink(d / "other"), {".": "mc"}),
    "unlink-one-of-two-names": Case(lambda d: os.unlink(d / "second-name"), {".": "mc", "two": "c"}),
    "rmdir": Case(lambda d: os.rmdir(d / "dir" / "sub"), {"dir": "mc"}),
    "rename": Case(lambda d: os.rename(d / "file", d / "new"), {".": "mc", "new": "c"}),
    "rename-elsewhere": Case(
        lambda d: os.rename(d / "file", d / "dir" / "new"), {".": "mc", "dir": "mc", "dir/new": "c"}
    ),
    "rename-over": Case(lambda d: os.rename(d / "file", d / "other"), {".": "mc", "other": "c"}),
    "rename-over-one-of-two-names": Case(
        lambda d: os.rename(d / "file", d / "second-name"), {".": "mc", "second-name": "c", "two": "c"}
    ),
    "rename-to-itself": Case(lambda d: os.rename(d / "file", d / "file"), {}),
    "rename-between-two-names": Case(lambda d: os.rename(d / "two", d / "second-name"), {}),
    "rename-directory": Case(lambda d: os.rename(d / "dir" / "sub", d / "new"), {".": "mc", "dir": "mc", "new": "c"}),
    "exchange": Case(
        lambda d: calls.renameat2(d / "file", d / "dir" / "sub", calls.RENAME_EXCHANGE),
        {".": "mc", "dir": "mc", "file": "c", "dir/sub": "c"},
    ),
    "readlink": Case(lambda d: os.readlink(d / "link"), {"link": "a?"}),
    "list": Case(lambda d: os.listdir(d), {".": "a?"}),
    "failed-create": Case(lambda d: _fails(os.mkdir, d / "dir"), {}),
    "failed-unlink": Case(lambda d: _fails(os.unlink, d / "dir"), {}),
    "failed-rmdir": Case(lambda d: _fails(os.rmdir, d / "dir"), {}),
    "failed-rename": Case(lambda d: _fails(os.rename, d / "file", d / "dir"), {}),
}


NAMES = (".", "file", "other", "two", "dir", "dir/sub", "link")


def _fails(call: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(OSError):
        call(*arguments)


@pytest.mark.parametrize("name", CASES)
def test_stamps(directory: Path, name: str) -> None:
    case = CASES[name]
    make(directory / "file", pattern(5000))
    make(directory / "other", pattern(5000))
    make(directory / "two")
    os.link(directory / "two", directory / "second-name")
    os.setxattr(directory / "file", "user.there", b"x")
    (directory / "dir" / "sub").mkdir(parents=True)
    (directory / "link").symlink_to("anywhere")
    inodes = {os.lstat(directory / name).st_ino: name for name in NAMES}
    before = {name: stamps(directory / name) for name in NAMES}
    now = clock_moves(directory)
    case.call(directory)
    # Found by inode afterwards, and without listing anything: that would move an atime.
    after: dict[str, Stamps] = {}
    moved: dict[str, str] = {}
    for path in (*NAMES, "new", "second-name", *case.moved):
        if exists(directory / path) and (name := inodes.get(os.lstat(directory / path).st_ino)):
            after[name] = stamps(directory / path)
            moved[name] = moved.get(name, "") + case.moved.get(path, "")
    for name in after:
        for letter, old, new in zip("amc", before[name], after[name], strict=True):
            if f"{letter}?" in moved[name]:
                assert new == old or new >= now
            elif letter in moved[name]:
                assert new >= now, f"{letter}time of {name} did not move"
            else:
                assert new == old, f"{letter}time of {name} moved"


def test_new_directory_entries_have_the_time_of_their_creation(directory: Path) -> None:
    now = clock_moves(directory)
    (directory / "d").mkdir()
    made = stamps(directory / "d")
    assert min(made) >= now
    assert stamps(directory).modified >= now


def test_reading_moves_atime(directory: Path) -> None:
    """Under `relatime`, the rule of almost every mount: when atime is not later than mtime. `noatime` never moves it, a
    file system may always be lazy; what may not happen is that atime goes back or that another stamp moves."""
    path = make(directory / "f", b"content")
    before = stamps(path)
    now = clock_moves(directory)
    with opened(path) as descriptor:
        os.read(descriptor, 7)
    after = stamps(path)
    assert after.accessed == before.accessed or after.accessed >= now
    assert (after.modified, after.changed) == (before.modified, before.changed)


def test_noatime_flag_keeps_atime(directory: Path) -> None:
    path = make(directory / "f", b"content")
    before = stamps(path)
    clock_moves(directory)
    with opened(path, os.O_RDONLY | os.O_NOATIME) as descriptor:
        os.read(descriptor, 7)
    assert stamps(path) == before


def test_mtime_is_settled_when_the_file_is_closed(directory: Path) -> None:
    """Nothing that happens later on its own may move it: build tools compare it."""
    path = directory / "f"
    with opened(path, os.O_WRONLY | os.O_CREAT) as descriptor:
        os.write(descriptor, pattern(100_000))
    closed = stamps(path)
    clock_moves(directory)
    with opened(path) as descriptor:
        os.fsync(descriptor)
    assert stamps(path)[1:] == closed[1:]


def asked(path: Path) -> Stamps:
    """What the file system says, whatever the kernel believes."""
    status = calls.statx(path, calls.AT_STATX_FORCE_SYNC)
    return Stamps(status.accessed, status.modified, status.changed)


def test_what_is_seen_of_a_write_stays(directory: Path) -> None:
    """`tar` and `rsync` take a file whose ctime moves while they read it for one that is being changed."""
    path = directory / "f"
    with opened(path, os.O_WRONLY | os.O_CREAT) as descriptor:
        os.write(descriptor, b"x")
        status = os.fstat(descriptor)
        clock_moves(directory)
    seen = (status.st_mtime_ns, status.st_ctime_ns)
    assert asked(path)[1:] == seen
    with opened(path) as descriptor:
        os.read(descriptor, 1)
        assert asked(path)[1:] == seen
    assert stamps(path)[1:] == seen


def test_an_open_file_has_the_ctime_of_a_closed_one(directory: Path) -> None:
    """Though its mtime is in the future."""
    path = make(directory / "f", pattern(5000))
    os.utime(path, ns=(0, FUTURE_NS))
    seen = asked(path)
    assert seen.changed < FUTURE_NS
    with opened(path) as descriptor:
        assert asked(path)[1:] == seen[1:]
        os.read(descriptor, 1)
        assert asked(path)[1:] == seen[1:]


def test_later_writes_have_later_times(directory: Path) -> None:
    path = make(directory / "f")
    last = stamps(path).modified
    with opened(path, os.O_WRONLY) as descriptor:
        for _ in range(5):
            now = clock_moves(directory)
            os.write(descriptor, b"x")
            modified = os.fstat(descriptor).st_mtime_ns
            assert modified >= now > last
            last = modified


CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda d: make(d / "new"),
    "mkdir": lambda d: os.mkdir(d / "new"),
    "unlink": lambda d: os.unlink(d / "old"),
    "rename": lambda d: os.rename(d / "old", d / "new"),
    "symlink": lambda d: os.symlink("x", d / "new"),
    "link": lambda d: os.link(d / "old", d / "new"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_time_in_the_future_comes_back_to_now(directory: Path, change: str) -> None:
    """A change sets the time, it does not only push it forward: rsync looks whether it has to set it again."""
    make(directory / "old")
    os.utime(directory, ns=(FUTURE_NS, FUTURE_NS))
    CHANGES[change](directory)
    assert stamps(directory).modified < FUTURE_NS


def test_write_through_a_mapping_moves_mtime(directory: Path) -> None:
    """At the latest when msync returns."""
    path = make(directory / "f", pattern(4096))
    now = clock_moves(directory)
    with opened(path, os.O_RDWR) as descriptor, mmap.mmap(descriptor, 4096) as memory:
        memory[:5] = b"hello"
        memory.flush()
        assert os.fstat(descriptor).st_mtime_ns >= now
