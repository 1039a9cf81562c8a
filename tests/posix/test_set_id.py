"""Set-id bits: cleared by who changes the contents; set-group-id directories give their group to what is in them."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.files import make, opened
from tests.posix.people import ALICE, STAFF, as_user, needs_root


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


CHANGES: dict[str, Callable[[Path], None]] = {
    "write": _with(os.O_WRONLY, lambda descriptor: os.write(descriptor, b"x")),
    "pwrite": _with(os.O_WRONLY, lambda descriptor: os.pwrite(descriptor, b"x", 1000)),
    "append": _with(os.O_WRONLY | os.O_APPEND, lambda descriptor: os.write(descriptor, b"x")),
    "ftruncate": _with(os.O_WRONLY, lambda descriptor: os.ftruncate(descriptor, 1)),
    "truncate": lambda path: os.truncate(path, 1),
    "open-truncate": _with(os.O_WRONLY | os.O_TRUNC, lambda descriptor: None),
    "fallocate": _with(os.O_WRONLY, lambda descriptor: os.posix_fallocate(descriptor, 0, 10_000)),
    "punch": _with(
        os.O_WRONLY,
        lambda descriptor: calls.fallocate(descriptor, calls.FALLOC_FL_PUNCH_HOLE | calls.FALLOC_FL_KEEP_SIZE, 0, 2),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("before", "after"), [(0o6777, 0o0777), (0o4777, 0o0777), (0o2777, 0o0777), (0o2767, 0o2767)])
def test_cleared_by_who_is_not_root(directory: Path, change: str, before: int, after: int) -> None:
    """Set-group-id without the group's execute bit (0o2767) is not a set-id bit; the kernel clears it for strangers to
    the group alone, so this one writes as a member."""
    path = make(directory / "f", b"content")
    os.chown(path, 0, STAFF)
    path.chmod(before)
    as_user(CHANGES[change], path, uid=ALICE, groups=(STAFF,))
    assert mode_of(path) == after


@pytest.mark.parametrize("change", CHANGES)
def test_kept_when_root_writes(directory: Path, change: str) -> None:
    path = make(directory / "f", b"content")
    path.chmod(0o6777)
    CHANGES[change](path)
    assert mode_of(path) == 0o6777


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
