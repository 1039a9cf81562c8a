"""How much of a disk a daemon reports as its own."""

import os
from pathlib import Path

import pytest

from fs_storage.space import Disk, DiskSpace


def test_the_whole_disk(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    total = found.f_blocks * found.f_frsize
    assert Disk(tmp_path, 0, 1).space().capacity_bytes == total - min(total // 32, 16 << 30)


def test_what_is_kept_free_is_not_promised(tmp_path: Path) -> None:
    """A file system says it is full when it takes no new chunks."""
    disk = Disk(tmp_path, 0, 1, low_space_bytes=1000)
    before = disk.space()
    disk.low_space_bytes = 1 << 60
    assert disk.space() == DiskSpace(0, 0)
    disk.low_space_bytes = 1000 + (1 << 20)
    assert before.capacity_bytes - disk.space().capacity_bytes == 1 << 20


def test_daemons_that_share_a_disk_count_a_part_each(tmp_path: Path) -> None:
    alone, shared = Disk(tmp_path, 0, 1).space(), Disk(tmp_path, 0, 3).space()
    assert shared.capacity_bytes == alone.capacity_bytes // 3
    assert shared.free_bytes <= shared.capacity_bytes


def test_a_bound_is_a_bound(tmp_path: Path) -> None:
    space = Disk(tmp_path, 3200, 1).space()
    assert space.capacity_bytes == 3100
    assert space.free_bytes <= 3100


def test_a_disk_that_does_not_answer_has_nothing_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "node").mkdir()
    disk = Disk(tmp_path / "node", 0, 1)
    before = disk.last_space()
    assert before.free_bytes > 0
    (tmp_path / "node").rename(tmp_path / "away")
    for _ in range(3):
        assert disk.last_space() == DiskSpace(before.capacity_bytes, 0)
    (tmp_path / "away").rename(tmp_path / "node")
    assert disk.last_space().free_bytes > 0
    assert len(caplog.records) == 1


def test_what_others_have_put_on_the_disk_is_not_free(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 0, 1)
    assert disk.used_bytes(DiskSpace(capacity_bytes=100, free_bytes=30), own_bytes=10) == 70
    assert disk.used_bytes(DiskSpace(capacity_bytes=100, free_bytes=100), own_bytes=10) == 10
    assert disk.used_bytes(DiskSpace(capacity_bytes=100, free_bytes=100), own_bytes=200) == 100
