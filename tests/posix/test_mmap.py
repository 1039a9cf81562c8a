"""mmap: private and shared, with reads and writes beside it, beyond the end, msync."""

import errno
import faulthandler
import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.files import make, opened, pattern, read_all, refused
from tests.posix.people import actor

PAGE = mmap.PAGESIZE
SIZE = 300_000
RW = mmap.PROT_READ | mmap.PROT_WRITE


def test_read(directory: Path) -> None:
    with opened(make(directory / "f", pattern(SIZE))) as descriptor:
        with mmap.mmap(descriptor, SIZE, mmap.MAP_SHARED, mmap.PROT_READ) as memory:
            assert memory[:] == pattern(SIZE)
        with mmap.mmap(descriptor, SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory:
            assert memory[100_000:100_100] == pattern(SIZE)[100_000:100_100]


def test_part_at_an_offset(directory: Path) -> None:
    with opened(make(directory / "f", pattern(SIZE))) as descriptor:
        with mmap.mmap(descriptor, PAGE, mmap.MAP_SHARED, mmap.PROT_READ, offset=16 * PAGE) as memory:
            assert memory[:] == pattern(SIZE)[16 * PAGE : 17 * PAGE]


def test_shared_write_reaches_the_file(directory: Path) -> None:
    path = make(directory / "f", pattern(SIZE))
    expected = bytearray(pattern(SIZE))
    with opened(path, os.O_RDWR) as descriptor, mmap.mmap(descriptor, SIZE) as memory:
        for offset in (0, 5000, PAGE - 2, 123_456, SIZE - 5):
            memory[offset : offset + 5] = b"HELLO"
            expected[offset : offset + 5] = b"HELLO"
            assert os.pread(descriptor, 5, offset) == b"HELLO"
        memory.flush()
        assert read_all(descriptor) == expected
    assert path.read_bytes() == expected


def test_shared_write_without_msync(directory: Path) -> None:
    path = make(directory / "f", pattern(SIZE))
    with opened(path, os.O_RDWR) as descriptor, mmap.mmap(descriptor, SIZE) as memory:
        memory[100:105] = b"HELLO"
    assert path.read_bytes()[100:105] == b"HELLO"


def test_mapping_outlives_its_descriptor(directory: Path) -> None:
    path = make(directory / "f", pattern(SIZE))
    with opened(path, os.O_RDWR) as descriptor:
        memory = mmap.mmap(descriptor, SIZE)
    with memory:
        memory[200_000:200_005] = b"HELLO"
        memory.flush()
    assert path.read_bytes()[200_000:200_005] == b"HELLO"


def test_mapping_outlives_its_name(directory: Path) -> None:
    path = make(directory / "f", pattern(SIZE))
    with opened(path, os.O_RDWR) as descriptor, mmap.mmap(descriptor, SIZE) as memory:
        path.unlink()
        assert memory[250_000:250_010] == pattern(SIZE)[250_000:250_010]
        memory[0:5] = b"HELLO"
        memory.flush()
        assert os.pread(descriptor, 5, 0) == b"HELLO"


def test_private_write_stays_private(directory: Path) -> None:
    path = make(directory / "f", pattern(SIZE))
    with opened(path) as descriptor, mmap.mmap(descriptor, SIZE, mmap.MAP_PRIVATE, RW) as memory:
        memory[0:5] = b"HELLO"
        assert os.pread(descriptor, 5, 0) == pattern(5)
    assert path.read_bytes() == pattern(SIZE)


def test_write_calls_are_seen_in_the_mapping(directory: Path) -> None:
    with opened(make(directory / "f", pattern(SIZE)), os.O_RDWR) as descriptor, mmap.mmap(descriptor, SIZE) as memory:
        assert memory[:] == pattern(SIZE)
        for number, offset in enumerate((0, PAGE - 3, 65_536, 131_000, SIZE - 100)):
            os.pwrite(descriptor, pattern(100, number + 3), offset)
            assert memory[offset : offset + 100] == pattern(100, number + 3)


def test_a_descriptor_for_writing_alone_and_the_mapping_agree(directory: Path) -> None:
    path = make(directory / "f", pattern(SIZE))
    expected = bytearray(pattern(SIZE))
    with (
        opened(path, os.O_RDWR) as descriptor,
        opened(path, os.O_WRONLY) as writer,
        mmap.mmap(descriptor, SIZE) as memory,
    ):
        for number in range(50):
            offset = number * 5003
            memory[offset : offset + 9] = b"MAPPED %02d" % number
            os.pwrite(writer, b"WRITTEN %02d" % number, offset + 9)
            expected[offset : offset + 19] = b"MAPPED %02dWRITTEN %02d" % (number, number)
            assert memory[offset : offset + 19] == expected[offset : offset + 19]
            assert os.pread(descriptor, 10_000, offset) == expected[offset : offset + 10_000]
        assert memory[:] == expected
    assert path.read_bytes() == expected


def test_two_mappings_share(directory: Path) -> None:
    path = make(directory / "f", pattern(SIZE))
    with opened(path, os.O_RDWR) as one, opened(path, os.O_RDWR) as other:
        with mmap.mmap(one, SIZE) as first, mmap.mmap(other, SIZE) as second:
            first[10_000:10_005] = b"FIRST"
            assert second[10_000:10_005] == b"FIRST"
            second[10_000:10_006] = b"SECOND"
            assert first[10_000:10_006] == b"SECOND"


def _map_and_change(path: Path) -> bytes:
    with opened(path, os.O_RDWR) as descriptor, mmap.mmap(descriptor, SIZE) as memory:
        seen = memory[0:5]
        memory[5:10] = b"CHILD"
        return seen


def test_between_processes(directory: Path) -> None:
    path = make(directory / "f", pattern(SIZE))
    with actor() as other, opened(path, os.O_RDWR) as descriptor, mmap.mmap(descriptor, SIZE) as memory:
        memory[0:5] = b"HELLO"
        assert other(_map_and_change, path) == b"HELLO"
        assert memory[5:10] == b"CHILD"


def test_truncate_then_grow_reads_zeros(directory: Path) -> None:
    with opened(make(directory / "f", pattern(SIZE)), os.O_RDWR) as descriptor, mmap.mmap(descriptor, SIZE) as memory:
        assert memory[-1] == pattern(SIZE)[-1]
        os.ftruncate(descriptor, 10_000)
        os.ftruncate(descriptor, SIZE)
        assert memory[:] == pattern(SIZE)[:10_000] + bytes(SIZE - 10_000)


def test_punched_hole_is_seen(directory: Path) -> None:
    with opened(make(directory / "f", pattern(SIZE)), os.O_RDWR) as descriptor, mmap.mmap(descriptor, SIZE) as memory:
        assert memory[50_000] == pattern(SIZE)[50_000]
        calls.fallocate(descriptor, calls.FALLOC_FL_PUNCH_HOLE | calls.FALLOC_FL_KEEP_SIZE, 40_000, 100_000)
        assert memory[:] == pattern(SIZE)[:40_000] + bytes(100_000) + pattern(SIZE)[140_000:]


def test_bytes_behind_the_end_are_zero_and_never_stored(directory: Path) -> None:
    """The last page reaches beyond the end of the file; what is written there is lost."""
    path = make(directory / "f", b"abc")
    with opened(path, os.O_RDWR) as descriptor, mmap.mmap(descriptor, 3) as memory:
        assert memory[:] == b"abc"
        memory[:] = b"ABC"
        memory.flush()
        os.ftruncate(descriptor, 100)
        assert read_all(descriptor) == b"ABC" + bytes(97)


def test_file_grows_under_the_mapping(directory: Path) -> None:
    path = make(directory / "f", pattern(PAGE * 4))
    with opened(path, os.O_RDWR) as descriptor, mmap.mmap(descriptor, PAGE * 4) as memory:
        os.ftruncate(descriptor, PAGE)
        os.pwrite(descriptor, pattern(PAGE, 5), PAGE * 3)
        assert memory[PAGE : PAGE * 3] == bytes(PAGE * 2)
        assert memory[PAGE * 3 :] == pattern(PAGE, 5)


def ends_with(function: Callable[[], object]) -> int:
    """Exit code of a child that runs it: 0, or minus the signal."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            faulthandler.disable()
            signal.signal(signal.SIGBUS, signal.SIG_DFL)
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            signal.alarm(30)
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("write", [False, True])
def test_beyond_the_end_is_sigbus(directory: Path, write: bool) -> None:
    with opened(make(directory / "f", pattern(PAGE * 4)), os.O_RDWR) as descriptor:
        with mmap.mmap(descriptor, PAGE * 4) as memory:
            os.ftruncate(descriptor, PAGE + 1)

            def touch(offset: int) -> Callable[[], object]:
                return (lambda: memory.__setitem__(offset, 1)) if write else (lambda: memory[offset])

            assert ends_with(touch(PAGE + 100)) == 0
            assert ends_with(touch(PAGE * 2)) == -signal.SIGBUS
            assert ends_with(touch(PAGE * 4 - 1)) == -signal.SIGBUS
            os.ftruncate(descriptor, PAGE * 4)
            assert ends_with(touch(PAGE * 4 - 1)) == 0


@pytest.mark.parametrize(
    ("flags", "kind", "protection", "number"),
    [
        (os.O_RDONLY, mmap.MAP_SHARED, RW, errno.EACCES),
        (os.O_WRONLY, mmap.MAP_SHARED, mmap.PROT_READ, errno.EACCES),
        (os.O_WRONLY, mmap.MAP_PRIVATE, mmap.PROT_READ, errno.EACCES),
        (os.O_RDONLY, mmap.MAP_PRIVATE, RW, 0),
        (os.O_RDWR, mmap.MAP_SHARED, RW, 0),
    ],
)
def test_access_modes(directory: Path, flags: int, kind: int, protection: int, number: int) -> None:
    with opened(make(directory / "f", pattern(PAGE)), flags) as descriptor:
        if number:
            with refused(number):
                mmap.mmap(descriptor, PAGE, kind, protection)
        else:
            mmap.mmap(descriptor, PAGE, kind, protection).close()


def test_directory(directory: Path) -> None:
    with opened(directory) as descriptor, refused(errno.ENODEV, errno.EACCES):
        mmap.mmap(descriptor, PAGE, mmap.MAP_SHARED, mmap.PROT_READ)


def test_advice(directory: Path) -> None:
    with opened(make(directory / "f", pattern(SIZE)), os.O_RDWR) as descriptor, mmap.mmap(descriptor, SIZE) as memory:
        memory[:5] = b"HELLO"
        for advice in (mmap.MADV_SEQUENTIAL, mmap.MADV_RANDOM, mmap.MADV_WILLNEED, mmap.MADV_DONTNEED):
            memory.madvise(advice)
            assert memory[:] == b"HELLO" + pattern(SIZE)[5:]


def test_large_mapping_page_by_page(directory: Path) -> None:
    size = 8 << 20
    with opened(make(directory / "f", pattern(size)), os.O_RDWR) as descriptor, mmap.mmap(descriptor, size) as memory:
        for offset in range(0, size, 37 * PAGE):
            assert memory[offset] == pattern(size)[offset]
            memory[offset + 7] = offset // PAGE & 0xFF
        memory.flush()
        for offset in range(0, size, 37 * PAGE):
            assert os.pread(descriptor, 1, offset + 7)[0] == offset // PAGE & 0xFF


def test_sparse_file(directory: Path) -> None:
    with opened(directory / "f", os.O_RDWR | os.O_CREAT) as descriptor:
        os.ftruncate(descriptor, 4 << 20)
        with mmap.mmap(descriptor, 4 << 20) as memory:
            assert memory[:] == bytes(4 << 20)
            memory[3_000_000:3_000_005] = b"HELLO"
            memory.flush()
        assert read_all(descriptor) == bytes(3_000_000) + b"HELLO" + bytes((4 << 20) - 3_000_005)
