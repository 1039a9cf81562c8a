"""statvfs, fstatvfs."""

import os
from pathlib import Path

from tests.posix.files import make, opened


def test_figures_make_sense(directory: Path) -> None:
    status = os.statvfs(directory)
    assert status.f_frsize >= 512
    assert status.f_bsize >= 512
    assert status.f_blocks >= status.f_bfree >= status.f_bavail > 0
    assert status.f_files >= status.f_ffree
    assert status.f_namemax >= 255


def test_same_from_everywhere(directory: Path) -> None:
    path = make(directory / "f")
    (directory / "d").mkdir()
    with opened(path) as descriptor:
        for found in (os.statvfs(path), os.statvfs(directory / "d"), os.fstatvfs(descriptor)):
            assert found.f_blocks == os.statvfs(directory).f_blocks
            assert found.f_fsid == os.statvfs(directory).f_fsid
            assert found.f_namemax == os.statvfs(directory).f_namemax


def test_name_limit_is_true(directory: Path) -> None:
    limit = os.statvfs(directory).f_namemax
    make(directory / ("n" * limit))
    assert os.pathconf(directory, "PC_NAME_MAX") == limit
