"""access, faccessat: asks for the real user."""

import errno
import os
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.files import make, refused
from tests.posix.people import ALICE, BOB, STAFF, as_user, needs_root

MODES = {"read": os.R_OK, "write": os.W_OK, "execute": os.X_OK}


def test_existence(directory: Path) -> None:
    path = make(directory / "f", mode=0)
    calls.faccessat2(path, os.F_OK)
    with refused(errno.ENOENT):
        calls.faccessat2(directory / "missing", os.F_OK)
    with refused(errno.ENOTDIR):
        calls.faccessat2(path / "x", os.F_OK)


@pytest.mark.parametrize("position", [("owner", 6, ALICE, ALICE), ("group", 3, BOB, STAFF), ("others", 0, BOB, BOB)])
@pytest.mark.parametrize("bits", range(8))
def test_each_class_and_each_bit(directory: Path, position: tuple[str, int, int, int], bits: int) -> None:
    """The first class that matches decides, even when another one would allow more."""
    needs_root()
    _, shift, uid, gid = position
    path = make(directory / "f")
    os.chown(path, ALICE, STAFF)
    path.chmod(bits << shift | (0o777 & ~(7 << shift) if bits == 0 else 0))

    def ask() -> list[bool]:
        return [os.access(path, mode) for mode in MODES.values()]

    assert as_user(ask, uid=uid, gid=gid) == [bool(bits & 4), bool(bits & 2), bool(bits & 1)]


def test_refusal_is_eacces(directory: Path) -> None:
    path = make(directory / "f", mode=0o600)
    for mode in MODES.values():
        with refused(errno.EACCES):
            as_user(calls.faccessat2, path, mode)


def test_supplementary_groups_count(directory: Path) -> None:
    needs_root()
    path = make(directory / "f", mode=0o640)
    os.chown(path, 0, STAFF)
    assert as_user(os.access, path, os.R_OK, groups=(STAFF,))
    assert not as_user(os.access, path, os.R_OK, groups=(STAFF + 1,))
    assert not as_user(os.access, path, os.W_OK, groups=(STAFF,))


def test_root_may_all_but_execute_what_nobody_may(directory: Path) -> None:
    needs_root()
    path = make(directory / "f", mode=0)
    calls.faccessat2(path, os.R_OK | os.W_OK)
    with refused(errno.EACCES):
        calls.faccessat2(path, os.X_OK)
    path.chmod(0o001)
    calls.faccessat2(path, os.X_OK)


def test_search_of_a_directory_on_the_way(directory: Path) -> None:
    (directory / "d").mkdir(0o700)
    make(directory / "d" / "f", mode=0o644)
    with refused(errno.EACCES):
        as_user(calls.faccessat2, directory / "d" / "f", os.F_OK)
    (directory / "d").chmod(0o711)
    as_user(calls.faccessat2, directory / "d" / "f", os.R_OK)


def test_real_user_decides_unless_told_otherwise(directory: Path) -> None:
    path = make(directory / "f", mode=0o600)
    needs_root()

    def ask() -> tuple[bool, bool]:
        os.setresuid(ALICE, 0, 0)
        return os.access(path, os.R_OK), os.access(path, os.R_OK, effective_ids=True)

    assert as_user(ask, uid=0) == (False, True)


def test_symlinks_are_followed_unless_told_otherwise(directory: Path) -> None:
    (directory / "link").symlink_to("missing")
    with refused(errno.ENOENT):
        calls.faccessat2(directory / "link", os.F_OK)
    calls.faccessat2(directory / "link", os.F_OK, calls.AT_SYMLINK_NOFOLLOW)


def test_invalid_mode(directory: Path) -> None:
    with refused(errno.EINVAL):
        calls.faccessat2(directory, 8)
