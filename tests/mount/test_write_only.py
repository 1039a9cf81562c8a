"""A descriptor that only writes passes the kernel's page cache by: what that spares, and what others see of it."""

import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from fs_common.limits import MIB
from tests.mount.conftest import Mounted
from tests.posix.files import opened, pattern

pytestmark = pytest.mark.system

MakeMount = Callable[..., Mounted]


def stats(one: Mounted) -> dict[str, int]:
    """The daemon's counters, and how many requests of each kind it had."""
    found = json.loads((one.path / ".emberfs" / "stats").read_bytes())
    return found | {operation["name"]: operation["count"] for operation in found["operations"]}


def test_memory_that_was_never_touched_is_written_in_whole_requests(cluster: LaunchedCluster, mount: MakeMount) -> None:
    one = mount(cluster)
    size = 4 * MIB
    before = stats(one).get("write", 0)
    with mmap.mmap(-1, size + mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        with memoryview(memory)[16 : 16 + size] as source, opened(one.path / "f", os.O_WRONLY | os.O_CREAT) as file:
            assert os.write(file, source) == size
    # Memory that does not begin with a page may need one more than the size alone.
    assert stats(one)["write"] - before <= size // MIB + 1
    assert (one.path / "f").read_bytes() == bytes(size)


@pytest.mark.parametrize("size", [100, 4096, 10_000, MIB])
def test_a_small_file_that_was_just_written_is_read_from_memory(
    cluster: LaunchedCluster, mount: MakeMount, size: int
) -> None:
    one = mount(cluster)
    path = one.path / f"small-{size}"
    path.write_bytes(pattern(size))
    before = stats(one)
    assert path.read_bytes() == pattern(size)
    after = stats(one)
    assert after["cache_hits"] > before["cache_hits"]
    assert after["cache_misses"] == before["cache_misses"]


def test_what_another_client_wrote_since_is_not_read_from_memory(cluster: LaunchedCluster, mount: MakeMount) -> None:
    one, other = mount(cluster), mount(cluster, "other")
    for number in range(10):
        writer, reader = (one, other) if number % 2 else (other, one)
        (writer.path / "shared").write_bytes(pattern(9000, number))
        assert (reader.path / "shared").read_bytes() == pattern(9000, number)
        with opened(reader.path / "shared", os.O_WRONLY) as file:
            os.pwrite(file, b"CHANGED", 4090)
        expected = bytearray(pattern(9000, number))
        expected[4090:4097] = b"CHANGED"
        assert (writer.path / "shared").read_bytes() == expected
        assert (reader.path / "shared").read_bytes() == expected


def overwrite(path: Path) -> bytes:
    with opened(path, os.O_WRONLY) as file:
        os.pwrite(file, b"CHANGED", 4090)
        os.ftruncate(file, 5000)
        os.pwrite(file, b"END", 6000)
    return pattern(4090) + b"CHANGED" + pattern(9000)[4097:5000] + bytes(1000) + b"END"


def test_what_is_kept_changes_with_the_file(cluster: LaunchedCluster, mount: MakeMount) -> None:
    path = mount(cluster).path / "changing"
    path.write_bytes(pattern(9000))
    with opened(path) as reader:
        assert os.pread(reader, 10_000, 0) == pattern(9000)
        expected = overwrite(path)
        assert os.pread(reader, 10_000, 0) == expected
        os.posix_fadvise(reader, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(reader, 10_000, 0) == expected
