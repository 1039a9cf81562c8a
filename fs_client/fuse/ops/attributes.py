"""GETATTR, STATX, SETATTR, ACCESS, STATFS."""

import asyncio
import contextlib
import itertools
import os
import stat
from collections.abc import Coroutine, Mapping
from typing import Any

from fs_client.extents import stored_bytes
from fs_client.file_ref import file_ref
from fs_client.fuse import abi, answers, kernel_size, requests, shown
from fs_client.fuse.abi import Opcode
from fs_client.fuse.kernel_request import Handler, Request, Result
from fs_client.fuse.mount import Mount
from fs_client.fuse.nodes import UNMEASURED, Node
from fs_client.fuse.truncate import truncate
from fs_client.fuse.users import User
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.limits import NAME_BYTES_MAX
from fs_common.records import meta

STATFS_S = 1.0
MEASURE_S = 1.0
"""A daemon that does not say within this time what a sparse file takes is not waited for: its length has to do. Half of
it is for what was written here to be stored; what is not stored by then counts as it is."""
MEASURE_MAX = 3
"""How often what a file takes is asked for while it is being written, before its length has to do."""
STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800
STATX_ATTR_IMMUTABLE = 0x10
STATX_ATTR_APPEND = 0x20
STATX_ATTR_NODUMP = 0x40
_STATX_FLAGS = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP
"""The same numbers as `meta.InodeFlags`."""


def handlers(mount: Mount) -> Mapping[int, Handler]:
    nodes = mount.nodes
    questions = itertools.count(UNMEASURED - 1, -1)
    """`Node.stored_version` while the daemons are asked."""

    def known(inode: int) -> Node | None:
        """The node if its attributes may be believed."""
        node = nodes.by_inode.get(inode)
        if node is not None and node.attributes is not None and (node.removed or nodes.fresh(node, mount.now())):
            return None if shown.unmeasured(node) else node
        return None

    async def measured(inode: int) -> Node:
        """The node, with what is stored of a sparse file."""
        node = await mount.attributes(inode)
        for _ in range(MEASURE_MAX):
            if not shown.unmeasured(node):
                break
            await measure(node)
        return node

    async def measure(node: Node) -> None:
        attributes = node.attributes
        assert attributes is not None
        file = node.file
        if file is not None and not file.back.empty:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(file.back.flush(), MEASURE_S / 2)
        ref = file_ref(attributes) if file is None else file.ref
        assert ref is not None
        question = node.stored_version = next(questions)
        try:
            found = await stored_bytes(mount.fs, ref, MEASURE_S / 2)
            if file is not None:
                found += file.back.bytes_held
        except EmberError:
            # Nobody can be told what it takes: its length has to do, until it changes.
            found = ref.length
        if node.stored_version == question:
            # Nothing was written here meanwhile.
            node.stored_bytes, node.stored_version = found, attributes.version

    def getattr_(request: Request) -> bytes | Coroutine[Any, Any, Result]:
        node = known(request.node)
        if node is not None:
            return shown.attr_out(node, mount.now())
        return getattr_slow(request)

    async def asked_for(request: Request) -> Node:
        try:
            return await measured(request.node)
        except EmberError as error:
            if error.code is not Code.STALE:
                raise
            if any(handle.inode == request.node for handle in mount.handles.directories.values()):
                # Who asks has it open, most likely: nothing would be looked up again.
                mount.gone.is_gone(request.node)
            elif not mount.gone.again(request.pid, request.node):
                raise
            return nodes.node(request.node)

    async def getattr_slow(request: Request) -> Result:
        node = await asked_for(request)
        return shown.attr_out(node, mount.now())

    async def statx(request: Request) -> Result:
        """As GETATTR, and when the file was made."""
        node = await asked_for(request)
        attributes = node.attributes
        assert attributes is not None
        shown.tell(node)
        size, mtime_ns = shown.size_and_mtime(node)
        kernel_size.told(node, size)
        left_s, left_ns = shown.believed(node, mount.now())
        return answers.statx_out(
            node.inode,
            shown.mode(attributes),
            left_s * 1_000_000_000 + left_ns,
            mask=STATX_BASIC_STATS | STATX_BTIME,
            size=size,
            blocks=shown.blocks(node, size),
            atime_ns=attributes.atime_ns,
            btime_ns=attributes.btime_ns,
            mtime_ns=mtime_ns,
            ctime_ns=node.told_ctime_ns,
            nlink=0 if node.removed else attributes.links,
            uid=attributes.uid,
            gid=attributes.gid,
            rdev_major=os.major(shown.device(attributes)),
            rdev_minor=os.minor(shown.device(attributes)),
            blksize=shown.BLOCK_SIZE,
            attributes=attributes.flags & _STATX_FLAGS,
            attributes_mask=_STATX_FLAGS,
        )

    async def setattr_(request: Request) -> Result:
        """chmod, chown, utimensat, truncate, and their forms by descriptor."""
        asked = requests.parse_setattr(request.body)
        valid = asked.valid
        inode = request.node
        file = nodes.node(inode).file
        handle = mount.handles.file(asked.fh) if valid & abi.FATTR_FH else None
        if valid & (abi.FATTR_MODE | abi.FATTR_UID | abi.FATTR_GID | abi.FATTR_ATIME | abi.FATTR_MTIME):
            if file is not None and file.dirty:
                # What is written later than this call would set times that the program did not.
                await file.settle()
            sent = nodes.change(inode)

            def make(user: User) -> meta.SetAttr:
                now_a, now_m = valid & abi.FATTR_ATIME_NOW, valid & abi.FATTR_MTIME_NOW
                return meta.SetAttr(
                    inode,
                    b"",
                    mount.request_id(),
                    asked.mode & 0o7777 if valid & abi.FATTR_MODE else None,
                    asked.uid if valid & abi.FATTR_UID else None,
                    asked.gid if valid & abi.FATTR_GID else None,
                    asked.atime_ns if valid & abi.FATTR_ATIME and not now_a else None,
                    asked.mtime_ns if valid & abi.FATTR_MTIME and not now_m else None,
                    None,
                    False,
                    user,
                    bool(valid & abi.FATTR_ATIME and now_a),
                    bool(valid & abi.FATTR_MTIME and now_m),
                    relaxed=True,
                )

            # Without the caller's groups the service takes the set-group-id bit away, instead of refusing.
            grouped = bool(valid & abi.FATTR_MODE and asked.mode & stat.S_ISGID)
            reply: meta.AttributesReply = await mount.call_as(request, methods.SET_ATTR, make, grouped=grouped)
            nodes.learn(reply.attributes, mount.now(), sent)
            if file is not None:
                file.names_unsynced = True
        if valid & abi.FATTR_SIZE:
            await truncate(mount, request, inode, asked.size, handle)
        node = await mount.attributes(inode)
        answer = shown.attr_out(node, mount.now())
        if valid & abi.FATTR_SIZE:
            kernel_size.cut(node, node.sizes[0])
        return answer

    async def access(request: Request) -> Result:
        (mask,) = abi.ACCESS_IN.unpack_from(request.body)
        await mount.call_as(request, methods.ACCESS, lambda user: meta.Access(request.node, mask, user))
        return None

    async def statfs(request: Request) -> Result:
        """In units of 4 KiB, replicas divided out."""
        now = mount.now()
        if mount.statfs is None or mount.statfs[0] <= now:
            reply: meta.StatfsReply = await mount.call(methods.STATFS, meta.Statfs(request.node))
            mount.statfs = (mount.now() + STATFS_S, reply)
        space = mount.statfs[1]
        unit = shown.BLOCK_SIZE
        free = space.free_bytes // unit
        return answers.statfs_out(
            blocks=space.capacity_bytes // unit,
            bfree=free,
            bavail=free,
            files=space.files + free,
            ffree=free,
            bsize=unit,
            namelen=NAME_BYTES_MAX,
            frsize=unit,
        )

    return {
        Opcode.GETATTR: getattr_,
        Opcode.STATX: statx,
        Opcode.SETATTR: setattr_,
        Opcode.ACCESS: access,
        Opcode.STATFS: statfs,
    }
