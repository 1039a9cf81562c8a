"""Listings: an entry of `scandir` is an `os.DirEntry`, whatever loop was written for one."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from fs_client import FileSystem, aio
from fs_client.dir_entry import DirEntry
from fs_common.errors import Code, EmberError
from fs_common.methods import Method
from tests.client.fake_cluster import FakeCluster
from tests.support import run

NAMES = ["dangling", "dir", "file", "into-file", "loop", "to-dir", "to-file"]


def make(mkdir: Any, write: Any, symlink: Any, top: str) -> None:
    mkdir(f"{top}/dir")
    write(f"{top}/file", b"12345")
    symlink("dir", f"{top}/to-dir")
    symlink("file", f"{top}/to-file")
    symlink("nowhere", f"{top}/dangling")
    symlink("loop", f"{top}/loop")
    symlink("file/below", f"{top}/into-file")


def outcome(call: Any) -> Any:
    try:
        return call()
    except OSError as error:
        return type(error), error.errno


def facts(entry: Any) -> dict[str, Any]:
    return {
        "is_dir": outcome(entry.is_dir),
        "is_file": outcome(entry.is_file),
        "is_dir itself": entry.is_dir(follow_symlinks=False),
        "is_file itself": entry.is_file(follow_symlinks=False),
        "is_symlink": entry.is_symlink(),
        "type": outcome(lambda: stat.S_IFMT(entry.stat().st_mode)),
        "type itself": stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode),
        "inode": entry.inode() == entry.stat(follow_symlinks=False).st_ino,
        "name": entry.name,
        "path": os.path.basename(entry.path),
        "fspath": os.path.basename(os.fspath(entry)),
        "repr": repr(entry),
    }


@pytest.mark.parametrize("attributes", [False, True])
def test_an_entry_is_what_that_of_os_is(fs: FileSystem, tmp_path: Path, attributes: bool) -> None:
    make(os.mkdir, lambda path, data: Path(path).write_bytes(data), os.symlink, str(tmp_path))
    fs.mkdir("/d")
    make(fs.mkdir, fs.write_file, fs.symlink, "/d")
    with os.scandir(tmp_path) as entries:
        expected = {entry.name: facts(entry) for entry in entries}
    with fs.scandir("/d", attributes=attributes) as listed:
        found = {entry.name: facts(entry) for entry in listed}
    assert found == expected


def test_what_was_looked_up_is_remembered(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.mkdir("/dir")
    fs.symlink("dir", "/link")
    entries = {entry.name: entry for entry in fs.scandir("/", attributes=True)}
    cluster.metadata.calls.clear()
    assert entries["dir"].is_dir() and entries["dir"].stat().st_nlink
    assert not cluster.metadata.calls, "the listing told that"
    assert entries["link"].is_dir() and not entries["link"].is_file() and entries["link"].stat()
    assert [name for name, _ in cluster.metadata.calls] == ["stat"]


def test_a_link_into_what_may_not_be_searched_is_an_error_but_for_walk(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.mkdir("/dir")
    fs.symlink("dir", "/link")
    stats = 0

    def refuse_all_but_the_first(method: Method) -> EmberError | None:
        nonlocal stats
        stats += method.name == "stat"
        return EmberError(Code.ACCESS_DENIED, "no") if method.name == "stat" and stats > 1 else None

    entry = next(entry for entry in fs.scandir("/") if entry.is_symlink())
    stats = 1
    cluster.metadata.fault = refuse_all_but_the_first
    with pytest.raises(PermissionError):
        entry.is_dir()
    stats = 0
    assert next(fs.walk("/")) == ("/", ["dir"], ["link"])


def test_walk_is_that_of_os(fs: FileSystem, tmp_path: Path) -> None:
    make(os.mkdir, lambda path, data: Path(path).write_bytes(data), os.symlink, str(tmp_path))
    (tmp_path / "dir" / "below").mkdir()
    fs.mkdir("/d")
    make(fs.mkdir, fs.write_file, fs.symlink, "/d")
    fs.mkdir("/d/dir/below")

    def shown(walk: Any, top: str) -> list[tuple[str, list[str], list[str]]]:
        return sorted((path.removeprefix(top), sorted(dirs), sorted(files)) for path, dirs, files in walk)

    async def walked(**how: bool) -> list[Any]:
        async with await aio.connect(fs.options.cluster) as other:
            return [found async for found in other.walk("/d", **how)]

    for followlinks in (False, True):
        for topdown in (False, True):
            how = {"followlinks": followlinks, "topdown": topdown}
            expected = shown(os.walk(tmp_path, **how), str(tmp_path))
            assert shown(fs.walk("/d", **how), "/d") == expected
            assert shown(run(walked(**how)), "/d") == expected


def test_entries_of_the_async_face_know_where_links_lead(cluster: FakeCluster, fs: FileSystem) -> None:
    make(fs.mkdir, fs.write_file, fs.symlink, "")
    before = {entry.name: (outcome(entry.is_dir), outcome(entry.is_file)) for entry in fs.scandir("/")}
    before["loop"] = before["into-file"] = (False, False)

    async def main() -> None:
        async with await aio.connect(cluster.address) as other:
            cluster.metadata.calls.clear()
            entries = [entry async for entry in other.scandir("/")]
            assert {entry.name: (entry.is_dir(), entry.is_file()) for entry in entries} == before
            assert [name for name, _ in cluster.metadata.calls].count("batch_stat") <= 1
            by_name = {entry.name: entry for entry in entries}
            assert not by_name["to-dir"].is_dir(follow_symlinks=False)
            assert (await by_name["to-file"].stat()).st_size == 5
            assert stat.S_ISLNK((await by_name["to-file"].stat(follow_symlinks=False)).st_mode)

    run(main())


def test_bytes_stay_bytes(fs: FileSystem) -> None:
    fs.write_file("/f", b"")
    (entry,) = fs.scandir(b"/")
    assert isinstance(entry, DirEntry) and (entry.name, entry.path, os.fspath(entry)) == (b"f", b"/f", b"/f")
