"""Set-id bits: cleared by who changes the contents; set-group-id directories give their group to what is in them."""

import contextlib
import errno
import mmap
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.files import make, opened
from tests.posix.people import ALICE, STAFF, as_user, needs_root
from tests.posix.subject import Subject


@pytest.fixture(autouse=True)
def root_only() -> None:
    needs_root()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def _with(flags: int, change: Callable[[int], object]) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with opened(path, flags) as descriptor:
            change(descriptor)

    return run


def _dup_closed(change: Callable[[int], object]) -> Callable[[Path], None]:
    """Through a duplicate, after the close of the other one has told the file system that a descriptor is closed."""

    def run(path: Path) -> None:
        first = os.open(path, os.O_RDWR)
        with_second = os.dup(first)
        try:
            os.close(first)
            change(with_second)
        finally:
            os.close(with_second)

    return run


def _from_source(change: Callable[[int, int], object]) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with opened(path.with_name("source")) as source, opened(path, os.O_RDWR) as target:
            change(source, target)

    return run


def _direct(descriptor: int) -> None:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    os.pwrite(descriptor, page, 0)


def _spliced(source: int, target: int) -> None:
    reading, writing = os.pipe()
    try:
        moved = os.splice(source, writing, 5, offset_src=0)
        assert os.splice(reading, target, moved, offset_dst=0) == moved
    finally:
        os.close(reading)
        os.close(writing)


def _fallocates(mode: int) -> Callable[[Path], None]:
    return _with(os.O_WRONLY, lambda descriptor: calls.fallocate(descriptor, mode, 0, 2))


CHANGES: dict[str, Callable[[Path], None]] = {
    "write": _with(os.O_WRONLY, lambda descriptor: os.write(descriptor, b"x")),
    "pwrite": _with(os.O_WRONLY, lambda descriptor: os.pwrite(descriptor, b"x", 1000)),
    "writev": _with(os.O_WRONLY, lambda descriptor: os.writev(descriptor, [b"x", b"y"])),
    "pwritev": _with(os.O_WRONLY, lambda descriptor: os.pwritev(descriptor, [b"x", b"y"], 3)),
    "append": _with(os.O_WRONLY | os.O_APPEND, lambda descriptor: os.write(descriptor, b"x")),
    "direct": _with(os.O_WRONLY | os.O_DIRECT, _direct),
    "sync": _with(os.O_WRONLY | os.O_SYNC, lambda descriptor: os.write(descriptor, b"x")),
    "write-to-duplicate": _dup_closed(lambda descriptor: os.write(descriptor, b"x")),
    "sendfile": _from_source(lambda source, target: os.sendfile(target, source, 0, 5)),
    "splice": _from_source(_spliced),
    "copy_file_range": _from_source(lambda source, target: calls.copy_file_range(source, 0, target, 0, 5)),
    "ftruncate": _with(os.O_WRONLY, lambda descriptor: os.ftruncate(descriptor, 1)),
    "ftruncate-longer": _with(os.O_WRONLY, lambda descriptor: os.ftruncate(descriptor, 10_000)),
    "ftruncate-duplicate": _dup_closed(lambda descriptor: os.ftruncate(descriptor, 1)),
    "truncate": lambda path: os.truncate(path, 1),
    "open-truncate": _with(os.O_WRONLY | os.O_TRUNC, lambda descriptor: None),
    "create-truncate": _with(os.O_WRONLY | os.O_CREAT | os.O_TRUNC, lambda descriptor: None),
    "fallocate": _with(os.O_WRONLY, lambda descriptor: os.posix_fallocate(descriptor, 0, 10_000)),
    "keep-size": _fallocates(calls.FALLOC_FL_KEEP_SIZE),
    "punch": _fallocates(calls.FALLOC_FL_PUNCH_HOLE | calls.FALLOC_FL_KEEP_SIZE),
    "zero": _fallocates(calls.FALLOC_FL_ZERO_RANGE),
    "zero-keep-size": _fallocates(calls.FALLOC_FL_ZERO_RANGE | calls.FALLOC_FL_KEEP_SIZE),
}
"""All ways to change a file's bytes or length. (A mapping is none to Linux: the bits stay.)"""


def believed_mode(path: Path) -> int:
    """What the kernel has, without asking for times or sizes, which it knows to be old after a change."""
    return stat.S_IMODE(calls.statx(path, calls.AT_SYMLINK_NOFOLLOW, calls.STATX_MODE).mode)


def change_all(change: str, paths: list[Path]) -> None:
    for path in paths:
        CHANGES[change](path)


@contextlib.contextmanager
def has_it(subject: Subject) -> Iterator[None]:
    """Skips what a file system of others cannot do."""
    try:
        yield
    except OSError as error:
        if subject.kind == "mount" or error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        pytest.skip(f"not on {subject.kind}: {error.strerror}")


MODES = {0o6777: 0o0777, 0o4777: 0o0777, 0o2777: 0o0777, 0o2767: 0o2767}
"""What a stranger leaves of a mode. Set-group-id without the group's execute bit is no set-id bit; the kernel clears it
for strangers to the group alone, so this one is a member."""


@pytest.mark.parametrize("change", CHANGES)
def test_cleared_by_who_is_not_root(subject: Subject, change: str) -> None:
    make(subject.path / "source", b"other")
    paths = {before: make(subject.path / f"{before:o}", b"content") for before in MODES}
    for before, path in paths.items():
        os.chown(path, 0, STAFF)
        path.chmod(before)
        assert believed_mode(path) == before
    with has_it(subject):
        as_user(change_all, change, list(paths.values()), uid=ALICE, groups=(STAFF,))
    assert {before: believed_mode(path) for before, path in paths.items()} == MODES
    assert {before: mode_of(path) for before, path in paths.items()} == MODES


@pytest.mark.parametrize("change", CHANGES)
def test_kept_when_root_writes(subject: Subject, change: str) -> None:
    make(subject.path / "source", b"other")
    path = make(subject.path / "f", b"content")
    path.chmod(0o6777)
    with has_it(subject):
        CHANGES[change](path)
    assert mode_of(path) == 0o6777


@pytest.mark.parametrize("change", ["open-truncate", "create-truncate", "fallocate", "truncate"])
def test_cleared_of_an_empty_file(directory: Path, change: str) -> None:
    path = make(directory / "f")
    path.chmod(0o6777)
    assert believed_mode(path) == 0o6777
    as_user(CHANGES[change], path)
    assert believed_mode(path) == mode_of(path) == 0o777


def test_a_file_that_a_stranger_changed_does_not_run_as_its_owner(subject: Subject) -> None:
    """At once, though the kernel knew its mode just before."""
    subject.needs("suid", "exec")
    path = subject.path / "id"
    shutil.copyfile(shutil.which("id") or "/usr/bin/id", path)
    path.chmod(0o6777)
    os.chown(path.parent, ALICE, ALICE)

    def effective() -> str:
        return subprocess.run([path, "-u"], capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    def change_and_run() -> tuple[str, str]:
        before = effective()
        with opened(path, os.O_RDWR) as descriptor:
            os.pwrite(descriptor, os.pread(descriptor, 1, 0), 0)
        return before, effective()

    assert as_user(change_and_run) == ("0", str(ALICE))


@pytest.mark.parametrize("change", ["write", "copy_file_range", "fallocate", "open-truncate", "punch"])
def test_cleared_without_suid_too(subject: Subject, change: str) -> None:
    """The other mount of the file system, where there is one, does not honour the bits; it clears them all the same."""
    make(subject.path / "source", b"other")
    make(subject.path / "f", b"content").chmod(0o6777)
    path = subject.other / "f"
    assert mode_of(path) == 0o6777
    with has_it(subject):
        as_user(CHANGES[change], path)
    assert believed_mode(path) == 0o777
    assert mode_of(subject.path / "f") == 0o777


def test_group_of_new_files_is_the_directorys(directory: Path) -> None:
    os.chown(directory, 0, STAFF)
    directory.chmod(0o2777)

    def create() -> None:
        with opened(directory / "file", os.O_WRONLY | os.O_CREAT, 0o644):
            pass
        os.mkdir(directory / "directory", 0o755)
        os.symlink("x", directory / "symlink")
        os.mkfifo(directory / "fifo", 0o644)

    as_user(create, uid=ALICE)
    for name in ("file", "directory", "symlink", "fifo"):
        status = os.lstat(directory / name)
        assert (status.st_uid, status.st_gid) == (ALICE, STAFF), name


def test_new_directories_inherit_the_bit_and_files_do_not(directory: Path) -> None:
    os.chown(directory, 0, STAFF)
    directory.chmod(0o2777)
    as_user(os.mkdir, directory / "d", 0o755)
    as_user(os.mkdir, directory / "d" / "e", 0o700)
    as_user(make, directory / "f")
    assert mode_of(directory / "d") == 0o2755
    assert mode_of(directory / "d" / "e") == 0o2700
    assert mode_of(directory / "f") == 0o644


def test_without_the_bit_the_group_is_the_creators(directory: Path) -> None:
    os.chown(directory, 0, STAFF)
    directory.chmod(0o777)
    as_user(make, directory / "f", uid=ALICE)
    as_user(os.mkdir, directory / "d", uid=ALICE)
    assert (directory / "f").stat().st_gid == ALICE
    assert (directory / "d").stat().st_gid == ALICE
    assert mode_of(directory / "d") == 0o755


def test_group_of_a_moved_file_stays(directory: Path) -> None:
    (directory / "d").mkdir()
    os.chown(directory / "d", 0, STAFF)
    (directory / "d").chmod(0o2777)
    make(directory / "f").rename(directory / "d" / "f")
    assert (directory / "d" / "f").stat().st_gid == 0


def test_create_with_set_group_id_of_a_foreign_group(directory: Path) -> None:
    """A stranger to the directory's group cannot make an executable that runs as that group."""
    os.chown(directory, 0, STAFF)
    directory.chmod(0o2777)

    def create(name: str) -> None:
        os.umask(0)
        with opened(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o2775):
            pass

    as_user(create, "stranger", uid=ALICE)
    assert mode_of(directory / "stranger") == 0o775
    as_user(create, "member", uid=ALICE, groups=(STAFF,))
    assert mode_of(directory / "member") == 0o2775
