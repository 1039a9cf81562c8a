"""mknod: a new regular file, fifo, socket or device that is not opened."""

from typing import Final

from fs_common.errors import Code, EmberError
from fs_common.layout import validate
from fs_common.methods import MKNOD
from fs_common.records.meta import AttributesReply, FileType, Mknod
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import (
    attributes,
    get_directory,
    get_entry,
    group_of_child,
    mode_of_child,
    put_inode,
    touch_directory,
)
from fs_meta.ops.once import once
from fs_meta.ops.permission import check_make
from fs_meta.ops.resolve import SELF, missing, place_of
from fs_meta.schema import Entry, Inode

DEVICES: Final = frozenset((FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE))
WHITEOUT: Final = (FileType.CHARACTER_DEVICE, 0)
"""No device: it hides a name of a layer below."""
DEVICE_MAX: Final = 2**32 - 1
"""Linux has 12 bits of major and 20 bits of minor number; `os.makedev` lays them into 32."""


async def mknod(context: Context, request: Mknod) -> AttributesReply:
    """Make it; owner, group, mode and the parent's times as `create`. A fifo, socket or device has no layout.

    POSIX mknod: EEXIST if the name is there, a dangling symbolic link included. ENOENT: the name ends with `/`. EACCES,
    EPERM: nothing may be put into the directory. EPERM: a device, unless it is a white-out, and the user is not root;
    the type is directory. EINVAL: the type is symbolic link; a layout for what has no contents, or a wrong one; a
    device number out of range. The walk's errors. CLUSTER_NOT_READY (retry): a regular file, and there is no chain
    table yet.
    """
    type_ = request.type
    _check(request)
    inode = await context.inode_ids.take()
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
        user = request.user
        parent_id, name, slash = await place_of(txn, request.at, request.path, user)
        if not request.path:
            raise EmberError(Code.NOT_FOUND, "an empty path names nothing")
        if name in SELF or await get_entry(txn, parent_id, name) is not None:
            raise EmberError(Code.EXISTS, f"{name!r} exists in directory {parent_id}")
        if slash:
            raise await missing(txn, parent_id, name)
        parent = await get_directory(txn, parent_id)
        check_make(parent_id, parent, user)
        if type_ in DEVICES and user.uid and (type_, request.device) != WHITEOUT:
            raise EmberError(Code.NOT_PERMITTED, f"user {user.uid} may not make a device: only root may")
        layout = None
        if type_ is FileType.FILE:
            wanted = request.layout or parent.layout
            assert wanted is not None
            layout = context.allocator.place(wanted)
        mode, acl = mode_of_child(parent, request.mode, request.unmasked, user)
        gid = group_of_child(parent, user)
        record = Inode(type_, mode, user.uid, gid, 1, 0, now_ns, now_ns, now_ns, now_ns, layout, acl=acl)
        if type_ in DEVICES:
            record.device = request.device
        put_inode(txn, inode, record)
        txn.put(schema.entry_key(parent_id, name), schema.encode(Entry(inode, type_, request.request)))
        touch_directory(txn, parent_id, parent, now_ns)
        return AttributesReply(attributes(inode, record)), 1

    return await once(context, MKNOD, request.request, apply, relaxed=request.relaxed)


def _check(request: Mknod) -> None:
    """What needs no look at the namespace."""
    if request.type is FileType.DIRECTORY:
        raise EmberError(Code.NOT_PERMITTED, "a directory is made by mkdir")
    if request.type is FileType.SYMLINK:
        raise EmberError(Code.INVALID, "a symbolic link is made by symlink")
    if request.type in DEVICES and not 0 <= request.device <= DEVICE_MAX:
        raise EmberError(Code.INVALID, f"device number {request.device} is not from 0 to {DEVICE_MAX}")
    if request.layout is not None:
        if request.type is not FileType.FILE:
            raise EmberError(Code.INVALID, f"a {request.type.name.lower()} has no contents, so no layout")
        validate(request.layout)
