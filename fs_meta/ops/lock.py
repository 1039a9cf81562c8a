"""lock: an advisory lock is taken, changed or given up; waited for if the caller wants.

Each look at a file's locks is one transaction that takes the lock, answer included, or changes nothing. Between looks
the call stands in a queue in memory (`fs_meta.locks`); whoever gives up locks wakes those who can have theirs, in the
order of the queue.

A request is answered once: taken, WOULD_BLOCK, DEADLOCK. While it waits nothing is stored, so a copy that is sent after
a lost connection or a restart of the server waits on. A caller who does not want the lock any more sends the request
again with `wait_ms` 0: it is told of the lock if it has it, and else WOULD_BLOCK, which ends all copies.

flock(2) changes the type of a lock by giving up the old one first, if the new one cannot be had at once: that is a
transaction before the wait. A crash in between leaves it given up, as the system call would.

Who does not wait is refused only after the holders were asked whether they still have it (`fs_meta.locks.questions`):
a program's close may have given it up, and its mount not have said so yet. A request that ends a wait asks nobody.

Locks are relaxed transactions: they survive the process, and with the machine the clients' claims are void anyway.
"""

import asyncio
from typing import Final

from fs_common.errors import Code, EmberError
from fs_common.ids import shown_client
from fs_common.limits import LOCKS_MAX
from fs_common.methods import LOCK
from fs_common.records.locks import LOCK_END, GetLock, Lock, LockKind, LockReply, LockType
from fs_common.records.meta import FileType
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.locks.ranges import conflicting, give_up, give_up_all, owner_of, take
from fs_meta.locks.waits import Wait, get_locks, put_locks
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes
from fs_meta.ops.once import once
from fs_meta.ops.resolve import get_inode
from fs_meta.schema import HeldLock

WAIT_MS_MAX: Final = 60_000
"""A longer wait is this long: a caller that wants more asks again, which shows that it is there."""
HELD_BACK_S: Final = 3.0
"""How long a waiter leaves a free lock to those before it: longer than most locks are held, shorter than patience."""
RECHECK_S: Final = 0.5
"""On a store that other servers share: nobody tells of the locks that they give up."""


class _Blocked(Exception):
    """Raised inside the transaction, to abort it: the lock cannot be had now."""

    def __init__(self, to_drop: bool) -> None:
        super().__init__()
        self.to_drop = to_drop
        """The owner has a lock of the other type that has to be given up first."""


async def lock(context: Context, request: Lock, caller: object = None) -> LockReply:
    """Take a lock, change its type or range, or (UNLOCK) give up a range. APPEND answers the file's attributes of the
    moment it was taken.

    EAGAIN: another owner has what conflicts, and had for `wait_ms` (0: is not waited for). EDEADLK: owners of RANGE
    locks would wait in a circle. ENOLCK: over 8192 locks on one file. EINVAL: kind, type or range; an APPEND lock that
    is shared, or not of a file. ESTALE: the inode is gone; giving up is a success then. BUSY (retry): the caller waits
    for 512 locks already.

    `caller`: when it is lost (`LockWaits.caller_lost`) the wait ends.
    """
    wanted = wanted_lock(request)
    inode = request.inode
    if request.type == LockType.UNLOCK:
        return await _unlock(context, request, wanted)
    waits = context.lock_waits
    try:
        if request.wait_ms <= 0 and not waits.waits_for(inode, request.request):
            reply = await _look(context, request, wanted, None, last=False)
            if reply is not None:
                return reply
            await ask_holders(context, inode, wanted)
        if request.wait_ms <= 0 or not waits.is_queued(inode):
            reply = await _look(context, request, wanted, None, last=request.wait_ms <= 0)
            if reply is not None:
                return reply
        with waits.joined(inode, wanted, request.request, caller) as wait:
            waited = await _wait(context, request, wanted, wait)
        if waited is not None:
            return waited
        # It has left the queue: the others of the circle wait for nobody who waits for them, and are not refused too.
        return await _refuse(context, request)
    finally:
        waits.answered(inode, request.request)


def wanted_lock(request: Lock | GetLock) -> HeldLock:
    """The lock a request is about; of the kinds that know no ranges it is of the whole file. Raises INVALID."""
    kind, type_, start, end = request.kind, request.type, request.start, request.end
    if kind not in LockKind.__members__.values() or type_ not in LockType.__members__.values():
        raise EmberError(Code.INVALID, f"a lock of kind {kind} and type {type_}")
    if kind == LockKind.APPEND and type_ == LockType.SHARED:
        raise EmberError(Code.INVALID, "an append lock is exclusive")
    if kind != LockKind.RANGE:
        start, end = 0, LOCK_END
    elif not 0 <= start <= end <= LOCK_END:
        raise EmberError(Code.INVALID, f"a lock from {start} to {end}")
    process = request.process if isinstance(request, Lock) else 0
    return HeldLock(kind, type_, request.client, request.owner, start, end, process)


async def ask_holders(context: Context, inode: int, wanted: HeldLock) -> bool:
    """Whoever has what stands in the way gives up now what its programs have given up already. False: nobody else has
    any that could be asked."""
    if wanted.kind == LockKind.APPEND:
        return False
    held = await context.kv.read(lambda txn: get_locks(txn, inode))
    holders = {lock.client for lock in conflicting(held, wanted)} - {wanted.client}
    return bool(holders) and await context.lock_questions.ask(holders, inode)


async def _unlock(context: Context, request: Lock, wanted: HeldLock) -> LockReply:
    inode = request.inode

    async def apply(txn: Transaction) -> tuple[LockReply, int]:
        held = await get_locks(txn, inode)
        left = give_up(held, wanted.kind, owner_of(wanted), wanted.start, wanted.end)
        if left != held:
            put_locks(txn, inode, left)
        return LockReply(), 0

    reply = await once(context, LOCK, request.request, apply, relaxed=True)
    await context.lock_waits.changed(context.kv, inode)
    return reply


async def _wait(context: Context, request: Lock, wanted: HeldLock, wait: Wait) -> LockReply | None:
    """None: it closes a circle of waits."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    deadline = now + min(request.wait_ms, WAIT_MS_MAX) / 1000
    held_back_until = now + HELD_BACK_S
    begun = False
    while True:
        wait.arm()
        now = loop.time()
        wait.impatient = now >= held_back_until
        reply = await _look(context, request, wanted, wait, last=now >= deadline)
        if reply is not None:
            return reply
        await context.lock_waits.changed(context.kv, request.inode)
        if context.lock_waits.is_deadlock(wait):
            return None
        if not begun:
            begun = True
            context.lock_waits.untangle(wait)
        until = deadline if wait.impatient else min(deadline, held_back_until)
        await wait.woken(until if context.kv.exclusive else min(until, now + RECHECK_S))


async def _look(
    context: Context, request: Lock, wanted: HeldLock, wait: Wait | None, *, last: bool
) -> LockReply | None:
    """Take the lock if it can be had. None: it cannot now. `last`: then it is WOULD_BLOCK, for good."""
    inode = request.inode

    async def apply(txn: Transaction) -> tuple[LockReply, int]:
        record = await get_inode(txn, inode)
        if wanted.kind == LockKind.APPEND and record.type is not FileType.FILE:
            raise EmberError(Code.INVALID, f"inode {inode} is no regular file: nothing is appended to it")
        held = await get_locks(txn, inode)
        blockers = conflicting(held, wanted)
        if blockers or (wait is not None and context.lock_waits.is_held_back(wait)):
            to_drop = wanted.kind == LockKind.FLOCK and give_up_all(held, wanted.kind, owner_of(wanted)) != held
            if last and not to_drop:
                what = f"client {shown_client(blockers[0].client)} has a lock" if blockers else "others wait longer"
                raise EmberError(Code.WOULD_BLOCK, f"file {inode} is locked: {what}")
            raise _Blocked(to_drop)
        taken = take(held, wanted)
        if len(taken) > max(len(held), LOCKS_MAX):
            raise EmberError(Code.TOO_MANY_LOCKS, f"file {inode} has {len(held)} locks")
        if taken != held:
            put_locks(txn, inode, taken)
        seen = attributes(inode, record) if wanted.kind == LockKind.APPEND else None
        return LockReply(seen, context.lock_lease_ms), 0

    while True:
        try:
            reply = await once(context, LOCK, request.request, apply, relaxed=True)
        except _Blocked as blocked:
            if not blocked.to_drop:
                return None
            await _drop(context, request, wanted)
        else:
            await context.lock_waits.changed(context.kv, inode)
            return reply


async def _drop(context: Context, request: Lock, wanted: HeldLock) -> None:
    """Give up what the owner has, unless the request was answered meanwhile."""
    inode = request.inode

    async def drop(txn: Transaction) -> None:
        if await txn.get(schema.answer_key(request.request)) is None:
            held = await get_locks(txn, inode)
            put_locks(txn, inode, give_up_all(held, wanted.kind, owner_of(wanted)))

    await context.kv.transact(drop, relaxed=True)
    await context.lock_waits.changed(context.kv, inode)


async def _refuse(context: Context, request: Lock) -> LockReply:
    async def refuse(txn: Transaction) -> tuple[LockReply, int]:
        raise EmberError(Code.DEADLOCK, f"waiting for a lock on file {request.inode} would close a circle of waits")

    return await once(context, LOCK, request.request, refuse, relaxed=True)
