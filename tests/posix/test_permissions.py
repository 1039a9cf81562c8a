"""Who may do what: owner, group, others, root; search and write of directories on the way."""

import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.files import make, names, opened, refused
from tests.posix.people import ALICE, BOB, GUESTS, STAFF, actor, as_user, needs_root


@pytest.fixture(autouse=True)
def root_only() -> None:
    needs_root()


def _open(path: Path, flags: int) -> None:
    with opened(path, flags):
        pass


READS, WRITES = os.O_RDONLY, os.O_WRONLY


@pytest.mark.parametrize("who", ["owner", "group", "supplementary", "others"])
@pytest.mark.parametrize("bits", range(8))
def test_open(directory: Path, who: str, bits: int) -> None:
    """Class of the user, bits of that class: the other classes have the opposite bits and do not matter."""
    shift = {"owner": 6, "group": 3, "supplementary": 3, "others": 0}[who]
    path = make(directory / "f")
    os.chown(path, ALICE, STAFF)
    path.chmod(bits << shift | (~bits & 7) * (0o111 & ~(1 << shift)))
    identity = {
        "owner": (ALICE, GUESTS, (STAFF,)),
        "group": (BOB, STAFF, ()),
        "supplementary": (BOB, BOB, (GUESTS, STAFF)),
        "others": (BOB, BOB, (GUESTS,)),
    }[who]
    uid, gid, groups = identity
    with actor(uid=uid, gid=gid, groups=groups) as one:
        for flags, allowed in (
            (os.O_RDONLY, bits & 4),
            (os.O_WRONLY, bits & 2),
            (os.O_RDWR, bits & 6 == 6),
            (os.O_WRONLY | os.O_TRUNC, bits & 2),
            (os.O_WRONLY | os.O_APPEND, bits & 2),
            (os.O_RDONLY | os.O_TRUNC, bits & 6 == 6),
        ):
            if allowed:
                one(_open, path, flags)
            else:
                with refused(errno.EACCES):
                    one(_open, path, flags)


def test_many_supplementary_groups(directory: Path) -> None:
    """More than the 16 or 32 that some protocols carry."""
    path = make(directory / "f", mode=0o640)
    os.chown(path, 0, STAFF)
    groups = tuple(range(50_000, 50_060))
    with refused(errno.EACCES):
        as_user(_open, path, os.O_RDONLY, groups=groups)
    as_user(_open, path, os.O_RDONLY, groups=(*groups, STAFF))


def test_root_may_all(directory: Path) -> None:
    (directory / "d").mkdir(0)
    make(directory / "d" / "f", b"abc", 0)
    os.chown(directory / "d", ALICE, ALICE)
    assert (directory / "d" / "f").read_bytes() == b"abc"
    _open(directory / "d" / "f", os.O_RDWR)
    assert names(directory / "d") == {"f"}


@pytest.mark.parametrize("bits", range(8))
def test_directory_bits(directory: Path, bits: int) -> None:
    """r: list; x: go through and look up; w with x: add and remove."""
    path = directory / "d"
    path.mkdir()
    make(path / "f", b"abc")
    make(path / "victim")
    path.chmod(0o770 | bits)

    def allowed(call, *arguments) -> bool:  # type: ignore[no-untyped-def]
        try:
            call(*arguments)
        except PermissionError as error:
            assert error.errno == errno.EACCES
            return False
        return True

    def ask() -> dict[str, bool]:
        return {
            "list": allowed(os.listdir, path),
            "stat": allowed(os.stat, path / "f"),
            "read": allowed(_open, path / "f", os.O_RDONLY),
            "missing": allowed(_missing, path / "missing"),
            "add": allowed(make, path / "new"),
            "mkdir": allowed(os.mkdir, path / "newdir"),
            "rename": allowed(os.rename, path / "victim", path / "renamed"),
            "remove": allowed(_remove_either, path),
            "stat-itself": allowed(os.stat, path),
            "chdir": allowed(os.chdir, path),
        }

    reads, writes, searches = bool(bits & 4), bits & 3 == 3, bool(bits & 1)
    assert as_user(ask) == {
        "list": reads,
        "stat": searches,
        "read": searches,
        "missing": searches,
        "add": writes,
        "mkdir": writes,
        "rename": writes,
        "remove": writes,
        "stat-itself": True,
        "chdir": searches,
    }


def _missing(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.stat(path)


def _remove_either(path: Path) -> None:
    try:
        os.unlink(path / "renamed")
    except FileNotFoundError:
        os.unlink(path / "victim")


def test_every_directory_on_the_way_must_be_searchable(directory: Path) -> None:
    path = directory / "a" / "b" / "c"
    path.mkdir(parents=True)
    make(path / "f")
    as_user(_open, path / "f", os.O_RDONLY)
    for closed in (directory / "a", directory / "a" / "b", path):
        closed.chmod(0o766)
        with refused(errno.EACCES):
            as_user(_open, path / "f", os.O_RDONLY)
        closed.chmod(0o711)
    as_user(_open, path / "f", os.O_RDONLY)


def test_descriptor_of_a_directory_does_not_need_the_way_to_it(directory: Path) -> None:
    (directory / "private").mkdir(0o700)
    (directory / "private" / "public").mkdir()
    make(directory / "private" / "public" / "f", b"abc")

    def read() -> bytes:
        parent = os.open(directory / "private" / "public", os.O_RDONLY | os.O_DIRECTORY)
        os.setresuid(ALICE, ALICE, ALICE)
        with opened("f", directory=parent) as descriptor:
            return os.read(descriptor, 10)

    assert as_user(read, uid=0) == b"abc"


def test_open_descriptor_keeps_its_rights(directory: Path) -> None:
    path = make(directory / "f", b"abc", 0o666)
    with actor(uid=ALICE, gid=ALICE) as alice:
        descriptor = alice(os.open, path, os.O_RDWR)
        path.chmod(0)
        directory.chmod(0o700)
        assert alice(os.pread, descriptor, 3, 0) == b"abc"
        assert alice(os.pwrite, descriptor, b"ABC", 0) == 3
        assert alice(os.fstat, descriptor).st_size == 3
        alice(os.fsync, descriptor)
        with refused(errno.EACCES):
            alice(os.open, path, os.O_RDONLY)


def test_change_takes_effect_for_others_at_once(directory: Path) -> None:
    path = make(directory / "f", b"abc", 0o600)
    with actor(uid=ALICE, gid=ALICE) as alice:
        for _ in range(5):
            with refused(errno.EACCES):
                alice(_open, path, os.O_RDONLY)
            path.chmod(0o644)
            alice(_open, path, os.O_RDONLY)
            path.chmod(0o600)
        directory.chmod(0o700)
        with refused(errno.EACCES):
            alice(os.stat, path)
        directory.chmod(0o755)
        alice(os.stat, path)


def test_new_files_belong_to_who_makes_them(directory: Path) -> None:
    directory.chmod(0o777)

    def create() -> None:
        make(directory / "file")
        os.mkdir(directory / "dir")
        os.symlink("x", directory / "link")
        os.mkfifo(directory / "fifo")
        os.mknod(directory / "socket", stat.S_IFSOCK | 0o600)

    as_user(create, uid=ALICE, gid=STAFF)
    for name in names(directory):
        status = os.lstat(directory / name)
        assert (status.st_uid, status.st_gid) == (ALICE, STAFF), name


def test_existing_file_is_opened_by_create_with_its_own_mode(directory: Path) -> None:
    """O_CREAT needs no permission in the directory when the file is there."""
    make(directory / "f", b"abc", 0o666)
    as_user(_open, directory / "f", os.O_RDWR | os.O_CREAT)
    with refused(errno.EACCES):
        as_user(_open, directory / "g", os.O_RDWR | os.O_CREAT)


def test_fsuid_of_a_thread_counts(directory: Path) -> None:
    """As file servers do it: effective user changed, real user kept."""
    make(directory / "f", mode=0o600)
    os.chown(directory / "f", ALICE, ALICE)

    def read() -> None:
        os.seteuid(BOB)
        with refused(errno.EACCES):
            _open(directory / "f", os.O_RDONLY)
        os.seteuid(0)
        os.seteuid(ALICE)
        _open(directory / "f", os.O_RDONLY)

    as_user(read, uid=0)
