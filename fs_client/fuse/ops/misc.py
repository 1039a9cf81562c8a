"""BMAP, POLL, IOCTL."""

import errno
import os
import struct
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fs_client.fuse import answers, requests
from fs_client.fuse.abi import Opcode
from fs_client.fuse.kernel_request import Handler, Request, Result
from fs_client.fuse.mount import Mount
from fs_client.fuse.users import User
from fs_common import methods
from fs_common.records import meta
from fs_common.records.meta import InodeFlags

_POLL_READY = 0x145
"""POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM: what regular files are."""
FS_IOC_GETFLAGS = (0x80086601, 0x80046601)
FS_IOC_SETFLAGS = (0x40086602, 0x40046602)
"""With the size of `long` and of `int`: kernels use both numbers, and 4 bytes."""
_SETTABLE = 0xF0
FS_IOC_FSGETXATTR = 0x801C581F
FS_IOC_FSSETXATTR = 0x401C5820
"""The same flags in another form, which the kernel asks for before it sets any."""
_FSXATTR = struct.Struct("=5I8x")
"""xflags, extent size, extents, project, copy-on-write extent size: we have the first."""
_XFLAGS = {0x08: InodeFlags.IMMUTABLE, 0x10: InodeFlags.APPEND, 0x40: InodeFlags.NO_ATIME, 0x80: InodeFlags.NO_DUMP}
assert _FSXATTR.size == 28


def _ours(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("E") << 8 | number


EMBER_IOC_CLUSTER = _ours(2, 1, 64)
"""The cluster's id, filled up with NULs."""
EMBER_IOC_LAYOUT = _ours(2, 2, 48)
"""chunk size, stripe, table, table version, first, seed: six 64-bit numbers."""
EMBER_IOC_REMOVE_TREE = _ours(1, 3, 256)
"""On a directory: removes the entry of this name, filled up with NULs, with everything below it."""


def handlers(mount: Mount) -> Mapping[int, Handler]:
    def bmap(request: Request) -> Result:
        raise OSError(errno.EINVAL, "no block device is behind this file system")

    def poll(request: Request) -> Result:
        asked = requests.parse_poll(request.body)
        return answers.poll_out(asked.events & _POLL_READY)

    async def ioctl(request: Request) -> Result:
        asked = requests.parse_ioctl(request.body)
        command = commands.get(asked.cmd)
        if command is None:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        return answers.ioctl_out(0, (await command(request, asked.data))[: asked.out_size])

    async def get_flags(request: Request, data: bytes) -> bytes:
        node = await mount.attributes(request.node)
        assert node.attributes is not None
        return struct.pack("=I", node.attributes.flags)

    async def set_flags(request: Request, data: bytes) -> bytes:
        (flags,) = struct.unpack_from("=I", data)
        await put_flags(request, flags)
        return b""

    async def get_fsxattr(request: Request, data: bytes) -> bytes:
        node = await mount.attributes(request.node)
        assert node.attributes is not None
        flags = node.attributes.flags
        return _FSXATTR.pack(sum(bit for bit, flag in _XFLAGS.items() if flags & flag), 0, 0, 0, 0)

    async def set_fsxattr(request: Request, data: bytes) -> bytes:
        xflags, extent, _, project, copy_extent = _FSXATTR.unpack_from(data)
        if xflags & ~sum(_XFLAGS) or extent or project or copy_extent:
            raise OSError(errno.EOPNOTSUPP, "there are no projects, extent sizes or other flags here")
        await put_flags(request, sum(flag for bit, flag in _XFLAGS.items() if xflags & bit))
        return b""

    async def put_flags(request: Request, flags: int) -> None:
        if flags & ~_SETTABLE:
            raise OSError(errno.EOPNOTSUPP, f"flags {flags & ~_SETTABLE:#x} are not known here")
        sent = mount.nodes.change(request.node)

        def make(user: User) -> meta.SetAttr:
            return meta.SetAttr(
                request.node, b"", mount.request_id(), follow=False, user=user, flags=flags, relaxed=True
            )

        reply: meta.AttributesReply = await mount.call_as(request, methods.SET_ATTR, make)
        mount.nodes.learn(reply.attributes, mount.now(), sent)

    async def cluster(request: Request, data: bytes) -> bytes:
        return mount.fs.routing.routing.cluster.encode()[:64].ljust(64, b"\0")

    async def layout(request: Request, data: bytes) -> bytes:
        node = await mount.attributes(request.node)
        assert node.attributes is not None
        found = node.attributes.layout
        if found is None:
            raise OSError(errno.ENODATA, "it has no layout")
        return struct.pack(
            "=6Q", found.chunk_size, found.stripe, found.table, found.table_version, found.first, found.seed
        )

    async def remove_tree(request: Request, data: bytes) -> bytes:
        name = data.rstrip(b"\0")
        mount.nodes.change(request.node)
        await mount.call_as(
            request,
            methods.REMOVE_TREE,
            lambda user: meta.RemoveTree(request.node, name, mount.request_id(), user, True),
        )
        now = mount.now()
        mount.nodes.change(request.node)
        mount.nodes.put_name(request.node, name, 0, now)
        await mount.channel.notify_name(request.node, name)
        return b""

    commands: dict[int, Callable[[Request, bytes], Coroutine[Any, Any, bytes]]] = {
        **dict.fromkeys(FS_IOC_GETFLAGS, get_flags),
        **dict.fromkeys(FS_IOC_SETFLAGS, set_flags),
        FS_IOC_FSGETXATTR: get_fsxattr,
        FS_IOC_FSSETXATTR: set_fsxattr,
        EMBER_IOC_CLUSTER: cluster,
        EMBER_IOC_LAYOUT: layout,
        EMBER_IOC_REMOVE_TREE: remove_tree,
    }
    return {Opcode.BMAP: bmap, Opcode.POLL: poll, Opcode.IOCTL: ioctl}
