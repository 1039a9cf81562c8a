"""Numbers out of arrays, wherever the API takes one."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fs_client import FileSystem, aio
from fs_common.layout import Layout
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.support import run

DATA = bytes(range(200))


class Index:
    """An integer of another package, as torch's."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


INTEGERS = [np.int64, np.int32, np.int16, np.uint8, np.uint16, np.uint64, Index]


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_of_other_packages(fs: FileSystem, kind: Callable[[int], Any]) -> None:
    n = kind
    fs.write_file("/f", DATA)
    ref = fs.ref("/f")
    with fs.open("/f", "rb", buffering=n(100)) as file:
        for source in ("/f", ref, file):
            assert [bytes(view) for view in fs.read_ranges([(source, n(3), n(4)), (source, 0, n(2))])] == [
                DATA[3:7],
                DATA[:2],
            ]
        assert file.seek(n(100)) == 100 and file.read(n(3)) == DATA[100:103]
    for buffering in (0, -1):
        with fs.open("/w", "w+b", buffering=buffering, permissions=n(0o44)) as file:
            file.seek(n(10))
            file.write(b"x")
            assert file.truncate(n(12)) == 12 and file.seek(n(1), n(os.SEEK_SET)) == 1
            assert file.read() == bytes(9) + b"x" + bytes(1)
    fs.truncate("/w", n(11))
    fs.chmod("/w", n(0o55))
    fs.chown("/w", n(3), n(4))
    fs.utime("/w", ns=(n(100), n(101)))
    found = fs.stat("/w")
    assert found.st_size == 11 and found.st_mode & 0o777 == 0o55 and (found.st_uid, found.st_gid) == (3, 4)
    assert (found.st_atime_ns, found.st_mtime_ns) == (100, 101)
    fs.utime("/w", (n(5), n(6)))
    assert fs.stat("/w").st_mtime_ns == 6_000_000_000
    fs.mkdir("/d", n(0o50), layout=Layout(stripe=n(2)))
    fs.makedirs("/e/f", n(0o50))
    assert fs.set_layout("/d", stripe=n(1)).stripe == 1
    assert type(fs.create_many("/d", ["a"], n(0o40))[0].st_mode) is int


def test_large_offsets_of_arrays(fs: FileSystem) -> None:
    """A small type that the sums inside would overflow."""
    with fs.open("/f", "wb") as file:
        file.seek(np.int64(5 * CHUNK))
        file.write(b"end")
    places = np.array([5 * CHUNK, 0])
    views = fs.read_ranges([("/f", place, np.uint8(3)) for place in places])
    assert [bytes(view) for view in views] == [b"end", bytes(3)]


def test_real_numbers_of_times(fs: FileSystem, tmp_path: Path) -> None:
    fs.write_file("/f", b"")
    local = tmp_path / "f"
    local.touch()
    for times in ((np.float64(5.5), np.int16(6)), (5, 6.75), (np.int64(1), 2.0)):
        fs.utime("/f", times)
        os.utime(local, times)
        assert fs.stat("/f").st_mtime_ns == local.stat().st_mtime_ns
    for wrong in (np.float32(5), "5"):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            fs.utime("/f", (0, wrong))  # type: ignore[arg-type]


def test_buffering_may_be_a_truth_value(fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    with fs.open("/f", buffering=False) as file:
        assert isinstance(file, io.RawIOBase)


@pytest.mark.parametrize("wrong", [1.0, np.float64(1), "1", None, np.array([1, 2]), True, np.True_])
def test_what_is_no_integer_is_refused_by_name(fs: FileSystem, wrong: Any) -> None:
    fs.write_file("/f", DATA)
    calls: dict[str, Callable[[], object]] = {
        "offset of range 1": lambda: fs.read_ranges([("/f", 0, 1), ("/f", wrong, 1)]),
        "length of range 0": lambda: fs.read_ranges([(fs.ref("/f"), 0, wrong)]),
        "length": lambda: fs.truncate("/f", wrong),
        "mode": lambda: fs.chmod("/f", wrong),
        "uid": lambda: fs.chown("/f", wrong, 0),
        "gid": lambda: fs.chown("/f", 0, wrong),
        r"ns\[1\]": lambda: fs.utime("/f", ns=(0, wrong)),
        "permissions": lambda: fs.open("/g", "wb", permissions=wrong),
        r"layout\.stripe": lambda: fs.mkdir("/d", layout=Layout(stripe=wrong)),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=rf"^{name} must be an integer, not "):
            call()
    if not isinstance(wrong, bool):
        with pytest.raises(TypeError, match=r"^buffering must be an integer, not "):
            fs.open("/f", buffering=wrong)
    with fs.open("/f", "r+b", buffering=0) as file, pytest.raises(TypeError, match=r"^offset must be an integer, not "):
        file.seek(wrong)
    assert fs.read_file("/f") == DATA


def test_the_async_face_takes_them_too(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs, await fs.open("/f", "w+b") as file:
            await file.write_at(np.int64(3), b"abc")
            assert await file.read_at(np.int32(3), np.uint8(2)) == b"ab"
            assert await file.truncate(np.int64(4)) == 4
            with pytest.raises(TypeError, match=r"^offset must be an integer, not float"):
                await file.write_at(1.0, b"x")  # type: ignore[arg-type]

    run(main())
