"""truncate: the length of a file is set.

Steps: (1) read the file, check rights; (2) unless it was never open for writing, cut its chunks on the storage daemons:
on each chain of its stripe remove those that begin at or beyond the new length, then cut the one it falls into, if that
is longer; (3) one transaction sets the length and moves the truncate version on. Commit point: (3). A crash after some
of (2) leaves the old length with a hole at the end where data was cut; the client's retry, under the same request id,
completes it.

What a writer stored before (2) is cut by (2), whether it was reported or not: the length tells nothing of the chunks of
a writer that has not reported, or cannot (it was pruned, its close failed). What a writer stores on a chain behind that
chain's part of (2) is a write after the truncate, over zeros. If it reports before (3), the file is not as (1) saw it
and all is done again. If it reports after (3), its hint is of an older version: storage is asked. Either way no byte of
before comes back later, neither beyond the length nor when the file grows again.

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
from fs_meta.ops.inodes import attributes, put_inode
from fs_meta.ops.once import answer, answered, once
from fs_meta.ops.permission import FIXED, WRITE, check_rights, without_set_id
from fs_meta.ops.resolve import get_inode
from fs_meta.ops.sessions import ROUNDS_MAX, find_session, length_max, longer
from fs_meta.ops.xattrs import drop_capability


class _Changed(Exception):
    """Raised inside the transaction, to abort it: the file is not as it was when its chunks were cut."""


async def truncate(context: Context, request: Truncate, client: bytes = b"") -> AttributesReply:
    """Set the length; its bytes beyond are gone, bytes it grows by are zeros.

    POSIX ftruncate with a session, truncate without. mtime and ctime change in any case, the version with the length.
    Capabilities go, and set-id bits if the user is not root.

    Without a session: EACCES unless the user may write. With one: EBADF, the calling `client` has none; EINVAL, it is
    not for writing. EISDIR for a directory; EINVAL for what is no file, or a negative length; EPERM: immutable or
    append-only; EFBIG beyond the largest file of the layout. ESTALE: the inode is gone. Storage's errors when chunks
    cannot be cut: nothing has changed, or less is left of what was to be cut. BUSY: writers kept changing the file.
    """
    if request.length < 0:
        raise EmberError(Code.INVALID, f"a length of {request.length} bytes")
    async with context.truncating.turn(request.inode):
        stored = await answered(context, request.request)
        if stored is not None:
            return await _again(context, request, stored)
        for _ in range(ROUNDS_MAX):
            try:
                return await _round(context, request, client)
            except _Changed:
                continue
    raise EmberError(Code.BUSY, f"file {request.inode} is written again and again while it is truncated; retry")


async def _round(context: Context, request: Truncate, client: bytes) -> AttributesReply:
    inode, length = request.inode, request.length

    async def look(txn: Transaction) -> schema.Inode | EmberError:
        try:
            record = await get_inode(txn, inode)
            await _check(txn, record, request, client)
        except EmberError as error:
            return error
        return record

    # Rights and flags are those of before the cut: it cannot be undone if they change meanwhile.
    seen = await context.kv.read(look)
    if isinstance(seen, EmberError):
        return await _refuse(context, request, seen)
    if seen.flags & schema.WRITTEN or length < seen.length:
        assert seen.layout is not None
        await context.chunks.cut(inode, seen.layout, length)
    now_ns = context.now_ns()

    async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
        record = await get_inode(txn, inode)
        if (record.version, record.truncate_version) != (seen.version, seen.truncate_version):
            raise _Changed
        if length != record.length:
            record.version += 1
        record.length = min(record.length, length)
        longer(record, length)
        if not length:
            record.flags &= ~schema.SPARSE
        record.truncate_version += 1
        record.mtime_ns = record.ctime_ns = now_ns
        record.mode = without_set_id(record, request.user)
        drop_capability(txn, inode, record)
        put_inode(txn, inode, record)
        return AttributesReply(attributes(inode, record)), 0

    return await once(context, TRUNCATE, request.request, apply, relaxed=request.relaxed)


async def _check(txn: Transaction, record: schema.Inode, request: Truncate, client: bytes) -> None:
    """Raise unless the user may do it; the order is Linux's."""
    inode = request.inode
    if record.type is FileType.DIRECTORY:
        raise EmberError(Code.IS_DIRECTORY, f"inode {inode} is a directory")
    if record.type is not FileType.FILE:
        raise EmberError(Code.INVALID, f"inode {inode} is a {record.type.name.lower()}")
    if request.session:
        if not (await find_session(txn, inode, request.session, client)).write:
            raise EmberError(Code.INVALID, f"this session of file {inode} is not for writing")
    else:
        check_rights(inode, record, request.user, WRITE)
    if record.flags & FIXED:
        raise EmberError(Code.NOT_PERMITTED, f"inode {inode} is flagged immutable or append-only")
    assert record.layout is not None
    largest = length_max(record.layout)
    if request.length > largest:
        raise EmberError(Code.FILE_TOO_LARGE, f"{request.length} bytes; files of this layout end at {largest}")


async def _again(context: Context, request: Truncate, stored: bytes) -> AttributesReply:
    """What the request was answered, once that may be told: a transaction waits for what the first answer waits for."""

    async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
        return answer(TRUNCATE, stored), 0

    return await once(context, TRUNCATE, request.request, apply, relaxed=request.relaxed)


async def _refuse(context: Context, request: Truncate, error: EmberError) -> AttributesReply:
    """Raise `error`, which a retry of the request is told too."""

    async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
        raise error

    return await once(context, TRUNCATE, request.request, apply, relaxed=request.relaxed)
