"""O_TMPFILE: a file without a name, and linkat(2) that gives it one."""

import errno
import os
import stat
from pathlib import Path

from tests.posix import calls
from tests.posix.files import make, opened, pattern, read_all, refused, write_all
from tests.posix.people import ALICE, as_user

UNNAMED = os.O_TMPFILE | os.O_RDWR


def test_no_name_and_no_links(directory: Path) -> None:
    with opened(directory, UNNAMED, 0o640) as descriptor:
        status = os.fstat(descriptor)
        assert stat.S_ISREG(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o640
        assert (status.st_nlink, status.st_size) == (0, 0)
        assert os.listdir(directory) == []
        write_all(descriptor, pattern(10_000))
        assert read_all(descriptor) == pattern(10_000)
        assert os.fstat(descriptor).st_size == 10_000


def test_umask(directory: Path) -> None:
    os.umask(0o027)
    with opened(directory, UNNAMED, 0o666) as descriptor:
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o640


def test_owner_is_who_opens(directory: Path) -> None:
    directory.chmod(0o777)

    def owner() -> tuple[int, int]:
        with opened(directory, UNNAMED, 0o600) as descriptor:
            return os.fstat(descriptor).st_uid, os.fstat(descriptor).st_gid

    assert as_user(owner) == (ALICE, ALICE)


def test_linked_through_proc(directory: Path) -> None:
    with opened(directory, UNNAMED, 0o600) as descriptor:
        write_all(descriptor, b"content")
        inode = os.fstat(descriptor).st_ino
        calls.linkat(calls.procfd(descriptor), directory / "named", calls.AT_SYMLINK_FOLLOW)
        assert os.fstat(descriptor).st_nlink == 1
        write_all(descriptor, b" and more")
    assert (directory / "named").read_bytes() == b"content and more"
    assert (directory / "named").stat().st_ino == inode


def test_linked_by_descriptor(directory: Path) -> None:
    with opened(directory, UNNAMED, 0o600) as descriptor:
        write_all(descriptor, b"content")
        calls.linkat("", directory / "named", calls.AT_EMPTY_PATH, old_directory=descriptor)
        calls.linkat("", directory / "again", calls.AT_EMPTY_PATH, old_directory=descriptor)
        assert os.fstat(descriptor).st_nlink == 2
    assert (directory / "named").read_bytes() == b"content"
    assert (directory / "again").samefile(directory / "named")


def test_linked_into_another_directory(directory: Path) -> None:
    (directory / "d").mkdir()
    with opened(directory, UNNAMED, 0o600) as descriptor:
        write_all(descriptor, b"content")
        calls.linkat(calls.procfd(descriptor), directory / "d" / "named", calls.AT_SYMLINK_FOLLOW)
    assert (directory / "d" / "named").read_bytes() == b"content"


def test_link_does_not_replace(directory: Path) -> None:
    make(directory / "taken", b"old")
    with opened(directory, UNNAMED, 0o600) as descriptor:
        with refused(errno.EEXIST):
            calls.linkat(calls.procfd(descriptor), directory / "taken", calls.AT_SYMLINK_FOLLOW)
        assert os.fstat(descriptor).st_nlink == 0
    assert (directory / "taken").read_bytes() == b"old"


def test_exclusive_can_never_be_linked(directory: Path) -> None:
    with opened(directory, UNNAMED | os.O_EXCL, 0o600) as descriptor:
        with refused(errno.ENOENT):
            calls.linkat(calls.procfd(descriptor), directory / "named", calls.AT_SYMLINK_FOLLOW)
    assert os.listdir(directory) == []


def test_linked_then_unlinked_cannot_come_back(directory: Path) -> None:
    with opened(directory, UNNAMED, 0o600) as descriptor:
        calls.linkat(calls.procfd(descriptor), directory / "named", calls.AT_SYMLINK_FOLLOW)
        (directory / "named").unlink()
        assert os.fstat(descriptor).st_nlink == 0
        write_all(descriptor, b"still here")
        assert read_all(descriptor) == b"still here"


def test_needs_write_access_of_the_descriptor(directory: Path) -> None:
    with refused(errno.EINVAL):
        os.open(directory, os.O_TMPFILE | os.O_RDONLY)


def test_not_in_a_file(directory: Path) -> None:
    make(directory / "f")
    with refused(errno.ENOTDIR):
        os.open(directory / "f", UNNAMED)
    with refused(errno.ENOENT):
        os.open(directory / "missing", UNNAMED)


def test_needs_write_permission_in_the_directory(directory: Path) -> None:
    directory.chmod(0o755)
    with refused(errno.EACCES):
        as_user(os.open, directory, UNNAMED)


def test_times_and_mode_can_be_set_before_it_appears(directory: Path) -> None:
    """How a file appears whole: contents, mode and times first, the name last."""
    with opened(directory, UNNAMED, 0o600) as descriptor:
        write_all(descriptor, b"content")
        os.fchmod(descriptor, 0o644)
        os.utime(descriptor, ns=(1_000_000_001, 2_000_000_002))
        calls.linkat(calls.procfd(descriptor), directory / "named", calls.AT_SYMLINK_FOLLOW)
    status = (directory / "named").stat()
    assert stat.S_IMODE(status.st_mode) == 0o644
    assert status.st_mtime_ns == 2_000_000_002


def test_contents_live_as_long_as_a_descriptor(directory: Path) -> None:
    with opened(directory, UNNAMED, 0o600) as descriptor:
        duplicate = os.dup(descriptor)
        write_all(descriptor, b"content")
    try:
        assert read_all(duplicate) == b"content"
    finally:
        os.close(duplicate)


def test_directory_can_be_removed_meanwhile(directory: Path) -> None:
    (directory / "d").mkdir()
    with opened(directory / "d", UNNAMED, 0o600) as descriptor:
        (directory / "d").rmdir()
        write_all(descriptor, b"content")
        assert read_all(descriptor) == b"content"
        calls.linkat(calls.procfd(descriptor), directory / "named", calls.AT_SYMLINK_FOLLOW)
    assert (directory / "named").read_bytes() == b"content"
