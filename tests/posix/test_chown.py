"""chown, lchown, fchown, and what a change of owner does to set-id bits."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.files import make, opened, refused
from tests.posix.people import ALICE, BOB, GUESTS, STAFF, as_user, needs_root


@pytest.fixture(autouse=True)
def root_only() -> None:
    needs_root()


def owner(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_uid, status.st_gid


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_both_one_and_none(directory: Path) -> None:
    path = make(directory / "f")
    os.chown(path, ALICE, STAFF)
    assert owner(path) == (ALICE, STAFF)
    os.chown(path, BOB, -1)
    assert owner(path) == (BOB, STAFF)
    os.chown(path, -1, GUESTS)
    assert owner(path) == (BOB, GUESTS)
    os.chown(path, -1, -1)
    assert owner(path) == (BOB, GUESTS)


@pytest.mark.parametrize("number", [0, 1, 65_534, 65_535, 65_536, (1 << 31) - 1, 1 << 31, (1 << 32) - 2])
def test_large_numbers(directory: Path, number: int) -> None:
    path = make(directory / "f")
    os.chown(path, number, number)
    assert owner(path) == (number, number)


def test_follows_symlinks_and_lchown_does_not(directory: Path) -> None:
    path = make(directory / "f")
    (directory / "link").symlink_to("f")
    os.chown(directory / "link", ALICE, STAFF)
    assert owner(path) == (ALICE, STAFF)
    assert owner(directory / "link") == (0, 0)
    os.lchown(directory / "link", BOB, GUESTS)
    assert owner(path) == (ALICE, STAFF)
    assert owner(directory / "link") == (BOB, GUESTS)


def test_dangling_symlink(directory: Path) -> None:
    (directory / "link").symlink_to("missing")
    with refused(errno.ENOENT):
        os.chown(directory / "link", ALICE, STAFF)
    os.lchown(directory / "link", ALICE, STAFF)
    assert owner(directory / "link") == (ALICE, STAFF)


def test_by_descriptor(directory: Path) -> None:
    path = make(directory / "f")
    with opened(path) as descriptor:
        os.fchown(descriptor, ALICE, STAFF)
        assert owner(path) == (ALICE, STAFF)
        path.unlink()
        os.fchown(descriptor, BOB, -1)
        assert os.fstat(descriptor).st_uid == BOB


def test_owners_cannot_give_files_away(directory: Path) -> None:
    path = make(directory / "f")
    os.chown(path, ALICE, ALICE)
    with refused(errno.EPERM):
        as_user(os.chown, path, BOB, -1, uid=ALICE)
    with refused(errno.EPERM):
        as_user(os.chown, path, BOB, ALICE, uid=ALICE)
    assert owner(path) == (ALICE, ALICE)


def test_owners_may_name_themselves(directory: Path) -> None:
    path = make(directory / "f")
    os.chown(path, ALICE, ALICE)
    as_user(os.chown, path, ALICE, ALICE, uid=ALICE)
    as_user(os.chown, path, ALICE, -1, uid=ALICE)


def test_owners_choose_among_their_groups(directory: Path) -> None:
    path = make(directory / "f")
    os.chown(path, ALICE, ALICE)
    as_user(os.chown, path, -1, STAFF, uid=ALICE, groups=(STAFF,))
    assert owner(path) == (ALICE, STAFF)
    as_user(os.chown, path, -1, ALICE, uid=ALICE)
    assert owner(path) == (ALICE, ALICE)
    with refused(errno.EPERM):
        as_user(os.chown, path, -1, GUESTS, uid=ALICE, groups=(STAFF,))
    assert owner(path) == (ALICE, ALICE)


def test_others_change_nothing(directory: Path) -> None:
    path = make(directory / "f", mode=0o666)
    os.chown(path, ALICE, STAFF)
    for uid, gid in ((BOB, -1), (-1, STAFF), (-1, BOB), (ALICE, STAFF)):
        with refused(errno.EPERM):
            as_user(os.chown, path, uid, gid, uid=BOB, groups=(STAFF,))
    assert owner(path) == (ALICE, STAFF)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (0o6755, 0o0755),
        (0o4755, 0o0755),
        (0o2755, 0o0755),
        (0o2745, 0o2745),  # without the group's execute bit, set-group-id stays (it once meant mandatory locking)
        (0o6644, 0o2644),
    ],
)
def test_set_id_bits_go_with_the_owner(directory: Path, before: int, after: int) -> None:
    """Linux clears them even for root."""
    path = make(directory / "f")
    path.chmod(before)
    os.chown(path, ALICE, STAFF)
    assert mode_of(path) == after


def test_set_id_bits_go_with_the_group(directory: Path) -> None:
    path = make(directory / "f")
    os.chown(path, ALICE, ALICE)
    path.chmod(0o6755)
    as_user(os.chown, path, -1, STAFF, uid=ALICE, groups=(STAFF,))
    assert owner(path) == (ALICE, STAFF)
    assert mode_of(path) == 0o755


def test_set_group_id_of_a_directory_stays(directory: Path) -> None:
    path = directory / "d"
    path.mkdir()
    path.chmod(0o6775)
    os.chown(path, ALICE, STAFF)
    assert mode_of(path) == 0o6775


def test_takes_effect_at_once(directory: Path) -> None:
    path = make(directory / "f", b"abc", 0o600)

    def read() -> bytes:
        with opened(path) as descriptor:
            return os.read(descriptor, 3)

    with refused(errno.EACCES):
        as_user(read, uid=ALICE)
    os.chown(path, ALICE, -1)
    assert as_user(read, uid=ALICE) == b"abc"
    os.chown(path, BOB, -1)
    with refused(errno.EACCES):
        as_user(read, uid=ALICE)


def test_special_files(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    os.chown(directory / "fifo", ALICE, STAFF)
    assert owner(directory / "fifo") == (ALICE, STAFF)


def test_missing(directory: Path) -> None:
    for call in (os.chown, os.lchown):
        with refused(errno.ENOENT):
            call(directory / "missing", ALICE, ALICE)
