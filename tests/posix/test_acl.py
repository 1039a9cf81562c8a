"""Access control lists: set and read back, who they let in, what chmod and the umask do to them, who inherits them."""

import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix.calls import unsupported
from tests.posix.files import exists, make, opened, refused
from tests.posix.people import ALICE, BOB, CAROL, GUESTS, STAFF, as_user
from tests.posix.subject import Subject

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
OWNER, USER, OWNING_GROUP, GROUP, MASK, OTHERS = 1, 2, 4, 8, 16, 32
Entries = list[tuple[int, int, int]]
"""(tag, rights, user or group; -1 where there is none)"""


def acl(*entries: tuple[int, ...]) -> bytes:
    packed = (struct.pack("<HHi", *entry, *((-1,) if len(entry) == 2 else ())) for entry in entries)
    return struct.pack("<I", 2) + b"".join(packed)


def entries(path: Path, name: str = ACCESS) -> Entries:
    value = os.getxattr(path, name)
    assert struct.unpack_from("<I", value) == (2,)
    return list(struct.iter_unpack("<HHi", value[4:]))


def bits(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


ALICE_READS = acl((OWNER, 6), (USER, 4, ALICE), (OWNING_GROUP, 0), (MASK, 4), (OTHERS, 0))
HANDED_DOWN = acl((OWNER, 7), (USER, 7, ALICE), (OWNING_GROUP, 5), (GROUP, 4, STAFF), (MASK, 7), (OTHERS, 0))


@pytest.fixture
def place(directory: Path) -> Iterator[Path]:
    try:
        os.setxattr(directory, DEFAULT, HANDED_DOWN)
        os.removexattr(directory, DEFAULT)
    except OSError as error:
        if not unsupported(error):
            raise
        pytest.skip("this file system has no access control lists")
    yield directory


def test_set_read_and_taken_away(place: Path) -> None:
    path = make(place / "f", b"abc", 0o600)
    with refused(errno.ENODATA):
        os.getxattr(path, ACCESS)
    assert ACCESS not in os.listxattr(path)
    os.setxattr(path, ACCESS, ALICE_READS)
    assert os.getxattr(path, ACCESS) == ALICE_READS
    assert ACCESS in os.listxattr(path)
    assert bits(path) == 0o640, "the group bits are the mask"
    os.removexattr(path, ACCESS)
    with refused(errno.ENODATA):
        os.getxattr(path, ACCESS)
    assert ACCESS not in os.listxattr(path)
    assert bits(path) == 0o640


def test_a_list_that_says_no_more_than_a_mode_is_a_mode(place: Path) -> None:
    path = make(place / "f", b"", 0o600)
    os.setxattr(path, ACCESS, ALICE_READS)
    os.setxattr(path, ACCESS, acl((OWNER, 7), (OWNING_GROUP, 5), (OTHERS, 1)))
    assert bits(path) == 0o751
    with refused(errno.ENODATA):
        os.getxattr(path, ACCESS)


def test_who_is_let_in(place: Path) -> None:
    path = make(place / "f", b"abc", 0o600)
    with refused(errno.EACCES):
        as_user(path.read_bytes)
    os.setxattr(path, ACCESS, ALICE_READS)
    assert as_user(path.read_bytes) == b"abc"
    with refused(errno.EACCES):
        as_user(os.open, path, os.O_WRONLY)
    with refused(errno.EACCES):
        as_user(path.read_bytes, uid=BOB)
    os.removexattr(path, ACCESS)
    os.chmod(path, 0o600)
    with refused(errno.EACCES):
        as_user(path.read_bytes)


@pytest.mark.parametrize(
    ("rights", "uid", "groups", "allowed"),
    [
        ([(USER, 0, ALICE), (OWNING_GROUP, 7), (MASK, 7), (OTHERS, 7)], ALICE, (), False),
        ([(USER, 7, ALICE), (OWNING_GROUP, 0), (MASK, 3), (OTHERS, 7)], ALICE, (), False),
        ([(USER, 6, ALICE), (OWNING_GROUP, 0), (MASK, 7), (OTHERS, 0)], ALICE, (), True),
        ([(OWNING_GROUP, 0), (GROUP, 4, STAFF), (MASK, 7), (OTHERS, 0)], BOB, (STAFF,), True),
        ([(OWNING_GROUP, 0), (GROUP, 4, STAFF), (MASK, 3), (OTHERS, 4)], BOB, (STAFF,), False),
        (
            [(OWNING_GROUP, 0), (GROUP, 0, STAFF), (GROUP, 4, GUESTS), (MASK, 7), (OTHERS, 0)],
            BOB,
            (STAFF, GUESTS),
            True,
        ),
        ([(OWNING_GROUP, 0), (GROUP, 0, STAFF), (MASK, 7), (OTHERS, 7)], BOB, (STAFF,), False),
        ([(OWNING_GROUP, 0), (GROUP, 0, STAFF), (MASK, 7), (OTHERS, 4)], BOB, (GUESTS,), True),
        ([(OWNING_GROUP, 0), (GROUP, 0, STAFF), (MASK, 7), (OTHERS, 0)], CAROL, (), True),
    ],
)
def test_rights_are_of_the_entry_that_fits(
    place: Path, rights: Entries, uid: int, groups: tuple[int, ...], allowed: bool
) -> None:
    """`CAROL` owns the file."""
    path = make(place / "f", b"abc", 0o600)
    os.chown(path, CAROL, CAROL)
    os.setxattr(path, ACCESS, acl((OWNER, 6), *rights))
    if allowed:
        assert as_user(path.read_bytes, uid=uid, groups=groups) == b"abc"
    else:
        with refused(errno.EACCES):
            as_user(path.read_bytes, uid=uid, groups=groups)


def test_names_are_looked_up_and_made_by_who_is_let_in(place: Path) -> None:
    inside = place / "d"
    inside.mkdir(mode=0o700)
    make(inside / "f", b"abc", 0o644)
    os.setxattr(inside, ACCESS, acl((OWNER, 7), (USER, 1, ALICE), (OWNING_GROUP, 0), (MASK, 7), (OTHERS, 0)))
    assert as_user((inside / "f").read_bytes) == b"abc"
    with refused(errno.EACCES):
        as_user(os.listdir, inside)
    with refused(errno.EACCES):
        as_user(os.mkdir, inside / "new")
    with refused(errno.EACCES):
        as_user((inside / "f").read_bytes, uid=BOB)
    os.setxattr(inside, ACCESS, acl((OWNER, 7), (USER, 7, ALICE), (OWNING_GROUP, 0), (MASK, 7), (OTHERS, 0)))
    assert as_user(os.listdir, inside) == ["f"]
    as_user(os.mkdir, inside / "new")
    as_user(os.rename, inside / "f", inside / "new" / "g")
    as_user(os.unlink, inside / "new" / "g")
    assert os.listdir(inside / "new") == []


def test_chmod_changes_the_mask(place: Path) -> None:
    path = make(place / "f", b"abc", 0o600)
    os.setxattr(path, ACCESS, ALICE_READS)
    os.chmod(path, 0o711)
    assert entries(path) == [(OWNER, 7, -1), (USER, 4, ALICE), (OWNING_GROUP, 0, -1), (MASK, 1, -1), (OTHERS, 1, -1)]
    with refused(errno.EACCES):
        as_user(path.read_bytes)
    with opened(path) as descriptor:
        os.fchmod(descriptor, 0o640)
    assert as_user(path.read_bytes) == b"abc"
    assert os.getxattr(path, ACCESS) == ALICE_READS


def test_what_is_made_inherits(place: Path) -> None:
    os.setxattr(place, DEFAULT, HANDED_DOWN)
    assert os.getxattr(place, DEFAULT) == HANDED_DOWN
    os.umask(0o077)
    made = make_with_mode(place / "f", 0o640)
    assert bits(made) == 0o640, "the umask does not count"
    assert entries(made) == [
        (OWNER, 6, -1), (USER, 7, ALICE), (OWNING_GROUP, 5, -1), (GROUP, 4, STAFF), (MASK, 4, -1), (OTHERS, 0, -1)
    ]  # fmt: skip
    with refused(errno.ENODATA):
        os.getxattr(made, DEFAULT)
    below = place / "d"
    os.mkdir(below, 0o777)
    assert os.getxattr(below, DEFAULT) == HANDED_DOWN
    assert bits(below) == 0o770
    assert entries(below)[4] == (MASK, 7, -1)
    as_user(os.mkdir, below / "alice")
    assert os.getxattr(below / "alice", DEFAULT) == HANDED_DOWN
    os.mkfifo(place / "p", 0o666)
    assert bits(place / "p") == 0o660 and entries(place / "p")[4] == (MASK, 6, -1)
    os.symlink("nowhere", place / "l")
    with refused(errno.EOPNOTSUPP, errno.ENODATA):
        os.getxattr(place / "l", ACCESS, follow_symlinks=False)
    os.removexattr(place, DEFAULT)
    assert bits(make_with_mode(place / "g", 0o666)) == 0o600


def test_a_default_without_a_mask_gives_modes(place: Path) -> None:
    os.setxattr(place, DEFAULT, acl((OWNER, 7), (OWNING_GROUP, 5), (OTHERS, 4)))
    os.umask(0o077)
    made = make_with_mode(place / "f", 0o666)
    assert bits(made) == 0o644
    with refused(errno.ENODATA):
        os.getxattr(made, ACCESS)


def make_with_mode(path: Path, mode: int) -> Path:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    return path


def test_who_may_set(place: Path) -> None:
    path = make(place / "f", b"", 0o666)
    os.chown(path, BOB, BOB)
    with refused(errno.EPERM):
        as_user(os.setxattr, path, ACCESS, ALICE_READS)
    as_user(os.setxattr, path, ACCESS, ALICE_READS, uid=BOB)
    with refused(errno.EPERM):
        as_user(os.removexattr, path, ACCESS)
    assert os.getxattr(path, ACCESS) == ALICE_READS
    with refused(errno.EACCES):
        os.setxattr(path, DEFAULT, ALICE_READS)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\2\0\0\0abc",
        acl((OWNER, 6), (OWNING_GROUP, 0)),
        acl((OWNER, 6), (USER, 4, ALICE), (OWNING_GROUP, 0), (OTHERS, 0)),
        acl((OWNING_GROUP, 0), (OWNER, 6), (OTHERS, 0)),
        acl((OWNER, 8), (OWNING_GROUP, 0), (OTHERS, 0)),
        acl((OWNER, 6), (OWNING_GROUP, 0), (OTHERS, 0), (OTHERS, 0)),
        acl((64, 6), (OWNING_GROUP, 0), (OTHERS, 0)),
    ],
)
def test_lists_that_are_none(place: Path, value: bytes) -> None:
    path = make(place / "f", b"", 0o600)
    os.setxattr(path, ACCESS, ALICE_READS)
    if not value:
        os.setxattr(path, ACCESS, value)
        with refused(errno.ENODATA):
            os.getxattr(path, ACCESS)
        return
    with refused(errno.EINVAL):
        os.setxattr(path, ACCESS, value)
    assert os.getxattr(path, ACCESS) == ALICE_READS


def test_set_group_id_goes_when_a_stranger_to_the_group_sets_one(place: Path) -> None:
    path = make(place / "f", b"", 0o600)
    os.chown(path, BOB, STAFF)
    for groups, left in ((), 0), ((STAFF,), stat.S_ISGID):
        os.chmod(path, 0o2660)
        as_user(os.setxattr, path, ACCESS, ALICE_READS, uid=BOB, groups=groups)
        assert bits(path) & stat.S_ISGID == left


def test_a_file_without_a_name_inherits(place: Path) -> None:
    os.setxattr(place, DEFAULT, HANDED_DOWN)
    with opened(place, os.O_TMPFILE | os.O_WRONLY, 0o666) as descriptor:
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o660
        assert struct.pack("<HHi", USER, 7, ALICE) in os.getxattr(descriptor, ACCESS)


def test_the_other_mount_checks_them(subject: Subject, place: Path) -> None:
    path = make(place / "f", b"abc", 0o600)
    other = subject.other / "f"
    os.setxattr(path, ACCESS, ALICE_READS)
    assert as_user(other.read_bytes) == b"abc"
    assert os.getxattr(other, ACCESS) == ALICE_READS
    os.setxattr(subject.other, DEFAULT, HANDED_DOWN)
    make_with_mode(path.with_name("g"), 0o666)
    assert entries(other.with_name("g"))[1] == (USER, 7, ALICE)
    assert exists(other)
