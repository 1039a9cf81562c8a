"""mknod, mkfifo: fifos between processes, sockets that are bound, devices."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from tests.posix.files import exists, make, opened, pattern, refused
from tests.posix.people import actor, as_user, needs_root
from tests.posix.subject import Subject


@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, 0])
def test_types(directory: Path, kind: int) -> None:
    """Type 0 is a regular file."""
    os.mknod(directory / "x", kind | 0o640)
    assert os.lstat(directory / "x").st_mode == (kind or stat.S_IFREG) | 0o640
    assert os.lstat(directory / "x").st_nlink == 1


def test_mode_and_umask(directory: Path) -> None:
    os.umask(0o027)
    os.mkfifo(directory / "fifo", 0o666)
    assert stat.S_IMODE((directory / "fifo").stat().st_mode) == 0o640


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_devices(directory: Path, kind: int) -> None:
    needs_root()
    number = os.makedev(259, 70_000)
    os.mknod(directory / "device", kind | 0o600, number)
    status = (directory / "device").stat()
    assert stat.S_IFMT(status.st_mode) == kind
    assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == (259, 70_000)


def test_device_works(subject: Subject) -> None:
    needs_root()
    subject.needs("dev")
    os.mknod(subject.path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with opened(subject.path / "null", os.O_RDWR) as descriptor:
        assert os.write(descriptor, b"gone") == 4
        assert os.read(descriptor, 4) == b""


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_devices_are_for_root(directory: Path, kind: int) -> None:
    directory.chmod(0o777)
    with refused(errno.EPERM):
        as_user(os.mknod, directory / "device", kind | 0o600, os.makedev(1, 3))
    as_user(os.mknod, directory / "fifo", stat.S_IFIFO | 0o600)
    assert not exists(directory / "device")


def test_directories_and_symlinks_are_not_made_so(directory: Path) -> None:
    with refused(errno.EPERM, errno.EINVAL):
        os.mknod(directory / "x", stat.S_IFDIR | 0o755)
    with refused(errno.EINVAL):
        os.mknod(directory / "x", stat.S_IFLNK | 0o755)


@pytest.mark.parametrize("taken", ["file", "directory", "dangling"])
def test_name_is_taken(directory: Path, taken: str) -> None:
    make(directory / "file")
    (directory / "directory").mkdir()
    (directory / "dangling").symlink_to("missing")
    for kind in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
        with refused(errno.EEXIST):
            os.mknod(directory / taken, kind | 0o600)


def test_parents(directory: Path) -> None:
    make(directory / "file")
    with refused(errno.ENOENT):
        os.mkfifo(directory / "missing" / "fifo")
    with refused(errno.ENOTDIR):
        os.mkfifo(directory / "file" / "fifo")
    with refused(errno.ENOENT, errno.ENOTDIR, errno.EEXIST):
        os.mkfifo(f"{directory}/fifo/")
    with refused(errno.EACCES):
        as_user(os.mkfifo, directory / "fifo")


def _read_whole(path: Path) -> bytes:
    return path.read_bytes()


def test_fifo_between_processes(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    data = pattern(300_000)
    with actor() as reader:
        reader.start(_read_whole, directory / "fifo")
        with opened(directory / "fifo", os.O_WRONLY) as descriptor:
            sent = 0
            while sent < len(data):
                sent += os.write(descriptor, data[sent:])
        assert reader.result() == data
    assert (directory / "fifo").stat().st_size == 0


def test_fifo_has_names_and_links(directory: Path) -> None:
    """The names lead to one pipe: what goes in at one comes out at the other."""
    os.mkfifo(directory / "a")
    os.link(directory / "a", directory / "b")
    (directory / "a").rename(directory / "c")
    with opened(directory / "b", os.O_RDWR) as one, opened(directory / "c", os.O_RDWR) as other:
        os.write(one, b"through")
        assert os.read(other, 7) == b"through"


def test_write_to_a_fifo_whose_reader_left(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    with opened(directory / "fifo", os.O_RDONLY | os.O_NONBLOCK):
        writer = os.open(directory / "fifo", os.O_WRONLY)
    try:
        with refused(errno.EPIPE):
            os.write(writer, b"x")
    finally:
        os.close(writer)


def test_socket_between_processes(directory: Path) -> None:
    # The address has room for 107 bytes, which a test's directory may well exceed: bound by a relative name.
    here = os.open(".", os.O_RDONLY)
    os.chdir(directory)
    try:
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
            listener.bind("socket")
            listener.listen()
            assert stat.S_ISSOCK(os.lstat("socket").st_mode)
            caller.settimeout(10)
            caller.connect("socket")
            accepted, _ = listener.accept()
            with accepted:
                caller.sendall(b"hello")
                assert accepted.recv(5) == b"hello"
            with socket.socket(socket.AF_UNIX) as second, refused(errno.EADDRINUSE):
                second.bind("socket")
        with socket.socket(socket.AF_UNIX) as late, refused(errno.ECONNREFUSED):
            late.connect("socket")
        os.unlink("socket")
    finally:
        os.chdir(here)
        os.close(here)


def test_socket_mode_decides_who_connects(directory: Path) -> None:
    os.chmod(directory, 0o755)

    def connect() -> None:
        os.chdir(directory)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect("socket")

    here = os.open(".", os.O_RDONLY)
    os.chdir(directory)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
            listener.listen()
            os.chmod("socket", 0o600)
            with refused(errno.EACCES):
                as_user(connect)
            os.chmod("socket", 0o602)
            as_user(connect)
    finally:
        os.chdir(here)
        os.close(here)
