"""One directory of a cluster as the root of a mount."""

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from fs_client.fuse import abi
from fs_client.fuse import mountpoint as mountpoints
from fs_client.fuse.abi import ROOT_NODE, Opcode
from fs_client.fuse.kernel_request import Request
from fs_client.fuse.mount import Mount
from fs_client.fuse.ops import names
from fs_client.fuse.policy import Policy
from fs_common import methods
from tests.fuse.mounting import needs_root
from tests.mount.conftest import Mounted
from tests.mount.test_files import FileSystem
from tests.posix.people import as_user
from tests.support import run
from tests.system.control import emberfs

system = pytest.mark.system
MakeMount = Callable[..., Mounted]


def test_a_rename_into_the_root_goes_to_the_directory() -> None:
    async def scenario() -> None:
        fs = FileSystem()
        mount = Mount(fs, Policy(), root=55)  # type: ignore[arg-type]
        body = bytearray(abi.RENAME2_IN.pack(ROOT_NODE, 0) + b"old\0new\0")
        handler: Any = names.handlers(mount)[Opcode.RENAME2]
        renaming = asyncio.ensure_future(handler(Request(1, Opcode.RENAME2, 60, 0, 0, 0, body, None, 0)))
        await fs.metadata.has_been_asked()
        method, request, _ = fs.metadata.asked[0]
        assert method is methods.RENAME and (request.at, request.new_at) == (60, 55)
        renaming.cancel()

    run(scenario())


@system
def test_its_root_is_the_directory(cluster: LaunchedCluster, mount: MakeMount) -> None:
    whole = mount(cluster).path / "sub-tree"
    (whole / "a" / "b").mkdir(parents=True)
    (whole / "a" / "b" / "file").write_bytes(b"content")
    one = mount(cluster, "one", at="/sub-tree/a/b")
    entry = mountpoints.find(str(one.path))
    assert entry is not None and entry.source == f"{cluster.address}:/sub-tree/a/b"
    assert (one.path / "file").read_bytes() == b"content"
    assert one.path.stat().st_ino == (whole / "a" / "b").stat().st_ino
    assert (one.path / "..").stat().st_ino == one.path.parent.stat().st_ino
    (one.path / "made").mkdir()
    (one.path / "file").rename(one.path / "made" / "file")
    (one.path / "made" / "file").rename(one.path / "back")
    assert sorted(os.listdir(whole / "a" / "b")) == ["back", "made"]
    (whole / "a" / "b" / "of others").touch()
    assert sorted(os.listdir(one.path)) == ["back", "made", "of others"]
    assert os.statvfs(one.path).f_blocks == os.statvfs(whole).f_blocks
    (one.path / "tree" / "below").mkdir(parents=True)
    os.symlink(one.path / "tree", one.path / ".emberfs" / "rm-rf" / "x")
    assert sorted(os.listdir(one.path)) == ["back", "made", "of others"]
    # It is the directory that is mounted, not its path.
    (whole / "a").rename(whole / "elsewhere")
    one.take_over(f"{cluster.address}:/sub-tree/a/b")
    (one.path / "after").touch()
    assert sorted(os.listdir(whole / "elsewhere" / "b")) == ["after", "back", "made", "of others"]
    shutil.rmtree(whole / "elsewhere")
    with pytest.raises(OSError) as gone:
        (one.path / "nowhere").touch()
    assert gone.value.errno in (errno.ESTALE, errno.ENOENT)


@system
@needs_root
def test_who_may_use_it_need_not_pass_what_is_above(cluster: LaunchedCluster, mount: MakeMount, tmp_path: Path) -> None:
    closed = mount(cluster).path / "closed"
    closed.mkdir()
    (closed / "open").mkdir()
    (closed / "open").chmod(0o777)
    closed.chmod(0o700)
    one = mount(cluster, "one", at="/closed/open")
    # Where it is mounted is this test's own directory, which strangers may not pass.
    root = os.open(one.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        as_user(_make_in, root, "theirs")
        with pytest.raises(PermissionError):
            as_user(_make_in, root, "theirs/below")
    finally:
        os.close(root)
    assert (closed / "open" / "theirs").stat().st_uid != 0


def _make_in(directory: int, name: str) -> None:
    if "/" in name:
        os.mkdir(name.partition("/")[0] + "-not", 0o000, dir_fd=directory)
        os.close(os.open(f"{name.partition('/')[0]}-not/x", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    else:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=directory))


@system
def test_what_is_no_directory_is_one_clear_error(cluster: LaunchedCluster, mount: MakeMount, tmp_path: Path) -> None:
    whole = mount(cluster).path / "errors"
    whole.mkdir()
    (whole / "file").touch()
    (tmp_path / "place").mkdir()
    for path, words in (
        ("/errors/nothing", "the cluster has no /errors/nothing; make the directory first"),
        ("/errors/file", "/errors/file is not a directory; mount a directory"),
        ("/errors/file/x", "something on the way to /errors/file/x is not a directory"),
    ):
        source = f"{cluster.address}:{path}"
        refused = emberfs("mount", source, tmp_path / "place", "--log", tmp_path / "log", code=1)
        assert refused.stderr.splitlines() == [
            f"emberfs: {source} cannot be mounted: {words}" + " (emberfs mkdir)" * ("make" in words)
        ]
        assert mountpoints.find(str(tmp_path / "place")) is None
