"""fsync: length and times of a file settle while its session goes on."""

from fs_common.methods import FSYNC
from fs_common.records.meta import AttributesReply, Fsync
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes, put_inode
from fs_meta.ops.once import once
from fs_meta.ops.sessions import Measured, measuring, settle


async def fsync(context: Context, request: Fsync, client: bytes = b"") -> AttributesReply:
    """Bring length and times up to date by the rules of `fs_meta.ops.sessions`, in one transaction.

    EBADF: there is no such session of the calling `client`, or a hold reports what it wrote. EINVAL: a hint from the
    future. EFBIG: a hint beyond the largest file. Storage's errors when it has to be asked.
    """
    now_ns = context.now_ns()

    async def attempt(measured: Measured | None) -> AttributesReply:
        async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
            record = await settle(txn, request, client, measured, now_ns)
            put_inode(txn, request.inode, record)
            return AttributesReply(attributes(request.inode, record)), 0

        return await once(context, FSYNC, request.request, apply, relaxed=request.relaxed)

    return await measuring(context, attempt)
