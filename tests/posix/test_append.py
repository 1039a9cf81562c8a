"""O_APPEND: every write goes to the end, also when several processes write."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from tests.posix.files import make, opened, pattern, read_all
from tests.posix.people import actor
from tests.posix.subject import Subject

APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND
WRITERS, RECORDS = 4, 100
RWF_NOAPPEND = 0x20
"""From Linux 6.9 on; `os` does not know it."""


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


def test_the_flag_taken_away(directory: Path) -> None:
    with opened(make(directory / "f", b"0123456789"), APPEND) as descriptor:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_APPEND)
        assert os.pwrite(descriptor, b"XX", 2) == 2
        os.lseek(descriptor, 5, os.SEEK_SET)
        os.write(descriptor, b"YY")
        assert read_all(descriptor) == b"01XX4YY789"


def test_the_flag_set(subject: Subject) -> None:
    """The end is where the other one has moved it to."""
    with opened(make(subject.path / "f", b"01234"), os.O_RDWR) as descriptor:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
        os.pwrite(descriptor, b"A", 0)
        with opened(subject.other / "f", APPEND) as other:
            os.write(other, b"BBBB")
        os.write(descriptor, b"C")
    assert (subject.other / "f").read_bytes() == b"01234ABBBBC"


def test_an_offset_that_holds(directory: Path) -> None:
    """RWF_NOAPPEND, which musl's pwrite asks for."""
    with opened(make(directory / "f", b"0123456789"), APPEND) as descriptor:
        try:
            assert os.pwritev(descriptor, [b"XX"], 2, RWF_NOAPPEND) == 2
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            pytest.skip("the kernel is older than RWF_NOAPPEND")
        os.write(descriptor, b"ab")
        assert os.pwritev(descriptor, [b"Y"], 10, RWF_NOAPPEND) == 1
        assert read_all(descriptor) == b"01XX456789Yb"


def _append(path: Path, writer: int, size: int, records: int = RECORDS) -> None:
    with opened(path, APPEND) as descriptor:
        for record in range(records):
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


@pytest.mark.parametrize("size", [1 << 20, 2_500_000])
def test_large_records_stay_whole(subject: Subject, size: int) -> None:
    """Longer than what the kernel asks a daemon for at a time."""
    make(subject.path / "f")
    records = 4
    with actor() as a, actor() as b:
        a.start(_append, subject.path / "f", 0, size, records)
        b.start(_append, subject.other / "f", 1, size, records)
        a.result()
        b.result()
    lines = (subject.path / "f").read_bytes().splitlines(keepends=True)
    assert [len(line) for line in lines] == [size] * 2 * records
