"""fsync, fdatasync, syncfs, sync_file_range, sync."""

import errno
import os
from pathlib import Path

from tests.posix import calls
from tests.posix.files import make, opened, pattern, refused, write_all


def test_file(directory: Path) -> None:
    with opened(directory / "f", os.O_RDWR | os.O_CREAT) as descriptor:
        for number in range(5):
            write_all(descriptor, pattern(10_000, number))
            (os.fsync, os.fdatasync)[number % 2](descriptor)
            assert os.fstat(descriptor).st_size == 10_000 * (number + 1)


def test_read_only_descriptor_syncs_what_others_wrote(directory: Path) -> None:
    path = directory / "f"
    with opened(path, os.O_WRONLY | os.O_CREAT) as writer, opened(path) as reader:
        write_all(writer, pattern(10_000))
        os.fsync(reader)
        os.fdatasync(reader)


def test_nothing_to_do(directory: Path) -> None:
    with opened(make(directory / "f"), os.O_RDWR) as descriptor:
        os.fsync(descriptor)
        os.fsync(descriptor)
        os.fdatasync(descriptor)


def test_directory(directory: Path) -> None:
    make(directory / "f")
    with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)
        os.fdatasync(descriptor)
        (directory / "f").rename(directory / "g")
        os.fsync(descriptor)


def test_deleted_file_and_directory(directory: Path) -> None:
    (directory / "d").mkdir()
    with opened(directory / "f", os.O_RDWR | os.O_CREAT) as file, opened(directory / "d") as parent:
        write_all(file, pattern(10_000))
        (directory / "f").unlink()
        (directory / "d").rmdir()
        os.fsync(file)
        os.fsync(parent)


def test_whole_file_system(directory: Path) -> None:
    with opened(directory / "f", os.O_RDWR | os.O_CREAT) as descriptor:
        write_all(descriptor, pattern(10_000))
        calls.syncfs(descriptor)
    with opened(directory) as descriptor:
        calls.syncfs(descriptor)


def test_what_cannot_be_synced(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    with opened(directory / "fifo", os.O_RDWR) as descriptor:
        with refused(errno.EINVAL):
            os.fsync(descriptor)
    with opened(make(directory / "f"), os.O_PATH) as descriptor, refused(errno.EBADF):
        os.fsync(descriptor)


def test_many_files_then_one_sync_each(directory: Path) -> None:
    descriptors = [os.open(directory / f"f{number}", os.O_RDWR | os.O_CREAT) for number in range(30)]
    try:
        for number, descriptor in enumerate(descriptors):
            write_all(descriptor, pattern(5000, number))
        for descriptor in descriptors:
            os.fsync(descriptor)
        for number, descriptor in enumerate(descriptors):
            assert os.pread(descriptor, 6000, 0) == pattern(5000, number)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
