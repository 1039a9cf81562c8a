"""release_locks: an owner gives up all it has on a file."""

from fs_common.errors import Code, EmberError
from fs_common.methods import RELEASE_LOCKS
from fs_common.records.locks import LockKind, ReleaseLocks, ReleaseLocksReply
from fs_meta.kv.interface import Transaction
from fs_meta.locks.ranges import give_up_all
from fs_meta.locks.waits import get_locks, put_locks
from fs_meta.ops.context import Context
from fs_meta.ops.once import once


async def release_locks(context: Context, request: ReleaseLocks) -> ReleaseLocksReply:
    """Give up all locks of one owner and kind; to have none is a success, and is told: who took one and asked for none
    since has lost it meanwhile (`fs_meta.prune`). The owner's waits go on. EINVAL: the kind.
    """
    if request.kind not in LockKind.__members__.values():
        raise EmberError(Code.INVALID, f"locks of kind {request.kind}")
    inode = request.inode

    async def apply(txn: Transaction) -> tuple[ReleaseLocksReply, int]:
        held = await get_locks(txn, inode)
        left = give_up_all(held, request.kind, (request.client, request.owner))
        if left != held:
            put_locks(txn, inode, left)
        return ReleaseLocksReply(left != held), 0

    reply = await once(context, RELEASE_LOCKS, request.request, apply, relaxed=True)
    await context.lock_waits.changed(context.kv, inode)
    return reply
