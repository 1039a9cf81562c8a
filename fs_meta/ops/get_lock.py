"""get_lock: what stands in the way of a lock."""

from fs_common.errors import Code, EmberError
from fs_common.records.locks import GetLock, GetLockReply, LockType
from fs_meta.kv.interface import Transaction
from fs_meta.locks.ranges import conflicting
from fs_meta.locks.waits import get_locks
from fs_meta.ops.context import Context
from fs_meta.ops.lock import ask_holders, wanted_lock
from fs_meta.ops.resolve import get_inode


async def get_lock(context: Context, request: GetLock) -> GetLockReply:
    """The first lock, by where it begins, that keeps this one from being taken; UNLOCK if it could be taken.

    As F_GETLK, with the process only for locks of the same client: ids of other machines mean nothing here. Who waits
    stands in nobody's way; of what does, the holders are asked whether they still have it. EINVAL: kind, type (UNLOCK)
    or range. ESTALE: the inode is gone.
    """
    if request.type == LockType.UNLOCK:
        raise EmberError(Code.INVALID, "nothing stands in the way of giving up")
    wanted = wanted_lock(request)

    async def look(txn: Transaction) -> GetLockReply:
        await get_inode(txn, request.inode)
        blockers = conflicting(await get_locks(txn, request.inode), wanted)
        if not blockers:
            return GetLockReply(LockType.UNLOCK)
        first = min(blockers, key=lambda held: held.start)
        process = first.process if first.client == request.client else 0
        return GetLockReply(first.type, first.start, first.end, process)

    reply = await context.kv.read(look)
    if reply.type != LockType.UNLOCK and await ask_holders(context, request.inode, wanted):
        reply = await context.kv.read(look)
    return reply
