"""File handles: inodes that are found by their number, whatever the kernel and the daemon have forgotten of them."""

import asyncio
import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from fs_client.fuse import abi, mountpoint
from fs_client.fuse.abi import ROOT_NODE, Opcode
from fs_client.fuse.control import FIRST
from fs_client.fuse.kernel_request import Request
from fs_client.fuse.mount import Mount
from fs_client.fuse.ops import lookup
from fs_client.fuse.policy import Policy
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records import meta
from tests.fuse.mounting import needs_root
from tests.mount.conftest import Mounted
from tests.mount.test_files import FileSystem
from tests.support import run

system = pytest.mark.system
MakeMount = Callable[..., Mounted]
FILE, DIRECTORY = meta.FileType.FILE, meta.FileType.DIRECTORY


def attributes(inode: int, type_: meta.FileType, links: int = 1, parent: int = 0) -> meta.Attributes:
    return meta.Attributes(inode, type_, 0o755, 0, 0, links, 0, 0, 0, 0, parent=parent)


async def looked_up(mount: Mount, inode: int, name: bytes, *known: meta.Attributes) -> int:
    """The kernel's number in the answer; `known`: what the service says, in this order."""
    handler: Any = lookup.handlers(mount)[Opcode.LOOKUP]
    asking = asyncio.ensure_future(handler(Request(1, Opcode.LOOKUP, inode, 0, 0, 0, bytearray(name + b"\0"), None, 0)))
    service: Any = mount.fs.metadata
    for found in known:
        await service.has_been_asked()
        method, request, answer = service.asked.pop(0)
        assert method is methods.STAT and (request.at, request.path) == (found.inode, b"")
        answer.set_result(meta.AttributesReply(found))
    answer = await asking
    number: int = abi.ENTRY_OUT.unpack_from(answer)[0]
    return number


async def refused(mount: Mount, inode: int, name: bytes, *known: meta.Attributes) -> None:
    with pytest.raises(EmberError) as error:
        await looked_up(mount, inode, name, *known)
    assert error.value.code is Code.STALE and error.value.errno == errno.ESTALE


def test_an_inode_that_nobody_here_knows_is_asked_for_by_its_number() -> None:
    async def scenario() -> None:
        mount = Mount(FileSystem(), Policy())  # type: ignore[arg-type]
        assert await looked_up(mount, 7, b".", attributes(7, FILE)) == 7
        assert mount.nodes.node(7).lookups == 1
        # A directory of which everything is known has no such name, and is found all the same.
        mount.nodes.names(8).complete_until = float("inf")
        assert await looked_up(mount, 8, b".", attributes(8, DIRECTORY, 2, 9)) == 8
        assert await looked_up(mount, 8, b"..", attributes(9, DIRECTORY, 3, 1)) == 9
        assert await looked_up(mount, 9, b"..", attributes(1, DIRECTORY, 3, 1)) == 1

    run(scenario())


def test_what_was_removed_is_gone_unless_it_is_open_here() -> None:
    async def scenario() -> None:
        mount = Mount(FileSystem(), Policy())  # type: ignore[arg-type]
        await refused(mount, 7, b".", attributes(7, FILE, links=0))
        await refused(mount, FIRST + 12345, b".")
        await refused(mount, 2**64 - 1, b"..")
        file = mount.fs.metadata.attributes()  # type: ignore[attr-defined]
        mount.file(file)
        node = mount.nodes.node(file.inode)
        node.attributes, node.removed = file, True
        assert await looked_up(mount, file.inode, b".") == file.inode

    run(scenario())


def test_in_a_mount_of_a_directory_the_way_up_ends_at_its_root() -> None:
    async def scenario() -> None:
        mount = Mount(FileSystem(), Policy(), root=50)  # type: ignore[arg-type]
        root = attributes(50, DIRECTORY, 3, 40)
        assert await looked_up(mount, 60, b"..", attributes(60, DIRECTORY, 2, 50), root) == ROOT_NODE
        assert await looked_up(mount, 50, b"..") == ROOT_NODE
        await refused(mount, 1, b".")
        # The same directory has another number in a mount of the whole.
        await refused(mount, 50, b".")
        await refused(mount, 70, b"..", attributes(70, DIRECTORY, 2, 1))

    run(scenario())


class Handle(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint), ("type", ctypes.c_int), ("bytes", ctypes.c_char * 128))


_libc = ctypes.CDLL(None, use_errno=True)


def handle_of(path: Path) -> Handle:
    handle, mount_id = Handle(128), ctypes.c_int()
    if _libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return handle


def open_handle(root: Path, handle: Handle, flags: int = os.O_RDONLY) -> int:
    place = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        descriptor: int = _libc.open_by_handle_at(place, ctypes.byref(handle), flags)
    finally:
        os.close(place)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def read(root: Path, handle: Handle) -> bytes:
    with open(open_handle(root, handle), "rb") as file:
        return file.read()


def where(root: Path, handle: Handle) -> str:
    """The path of a directory, as the kernel has found it."""
    descriptor = open_handle(root, handle, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@system
@needs_root
def test_a_handle_outlives_caches_daemons_and_mounts(cluster: LaunchedCluster, mount: MakeMount) -> None:
    one = mount(cluster)
    home = one.path / "by-handle"
    (home / "a" / "b").mkdir(parents=True)
    (home / "a" / "b" / "file").write_bytes(b"content")
    (home / "gone").touch()
    file, directory, gone = (handle_of(path) for path in (home / "a" / "b" / "file", home / "a" / "b", home / "gone"))
    stats = handle_of(one.path / ".emberfs" / "stats")
    (home / "gone").unlink()

    def all_found(root: Path) -> None:
        # Mounted anew, the kernel drops all that it has of a mount and is not in use.
        mountpoint.remount(str(root), frozenset({"noatime"}))
        assert read(root, file) == b"content"
        assert where(root, directory) == f"{root}/by-handle/a/b"
        assert b"operations" in read(root, stats)
        with pytest.raises(OSError) as error:
            read(root, gone)
        assert error.value.errno == errno.ESTALE

    assert read(one.path, file) == b"content"
    all_found(one.path)
    one.take_over(cluster.address)
    all_found(one.path)
    (home / "a" / "b").rename(home / "a" / "c")
    assert where(one.path, directory) == f"{one.path}/by-handle/a/c"
    (home / "a" / "c").rename(home / "a" / "b")
    other = mount(cluster, "other")
    all_found(other.path)
    with open(open_handle(other.path, file, os.O_RDWR), "r+b", buffering=0) as changed:
        changed.write(b"CON")
    assert (home / "a" / "b" / "file").read_bytes() == b"CONtent"
    below = mount(cluster, "below", at="/by-handle/a")
    assert read(below.path, file) == b"CONtent"
    assert where(below.path, directory) == f"{below.path}/b"
    (other.path / "elsewhere").mkdir()
    with pytest.raises(OSError) as error:
        where(below.path, handle_of(other.path / "elsewhere"))
    assert error.value.errno == errno.ESTALE
