"""batch_create: many new files in one directory."""

from fs_common.errors import Code, EmberError
from fs_common.layout import validate
from fs_common.limits import BATCH_NAMES_MAX
from fs_common.methods import BATCH_CREATE
from fs_common.records.meta import Attributes, BatchAttributesReply, BatchCreate, FileType, NameFailure
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes, get_directory, group_of_child, mode_of_child, put_inode, touch_directory
from fs_meta.ops.once import once
from fs_meta.ops.permission import check_make, check_search
from fs_meta.ops.resolve import SELF, check_name
from fs_meta.schema import Entry, Inode


async def batch_create(context: Context, request: BatchCreate) -> BatchAttributesReply:
    """Make a file for each name in one transaction; a name that fails does not fail the others. Nothing is opened.

    For a name: EEXIST (also when it comes twice), ENAMETOOLONG, EINVAL (empty, `.`, `..`, a `/` or NUL in it), EACCES
    and EPERM: nothing may be put into the directory. For all: ENOTDIR, ESTALE, ENOENT, EACCES (no search) of the
    directory; EINVAL: more than 4096 names, a wrong layout; CLUSTER_NOT_READY (retry).
    """
    names = request.names
    if len(names) > BATCH_NAMES_MAX:
        raise EmberError(Code.INVALID, f"{len(names)} names in one request, at most {BATCH_NAMES_MAX}")
    if request.layout is not None:
        validate(request.layout)
    inodes = await context.inode_ids.take_many(len(names))
    now_ns = context.now_ns()
    user = request.user

    async def apply(txn: Transaction) -> tuple[BatchAttributesReply, int]:
        parent = await get_directory(txn, request.parent)
        check_search(request.parent, parent, user)
        wanted = request.layout or parent.layout
        assert wanted is not None
        gid = group_of_child(parent, user)
        mode, acl = mode_of_child(parent, request.mode, request.unmasked, user)
        made: list[Attributes | None] = []
        failures: list[NameFailure] = []
        for index, name in enumerate(names):
            inode = inodes[index]
            try:
                if name in SELF or b"/" in name:
                    raise EmberError(Code.INVALID, f"{name!r} cannot be the name of a file")
                check_name(name)
                key = schema.entry_key(request.parent, name)
                if await txn.get(key) is not None:
                    raise EmberError(Code.EXISTS, f"{name!r} exists in directory {request.parent}")
                check_make(request.parent, parent, user)
            except EmberError as error:
                made.append(None)
                failures.append(NameFailure(index, error.code.value.number, error.message))
                continue
            layout = context.allocator.place(wanted)
            record = Inode(FileType.FILE, mode, user.uid, gid, 1, 0, now_ns, now_ns, now_ns, now_ns, layout, acl=acl)
            put_inode(txn, inode, record)
            txn.put(key, schema.encode(Entry(inode, FileType.FILE, request.request)))
            made.append(attributes(inode, record))
        count = len(names) - len(failures)
        if count:
            touch_directory(txn, request.parent, parent, now_ns)
        return BatchAttributesReply(made, failures), count

    return await once(context, BATCH_CREATE, request.request, apply, relaxed=request.relaxed)
