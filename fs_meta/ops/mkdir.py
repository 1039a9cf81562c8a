"""mkdir: a new directory, or a path of them."""

from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE
from fs_common.layout import Layout, validate
from fs_common.limits import PATH_BYTES_MAX, PATH_DEPTH_MAX
from fs_common.methods import MKDIR
from fs_common.records.meta import AttributesReply, FileType, Mkdir, User
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import add_directory, attributes, get_directory, get_entry, put_inode, touch_directory
from fs_meta.ops.once import once
from fs_meta.ops.permission import check_make
from fs_meta.ops.resolve import SELF, check_name, get_inode, parent_of, place_of, resolve, search

_OWNER_WRITES = 0o300
"""Missing ancestors can be written and searched by their owner whatever `mode` says, as `mkdir -p` has it."""


async def mkdir(context: Context, request: Mkdir) -> AttributesReply:
    """Make a directory; it inherits the parent's layout unless the request has one, and set-group-id with the group.

    POSIX mkdir: EEXIST if the name is there, be it a symbolic link, dangling or not. A trailing `/` is fine. The parent
    gains a link and new times. EACCES, EPERM: nothing may be put into it. The walk's errors. EINVAL: a wrong layout.

    `parents`: missing ancestors are made too, and an existing directory (or symbolic link to one) is a success; EEXIST
    where the last name is anything else, ENOTDIR where an earlier one is, EEXIST for a dangling symbolic link.
    """
    layout = None if request.layout is None else inheritable(request.layout)
    now_ns = context.now_ns()
    return await (_mkdir_parents if request.parents else _mkdir_one)(context, request, layout, now_ns)


def inheritable(layout: Layout) -> Layout:
    """A checked layout for a directory: what is chosen when a file is made is left open."""
    validate(layout)
    return Layout(layout.chunk_size, layout.stripe, layout.table, 0, 0, 0, layout.durability)


async def _mkdir_one(context: Context, request: Mkdir, layout: Layout | None, now_ns: int) -> AttributesReply:
    inode = await context.inode_ids.take()

    async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
        parent_id, name, _ = await place_of(txn, request.at, request.path, request.user)
        if not request.path:
            raise EmberError(Code.NOT_FOUND, "an empty path names nothing")
        if name in SELF or await get_entry(txn, parent_id, name) is not None:
            raise EmberError(Code.EXISTS, f"{name!r} exists in directory {parent_id}")
        reply = await _make(txn, request, parent_id, name, inode, 0, layout, now_ns)
        return reply, 1

    return await once(context, MKDIR, request.request, apply, relaxed=request.relaxed)


async def _mkdir_parents(context: Context, request: Mkdir, layout: Layout | None, now_ns: int) -> AttributesReply:
    path = request.path
    if len(path) > PATH_BYTES_MAX:
        raise EmberError(Code.NAME_TOO_LONG, f"a path of {len(path)} bytes, at most {PATH_BYTES_MAX}")
    names = [name for name in path.split(b"/") if name and name != b"."]
    if len(names) > PATH_DEPTH_MAX:
        raise EmberError(Code.NAME_TOO_LONG, f"a path of {len(names)} names, at most {PATH_DEPTH_MAX}")
    for name in names:
        check_name(name)
    inodes = await context.inode_ids.take_many(len(names))

    async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
        here: int = ROOT_INODE if path.startswith(b"/") else request.at
        made = 0
        for index, name in enumerate(names):
            last = index == len(names) - 1
            if request.user.uid:
                await search(txn, here, request.user)
            if name == b"..":
                here = await parent_of(txn, here)
                continue
            entry = await get_entry(txn, here, name)
            if entry is None:
                await _make(txn, request, here, name, inodes[index], 0 if last else _OWNER_WRITES, layout, now_ns)
                here = inodes[index]
                made += 1
            elif entry.type is FileType.DIRECTORY:
                here = entry.inode
            elif entry.type is FileType.SYMLINK:
                here = await _through_symlink(txn, here, name, last, request.user)
            else:
                code = Code.EXISTS if last else Code.NOT_DIRECTORY
                raise EmberError(code, f"{name!r} in directory {here} is not a directory")
        record = await get_inode(txn, here)
        if record.type is not FileType.DIRECTORY:
            raise EmberError(Code.NOT_DIRECTORY, f"inode {here} is not a directory")
        return AttributesReply(attributes(here, record)), made

    return await once(context, MKDIR, request.request, apply, relaxed=request.relaxed)


async def _through_symlink(txn: Transaction, at: int, name: bytes, last: bool, user: User) -> int:
    try:
        inode = await resolve(txn, at, name, True, user)
    except EmberError as error:
        if error.code is Code.NOT_FOUND:
            raise EmberError(Code.EXISTS, f"{name!r} in directory {at} is a dangling symbolic link") from error
        raise
    if (await get_inode(txn, inode)).type is not FileType.DIRECTORY:
        code = Code.EXISTS if last else Code.NOT_DIRECTORY
        raise EmberError(code, f"{name!r} in directory {at} does not lead to a directory")
    return inode


async def _make(
    txn: Transaction,
    request: Mkdir,
    parent_id: int,
    name: bytes,
    inode: int,
    besides: int,
    layout: Layout | None,
    now_ns: int,
) -> AttributesReply:
    """`besides`: rights that it has beside those asked for."""
    mode = request.mode | besides
    unmasked = None if request.unmasked is None else request.unmasked | besides
    parent = await get_directory(txn, parent_id)
    check_make(parent_id, parent, request.user)
    record = add_directory(
        txn, parent_id, parent, name, inode, mode, request.user, request.request, now_ns, unmasked=unmasked
    )
    if layout is not None:
        record.layout = layout
        put_inode(txn, inode, record)
    touch_directory(txn, parent_id, parent, now_ns)
    return AttributesReply(attributes(inode, record))
