"""truncate: the length of a file is set.

Steps: (1) read the file; (2) if it may have chunks beyond the new length, cut them on the storage daemons; (3) one
transaction sets the length and moves the truncate version on. Commit point: (3). A crash after some of (2) leaves the
old length with a hole at the end where data was cut; the client's retry, under the same request id, completes it.

A writer may put chunks back between (2) and (3). If it reports them before (3), the file is not as (1) saw it and all
is done again. If it reports them after (3), its hint is of an older version: storage is asked, and the write counts as
made after the truncate. Either way no byte beyond the length comes back later.

A retry of a request may arrive while the first copy is at (2) or (3). It must not cut again once the first was
answered (a writer may have written since), so the truncates of one file come one after another in this process, and
each looks for its answer first.
"""

from fs_common.errors import Code, EmberError
from fs_common.methods import TRUNCATE
from fs_common.records.meta import AttributesReply, FileType, Truncate
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes, has_writers, put_inode
from fs_meta.ops.once import answer, answered, once
from fs_meta.ops.resolve import get_inode
from fs_meta.ops.sessions import ROUNDS_MAX, length_max


class _Changed(Exception):
    """Raised inside the transaction, to abort it: the file is not as it was when its chunks were cut."""


async def truncate(context: Context, request: Truncate) -> AttributesReply:
    """Set the length; its bytes beyond are gone, bytes it grows by are zeros. mtime and ctime change.

    POSIX ftruncate: EISDIR for a directory; EINVAL for a symbolic link or a negative length; EFBIG beyond the largest
    file of the layout. ESTALE: the inode is gone. Storage's errors when chunks cannot be cut: nothing has changed, or
    less is left of what was to be cut. BUSY: writers kept changing the file.
    """
    if request.length < 0:
        raise EmberError(Code.INVALID, f"a length of {request.length} bytes")
    async with context.truncating.turn(request.inode):
        stored = await answered(context, request.request)
        if stored is not None:
            reply: AttributesReply = answer(TRUNCATE, stored)
            return reply
        for _ in range(ROUNDS_MAX):
            try:
                return await _round(context, request)
            except _Changed:
                continue
    raise EmberError(Code.BUSY, f"file {request.inode} is written again and again while it is truncated; retry")


async def _round(context: Context, request: Truncate) -> AttributesReply:
    inode, length = request.inode, request.length

    async def look(txn: Transaction) -> tuple[schema.Inode, bool]:
        return await get_inode(txn, inode), await has_writers(txn, inode)

    seen, written = await context.kv.read(look)
    # A writer may have chunks beyond any length that it has not reported; without one the length tells them all.
    cuts = seen.type is FileType.FILE and (length < seen.length or written)
    if cuts:
        assert seen.layout is not None
        await context.chunks.cut(inode, seen.layout, length)
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
        record = await get_inode(txn, inode)
        if record.type is FileType.DIRECTORY:
            raise EmberError(Code.IS_DIRECTORY, f"inode {inode} is a directory")
        if record.type is FileType.SYMLINK:
            raise EmberError(Code.INVALID, f"inode {inode} is a symbolic link")
        layout = record.layout
        assert layout is not None
        if length > length_max(layout):
            raise EmberError(Code.FILE_TOO_LARGE, f"{length} bytes; files of this layout end at {length_max(layout)}")
        if (record.length, record.truncate_version, record.mtime_ns) != (
            seen.length,
            seen.truncate_version,
            seen.mtime_ns,
        ):
            raise _Changed
        record.length = length
        record.truncate_version += 1
        record.mtime_ns = record.ctime_ns = now_ns
        put_inode(txn, inode, record)
        return AttributesReply(attributes(inode, record)), 0

    return await once(context, TRUNCATE, request.request, apply, relaxed=request.relaxed)
