"""close: the end of a session."""

from fs_common.methods import CLOSE
from fs_common.records.meta import AttributesReply, Close
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes, has_sessions, put_inode, queue_file
from fs_meta.ops.once import once
from fs_meta.ops.sessions import Measured, measuring, settle


async def close(context: Context, request: Close, client: bytes = b"") -> AttributesReply:
    """Settle length and times as `fsync`, and end the session, in one transaction.

    The last session of a file without names queues the file for collection. EBADF: there is no such session of the
    calling `client`, or a hold reports what it wrote (a retry under the same request id is answered as the first time).
    An `exact` close fails, and the session stays, when storage cannot be asked.
    """
    now_ns = context.now_ns()

    async def attempt(measured: Measured | None) -> AttributesReply:
        async def apply(txn: Transaction) -> tuple[AttributesReply, int]:
            inode = request.inode
            record = await settle(txn, request, client, measured, now_ns)
            txn.delete(schema.session_key(inode, request.session))
            if not record.links and not await has_sessions(txn, inode):
                # Without a name it never had readers elsewhere, who would need the delay.
                unnamed = record.flags & schema.UNNAMED
                queue_file(txn, inode, record, now_ns, context.service_time.now_ns() if unnamed else context.due_ns())
            put_inode(txn, inode, record)
            return AttributesReply(attributes(inode, record)), 0

        return await once(context, CLOSE, request.request, apply, relaxed=request.relaxed)

    return await measuring(context, attempt)
