"""O_APPEND: every write goes to the end, also when several processes write."""

import os
from pathlib import Path

import pytest

from tests.posix.files import make, opened, pattern, read_all
from tests.posix.people import actor
from tests.posix.subject import Subject

APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND
WRITERS, RECORDS = 4, 100


def test_position_before_a_write_does_not_matter(directory: Path) -> None:
    with opened(make(directory / "f", b"abc"), APPEND) as descriptor:
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        assert os.read(descriptor, 2) == b"ab"
        os.write(descriptor, b"def")
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 6
        os.lseek(descriptor, 1, os.SEEK_SET)
        os.write(descriptor, b"ghi")
        assert read_all(descriptor) == b"abcdefghi"


def test_pwrite_appends_too(directory: Path) -> None:
    """Linux, unlike POSIX, appends whatever the offset says (pwrite(2), BUGS)."""
    with opened(make(directory / "f", b"abc"), APPEND) as descriptor:
        assert os.pwrite(descriptor, b"d", 0) == 1
        assert read_all(descriptor) == b"abcd"


def test_after_another_descriptor_grew_the_file(directory: Path) -> None:
    path = make(directory / "f", b"abc")
    with opened(path, APPEND) as appender, opened(path, os.O_WRONLY) as other:
        os.pwrite(other, b"xyz", 10)
        os.write(appender, b"end")
        assert read_all(appender) == b"abc" + bytes(7) + b"xyzend"


def test_after_truncate(directory: Path) -> None:
    with opened(make(directory / "f", b"abcdef"), APPEND) as descriptor:
        os.write(descriptor, b"ghi")
        os.ftruncate(descriptor, 2)
        os.write(descriptor, b"XY")
        assert read_all(descriptor) == b"abXY"
        os.ftruncate(descriptor, 6)
        os.write(descriptor, b"Z")
        assert read_all(descriptor) == b"abXY\0\0Z"


def test_gathered_write_is_one_record(directory: Path) -> None:
    with opened(make(directory / "f", b"abc"), APPEND) as descriptor:
        assert os.writev(descriptor, [b"d", b"ef", b"g"]) == 4
        assert read_all(descriptor) == b"abcdefg"


def test_large_record(directory: Path) -> None:
    with opened(make(directory / "f", b"abc"), APPEND) as descriptor:
        assert os.write(descriptor, pattern(3_000_000)) == 3_000_000
        assert os.write(descriptor, b"end") == 3
        assert read_all(descriptor) == b"abc" + pattern(3_000_000) + b"end"


def _append(path: Path, writer: int, size: int) -> None:
    with opened(path, APPEND) as descriptor:
        for record in range(RECORDS):
            head = b"%d %d " % (writer, record)
            line = head + b"." * (size - len(head) - 1) + b"\n"
            assert os.write(descriptor, line) == len(line)


@pytest.mark.parametrize("size", [20, 5000])
def test_records_of_several_processes_stay_whole(subject: Subject, size: int) -> None:
    """No record is torn, lost or doubled, and those of one process keep their order, on one mount or on two."""
    make(subject.path / "f")
    with actor() as a, actor() as b, actor() as c, actor() as d:
        for number, one in enumerate((a, b, c, d)):
            one.start(_append, (subject.path if number % 2 else subject.other) / "f", number, size)
        for one in (a, b, c, d):
            one.result()
    with opened(subject.path / "f") as descriptor:
        data = read_all(descriptor)
    assert len(data) == WRITERS * RECORDS * size
    seen: dict[bytes, int] = {}
    for line in data.splitlines(keepends=True):
        assert len(line) == size
        writer, record, _ = line.split(b" ", 2)
        assert int(record) == seen.get(writer, 0)
        seen[writer] = int(record) + 1
    assert set(seen.values()) == {RECORDS}
