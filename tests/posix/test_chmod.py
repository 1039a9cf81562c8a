"""chmod, fchmod, fchmodat."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.files import make, opened, refused
from tests.posix.people import ALICE, BOB, STAFF, as_user, needs_root


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0, 0o111, 0o644, 0o777, 0o1777, 0o2755, 0o4755, 0o7777, 0o6000])
@pytest.mark.parametrize("kind", ["file", "directory", "fifo"])
def test_every_bit(directory: Path, kind: str, mode: int) -> None:
    path = directory / "x"
    {"file": make, "directory": Path.mkdir, "fifo": os.mkfifo}[kind](path)
    path.chmod(mode)
    assert mode_of(path) == mode
    assert (
        stat.S_IFMT(path.stat().st_mode)
        == {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "fifo": stat.S_IFIFO}[kind]
    )
    path.chmod(0o700)
    assert mode_of(path) == 0o700


def test_type_bits_are_ignored(directory: Path) -> None:
    path = make(directory / "f")
    os.chmod(path, stat.S_IFDIR | 0o600)
    assert path.stat().st_mode == stat.S_IFREG | 0o600


def test_by_descriptor(directory: Path) -> None:
    path = make(directory / "f")
    with opened(path) as descriptor:
        os.fchmod(descriptor, 0o604)
        assert mode_of(path) == 0o604
        path.unlink()
        os.fchmod(descriptor, 0o600)
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600


def test_follows_symlinks(directory: Path) -> None:
    path = make(directory / "f")
    (directory / "link").symlink_to("f")
    os.chmod(directory / "link", 0o601)
    assert mode_of(path) == 0o601
    assert stat.S_IMODE(os.lstat(directory / "link").st_mode) == 0o777


def test_symlinks_have_no_mode_of_their_own(directory: Path) -> None:
    (directory / "link").symlink_to("f")
    with refused(errno.EOPNOTSUPP, errno.ENOSYS):  # ENOSYS: a kernel before fchmodat2
        calls.fchmodat2(directory / "link", 0o600, calls.AT_SYMLINK_NOFOLLOW)


def test_owner_may_and_others_may_not(directory: Path) -> None:
    needs_root()
    path = make(directory / "f", mode=0o666)
    os.chown(path, ALICE, STAFF)
    as_user(os.chmod, path, 0o777, uid=ALICE)
    assert mode_of(path) == 0o777
    with refused(errno.EPERM):
        as_user(os.chmod, path, 0o600, uid=BOB, gid=STAFF)

    def by_descriptor() -> None:
        with opened(path, os.O_RDWR) as descriptor:
            os.fchmod(descriptor, 0o600)

    with refused(errno.EPERM):
        as_user(by_descriptor, uid=BOB)
    assert mode_of(path) == 0o777


def test_owner_of_an_unreadable_file_may(directory: Path) -> None:
    needs_root()
    path = make(directory / "f", mode=0)
    os.chown(path, ALICE, ALICE)
    as_user(os.chmod, path, 0o400, uid=ALICE)
    assert mode_of(path) == 0o400


def test_set_group_id_needs_the_group(directory: Path) -> None:
    """Who is not in the file's group loses the bit and is told nothing."""
    needs_root()
    path = make(directory / "f")
    os.chown(path, ALICE, STAFF)
    as_user(os.chmod, path, 0o2755, uid=ALICE)
    assert mode_of(path) == 0o755
    as_user(os.chmod, path, 0o2755, uid=ALICE, gid=STAFF)
    assert mode_of(path) == 0o2755
    path.chmod(0o755)
    as_user(os.chmod, path, 0o2755, uid=ALICE, groups=(STAFF,))
    assert mode_of(path) == 0o2755


def test_set_user_id_is_the_owners_choice(directory: Path) -> None:
    needs_root()
    path = make(directory / "f")
    os.chown(path, ALICE, STAFF)
    as_user(os.chmod, path, 0o4755, uid=ALICE)
    assert mode_of(path) == 0o4755


def test_takes_effect_at_once(directory: Path) -> None:
    path = make(directory / "f", b"abc", 0o600)

    def read() -> bytes:
        with opened(path) as descriptor:
            return os.read(descriptor, 3)

    with refused(errno.EACCES):
        as_user(read)
    path.chmod(0o604)
    assert as_user(read) == b"abc"
    path.chmod(0o600)
    with refused(errno.EACCES):
        as_user(read)


def test_missing(directory: Path) -> None:
    with refused(errno.ENOENT):
        os.chmod(directory / "missing", 0o600)
    (directory / "link").symlink_to("missing")
    with refused(errno.ENOENT):
        os.chmod(directory / "link", 0o600)
