"""kept: whether the contents of files are still there, and for how long they certainly stay."""

from fs_common.errors import Code, EmberError
from fs_common.limits import BATCH_NAMES_MAX
from fs_common.records.meta import FileType, Kept, KeptReply
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import has_sessions
from fs_meta.service_time import stored_ns

_MS = 10**6
GONE = -1


async def kept(context: Context, request: Kept) -> KeptReply:
    """For each inode, for how many milliseconds from now on no chunk of it is taken away, whatever happens to its
    names; -1: it is gone, no file, or due for collection, so that chunks of it may be missing already.

    A chunk that was found missing before the question was sent is a hole if the answer is not -1. EINVAL: more than
    4096 inodes.
    """
    if len(request.inodes) > BATCH_NAMES_MAX:
        raise EmberError(Code.INVALID, f"{len(request.inodes)} inodes in one request, at most {BATCH_NAMES_MAX}")

    async def look(txn: Transaction) -> KeptReply:
        # Whoever took chunks has stored the time before: another server may be ahead of this one.
        now_ns = max(context.service_time.now_ns(), await stored_ns(txn))
        return KeptReply([await _for_ms(txn, context, inode, now_ns) for inode in request.inodes])

    return await context.kv.read(look)


async def _for_ms(txn: Transaction, context: Context, inode: int, now_ns: int) -> int:
    value = await txn.get(schema.inode_key(inode))
    if value is None:
        return GONE
    record = schema.decode_inode(value)
    if record.type is not FileType.FILE:
        return GONE
    if record.links or await has_sessions(txn, inode):
        # An unnamed file may be collected at once when its last session ends.
        return 0 if record.flags & schema.UNNAMED else context.gc_delay_ns // _MS
    left_ns = record.due_ns - now_ns
    return left_ns // _MS if left_ns > 0 else GONE
