"""renameat2: NOREPLACE, EXCHANGE and WHITEOUT."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.calls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, renameat2
from tests.posix.files import exists, make, names, opened, refused
from tests.posix.people import ALICE, actor, as_user
from tests.posix.test_rename import KINDS, build


@pytest.mark.parametrize("kind", KINDS)
def test_noreplace_to_a_free_name(directory: Path, kind: str) -> None:
    path = build(directory, "old", kind)
    inode = os.lstat(path).st_ino
    renameat2(path, directory / "new", RENAME_NOREPLACE)
    assert os.lstat(directory / "new").st_ino == inode
    assert not exists(path)


@pytest.mark.parametrize("taken", KINDS)
def test_noreplace_over_what_is_there(directory: Path, taken: str) -> None:
    source, target = build(directory, "old", "file"), build(directory, "new", taken)
    inode = os.lstat(target).st_ino
    with refused(errno.EEXIST):
        renameat2(source, target, RENAME_NOREPLACE)
    assert os.lstat(target).st_ino == inode
    assert exists(source)


def test_noreplace_of_itself(directory: Path) -> None:
    path = make(directory / "f")
    with refused(errno.EEXIST):
        renameat2(path, path, RENAME_NOREPLACE)


def _compete(directory: Path, who: int, count: int) -> int:
    won = 0
    for number in range(count):
        make(directory / f"mine-{who}")
        try:
            renameat2(directory / f"mine-{who}", directory / f"prize-{number}", RENAME_NOREPLACE)
            won += 1
        except FileExistsError:
            pass
    return won


def test_noreplace_has_one_winner(directory: Path) -> None:
    with actor() as a, actor() as b:
        a.start(_compete, directory, 1, 100)
        b.start(_compete, directory, 2, 100)
        assert a.result() + b.result() == 100


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_exchange_of_any_two(directory: Path, first: str, second: str) -> None:
    (directory / "elsewhere").mkdir()
    a, b = build(directory, "a", first), build(directory / "elsewhere", "b", second)
    inodes = os.lstat(a).st_ino, os.lstat(b).st_ino
    renameat2(a, b, RENAME_EXCHANGE)
    assert (os.lstat(b).st_ino, os.lstat(a).st_ino) == inodes
    renameat2(a, b, RENAME_EXCHANGE)
    assert (os.lstat(a).st_ino, os.lstat(b).st_ino) == inodes


def test_exchange_with_itself(directory: Path) -> None:
    path = make(directory / "f", b"abc")
    renameat2(path, path, RENAME_EXCHANGE)
    assert path.read_bytes() == b"abc"


def test_exchange_needs_both(directory: Path) -> None:
    make(directory / "f")
    with refused(errno.ENOENT):
        renameat2(directory / "f", directory / "missing", RENAME_EXCHANGE)
    with refused(errno.ENOENT):
        renameat2(directory / "missing", directory / "f", RENAME_EXCHANGE)
    assert names(directory) == {"f"}


def test_exchange_of_a_directory_with_what_is_in_it(directory: Path) -> None:
    (directory / "a" / "b").mkdir(parents=True)
    for first, second in (("a", "a/b"), ("a/b", "a")):
        with refused(errno.EINVAL):
            renameat2(directory / first, directory / second, RENAME_EXCHANGE)


def test_exchange_while_both_are_open(directory: Path) -> None:
    make(directory / "a", b"first")
    make(directory / "b", b"second")
    with opened(directory / "a", os.O_RDWR) as a, opened(directory / "b") as b:
        renameat2(directory / "a", directory / "b", RENAME_EXCHANGE)
        os.pwrite(a, b"F", 0)
        assert os.pread(b, 10, 0) == b"second"
    assert (directory / "b").read_bytes() == b"First"
    assert (directory / "a").read_bytes() == b"second"


def test_exchange_moves_dot_dot(directory: Path) -> None:
    (directory / "a" / "x").mkdir(parents=True)
    (directory / "b" / "y").mkdir(parents=True)
    renameat2(directory / "a" / "x", directory / "b" / "y", RENAME_EXCHANGE)
    for parent, child in (("a", "x"), ("b", "y")):
        assert os.stat(f"{directory}/{parent}/{child}/..").st_ino == (directory / parent).stat().st_ino


def test_exchange_needs_permission_in_both_directories(directory: Path) -> None:
    (directory / "open").mkdir()
    (directory / "open").chmod(0o777)
    make(directory / "open" / "a")
    make(directory / "b")
    for first, second in (("open/a", "b"), ("b", "open/a")):
        with refused(errno.EACCES):
            as_user(renameat2, directory / first, directory / second, RENAME_EXCHANGE, uid=ALICE)


@pytest.mark.parametrize("flags", [RENAME_NOREPLACE | RENAME_EXCHANGE, 1 << 20])
def test_contradicting_and_unknown_flags(directory: Path, flags: int) -> None:
    make(directory / "a")
    make(directory / "b")
    with refused(errno.EINVAL):
        renameat2(directory / "a", directory / "b", flags)
    assert names(directory) == {"a", "b"}


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_white_out_is_left(directory: Path, kind: str, replaces: bool) -> None:
    (directory / "elsewhere").mkdir()
    old, new = build(directory, "old", kind), directory / "elsewhere" / "new"
    inode = os.lstat(old).st_ino
    assert os.listdir(directory / "elsewhere") == []
    if replaces:
        build(directory / "elsewhere", "new", "empty" if kind in ("empty", "full") else "file")
    renameat2(old, new, RENAME_WHITEOUT)
    assert os.lstat(new).st_ino == inode
    left = os.lstat(old)
    assert (left.st_mode, left.st_rdev, left.st_nlink) == (stat.S_IFCHR, 0, 1)
    assert {"old", "elsewhere"} <= names(directory)
    old.unlink()
    assert not exists(old)


def test_white_outs_of_somebody_without_privilege(directory: Path) -> None:
    directory.chmod(0o777)

    def leave() -> None:
        make(directory / "f")
        renameat2(directory / "f", directory / "g", RENAME_WHITEOUT)
        os.mknod(directory / "h", stat.S_IFCHR)

    as_user(leave)
    for name in ("f", "h"):
        left = os.lstat(directory / name)
        assert (left.st_rdev, left.st_uid, stat.S_IFMT(left.st_mode)) == (0, ALICE, stat.S_IFCHR)


def test_white_out_with_exchange(directory: Path) -> None:
    make(directory / "f")
    make(directory / "g")
    with refused(errno.EINVAL):
        renameat2(directory / "f", directory / "g", RENAME_WHITEOUT | RENAME_EXCHANGE)
