"""setxattr, getxattr, listxattr, removexattr and their l and f forms."""

import errno
import os
from pathlib import Path

import pytest

from tests.posix.files import clock_moves, make, opened, refused
from tests.posix.people import ALICE, BOB, as_user, needs_root
from tests.posix.subject import Subject

XATTR_SIZE_MAX = 65_536
XATTR_NAME_MAX = 255


def user_names(path: Path) -> set[str]:
    return {name for name in os.listxattr(path) if name.startswith("user.")}


def test_set_get_list_remove(directory: Path) -> None:
    path = make(directory / "f")
    assert user_names(path) == set()
    os.setxattr(path, "user.one", b"1")
    os.setxattr(path, "user.two", b"22")
    assert os.getxattr(path, "user.one") == b"1"
    assert os.getxattr(path, "user.two") == b"22"
    assert user_names(path) == {"user.one", "user.two"}
    os.removexattr(path, "user.one")
    assert user_names(path) == {"user.two"}
    with refused(errno.ENODATA):
        os.getxattr(path, "user.one")


def test_replaced(directory: Path) -> None:
    path = make(directory / "f")
    for value in (b"first", b"", b"a longer one than the first", b"x"):
        os.setxattr(path, "user.x", value)
        assert os.getxattr(path, "user.x") == value
    assert user_names(path) == {"user.x"}


def test_empty_value_is_not_none(directory: Path) -> None:
    path = make(directory / "f")
    os.setxattr(path, "user.empty", b"")
    assert os.getxattr(path, "user.empty") == b""
    assert user_names(path) == {"user.empty"}


def test_any_bytes_in_a_value(directory: Path) -> None:
    path = make(directory / "f")
    value = bytes(range(256)) * 4
    os.setxattr(path, "user.bytes", value)
    assert os.getxattr(path, "user.bytes") == value


def test_create_and_replace_flags(directory: Path) -> None:
    path = make(directory / "f")
    with refused(errno.ENODATA):
        os.setxattr(path, "user.x", b"1", os.XATTR_REPLACE)
    os.setxattr(path, "user.x", b"1", os.XATTR_CREATE)
    with refused(errno.EEXIST):
        os.setxattr(path, "user.x", b"2", os.XATTR_CREATE)
    assert os.getxattr(path, "user.x") == b"1"
    os.setxattr(path, "user.x", b"3", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.x") == b"3"
    with refused(errno.EINVAL):
        os.setxattr(path, "user.x", b"4", 0x10)


def test_missing(directory: Path) -> None:
    path = make(directory / "f")
    with refused(errno.ENODATA):
        os.getxattr(path, "user.none")
    with refused(errno.ENODATA):
        os.removexattr(path, "user.none")
    for call in (os.listxattr, lambda path: os.getxattr(path, "user.x"), lambda path: os.setxattr(path, "user.x", b"")):
        with refused(errno.ENOENT):
            call(directory / "missing")


def test_namespaces(directory: Path) -> None:
    path = make(directory / "f")
    for name in ("nonamespace", "unknown.x", "user"):
        with refused(errno.EOPNOTSUPP):
            os.setxattr(path, name, b"x")
        with refused(errno.EOPNOTSUPP):
            os.getxattr(path, name)
    with refused(errno.EINVAL, errno.EOPNOTSUPP):
        os.setxattr(path, "user.", b"x")


def test_names_at_their_limits(directory: Path) -> None:
    path = make(directory / "f")
    longest = "user." + "n" * (XATTR_NAME_MAX - 5)
    os.setxattr(path, longest, b"x")
    assert user_names(path) == {longest}
    with refused(errno.ERANGE):
        os.setxattr(path, longest + "n", b"x")
    with refused(errno.ERANGE):
        os.setxattr(path, "", b"x")


def test_values_at_their_limits(directory: Path) -> None:
    """The kernel's limit is 64 KiB; a file system may have a smaller one, and says ENOSPC or E2BIG then."""
    path = make(directory / "f")
    with refused(errno.E2BIG):
        os.setxattr(path, "user.x", bytes(XATTR_SIZE_MAX + 1))
    try:
        os.setxattr(path, "user.x", b"v" * XATTR_SIZE_MAX)
    except OSError as error:
        assert error.errno in (errno.ENOSPC, errno.E2BIG)
        os.setxattr(path, "user.x", b"v" * 3000)
        assert os.getxattr(path, "user.x") == b"v" * 3000
    else:
        assert os.getxattr(path, "user.x") == b"v" * XATTR_SIZE_MAX


def test_many(directory: Path) -> None:
    path = make(directory / "f")
    expected = {f"user.attribute-{number}" for number in range(50)}
    for name in expected:
        os.setxattr(path, name, name.encode())
    assert user_names(path) == expected
    assert all(os.getxattr(path, name) == name.encode() for name in expected)


def test_case_and_odd_bytes_in_names(directory: Path) -> None:
    path = make(directory / "f")
    for name in ("user.Case", "user.case", "user.sp ace", "user.\u00fc", "user.a.b.c"):
        os.setxattr(path, name, name.encode())
    assert user_names(path) == {"user.Case", "user.case", "user.sp ace", "user.\u00fc", "user.a.b.c"}


def test_of_a_directory(directory: Path) -> None:
    os.setxattr(directory, "user.x", b"1")
    assert os.getxattr(directory, "user.x") == b"1"
    make(directory / "f")
    assert user_names(directory / "f") == set()


def test_by_descriptor_and_after_unlink(directory: Path) -> None:
    path = make(directory / "f")
    with opened(path) as descriptor:
        os.setxattr(descriptor, "user.x", b"1")
        assert os.getxattr(path, "user.x") == b"1"
        path.unlink()
        os.setxattr(descriptor, "user.x", b"2")
        assert os.getxattr(descriptor, "user.x") == b"2"


def test_belongs_to_the_file_not_to_the_name(directory: Path) -> None:
    make(directory / "a")
    os.link(directory / "a", directory / "b")
    os.setxattr(directory / "a", "user.x", b"1")
    assert os.getxattr(directory / "b", "user.x") == b"1"
    (directory / "a").rename(directory / "c")
    assert os.getxattr(directory / "c", "user.x") == b"1"
    make(directory / "d").rename(directory / "c")
    with refused(errno.ENODATA):
        os.getxattr(directory / "c", "user.x")


def test_new_file_of_the_same_name_has_none(directory: Path) -> None:
    path = make(directory / "f")
    os.setxattr(path, "user.x", b"1")
    path.unlink()
    assert user_names(make(path)) == set()


def test_symlinks_are_followed(directory: Path) -> None:
    path = make(directory / "f")
    (directory / "link").symlink_to("f")
    os.setxattr(directory / "link", "user.x", b"1")
    assert os.getxattr(path, "user.x") == b"1"


@pytest.mark.parametrize("kind", ["symlink", "fifo"])
def test_user_attributes_are_for_files_and_directories(directory: Path, kind: str) -> None:
    """xattr(7): permission bits of other types mean something else, so anybody could fill the disk through them."""
    path = directory / "x"
    if kind == "symlink":
        path.symlink_to("anywhere")
    else:
        os.mkfifo(path)
    with refused(errno.EPERM):
        os.setxattr(path, "user.x", b"1", follow_symlinks=False)
    with refused(errno.ENODATA, errno.EPERM):
        os.getxattr(path, "user.x", follow_symlinks=False)


def test_permissions_are_those_of_the_contents(directory: Path) -> None:
    path = make(directory / "f", mode=0o644)
    os.setxattr(path, "user.x", b"1")
    assert as_user(os.getxattr, path, "user.x") == b"1"
    with refused(errno.EACCES):
        as_user(os.setxattr, path, "user.x", b"2")
    with refused(errno.EACCES):
        as_user(os.removexattr, path, "user.x")
    path.chmod(0o666)
    as_user(os.setxattr, path, "user.x", b"2", uid=BOB)
    path.chmod(0o600)
    with refused(errno.EACCES):
        as_user(os.getxattr, path, "user.x", uid=BOB)


def test_read_only_descriptor_of_the_owner_is_enough(directory: Path) -> None:
    """It is the file's mode that counts, not how it was opened."""
    directory.chmod(0o777)

    def run() -> bytes:
        path = make(directory / "f")
        with opened(path, os.O_RDONLY) as descriptor:
            os.setxattr(descriptor, "user.x", b"1")
            return os.getxattr(descriptor, "user.x")

    assert as_user(run) == b"1"


def test_sticky_directory_keeps_them_for_its_owner(directory: Path) -> None:
    directory.chmod(0o1777)
    with refused(errno.EPERM):
        as_user(os.setxattr, directory, "user.x", b"1", uid=ALICE)
    directory.chmod(0o777)
    as_user(os.setxattr, directory, "user.x", b"1", uid=ALICE)


def test_trusted_is_for_root(directory: Path) -> None:
    needs_root()
    path = make(directory / "f", mode=0o666)
    os.setxattr(path, "trusted.x", b"1")
    assert os.getxattr(path, "trusted.x") == b"1"
    assert "trusted.x" in os.listxattr(path)
    with refused(errno.ENODATA):
        as_user(os.getxattr, path, "trusted.x")
    with refused(errno.EPERM):
        as_user(os.setxattr, path, "trusted.x", b"2")
    assert "trusted.x" not in as_user(os.listxattr, path)


def test_writing_keeps_them(directory: Path) -> None:
    path = make(directory / "f")
    os.setxattr(path, "user.x", b"1")
    clock_moves(directory)
    with opened(path, os.O_RDWR | os.O_TRUNC) as descriptor:
        os.write(descriptor, b"abc")
    path.chmod(0o600)
    assert os.getxattr(path, "user.x") == b"1"


def test_seen_everywhere(subject: Subject) -> None:
    make(subject.path / "f")
    for number in range(10):
        os.setxattr(subject.path / "f", "user.x", b"%d" % number)
        assert os.getxattr(subject.other / "f", "user.x") == b"%d" % number
