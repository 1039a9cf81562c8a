"""umask: for every call that makes something."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.files import opened


def _open(path: Path, mode: int) -> None:
    with opened(path, os.O_WRONLY | os.O_CREAT, mode):
        pass


MAKERS: dict[str, Callable[[Path, int], None]] = {
    "open": _open,
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "mknod-file": lambda path, mode: os.mknod(path, stat.S_IFREG | mode),
    "mknod-socket": lambda path, mode: os.mknod(path, stat.S_IFSOCK | mode),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("mask", [0, 0o022, 0o027, 0o077, 0o777, 0o111, 0o200])
def test_mask_is_taken_off(directory: Path, maker: str, mask: int) -> None:
    os.umask(mask)
    MAKERS[maker](directory / "x", 0o777)
    assert stat.S_IMODE(os.lstat(directory / "x").st_mode) == 0o777 & ~mask


def test_symlinks_have_all_bits(directory: Path) -> None:
    os.umask(0o777)
    os.symlink("x", directory / "link")
    assert stat.S_IMODE(os.lstat(directory / "link").st_mode) == 0o777


def test_chmod_does_not_care(directory: Path) -> None:
    os.umask(0o777)
    (directory / "d").mkdir()
    (directory / "d").chmod(0o755)
    assert stat.S_IMODE((directory / "d").stat().st_mode) == 0o755


def test_each_process_has_its_own(directory: Path) -> None:
    """The mask of who asks counts, not of who serves; two callers with different masks in turn."""
    for number, mask in enumerate((0o077, 0o002, 0o027)):
        os.umask(mask)
        _open(directory / f"f{number}", 0o666)
        assert stat.S_IMODE((directory / f"f{number}").stat().st_mode) == 0o666 & ~mask
