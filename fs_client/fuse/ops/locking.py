"""GETLK, SETLK, SETLKW, for fcntl(2) ranges and flock(2)."""

import asyncio
import fcntl
from collections.abc import Mapping

from fs_client.fuse import abi, answers, requests
from fs_client.fuse.abi import Opcode
from fs_client.fuse.handles import Handle
from fs_client.fuse.kernel_request import Handler, Request, Result
from fs_client.fuse.locks import older_ends, take_lock, wait_for_lock
from fs_client.fuse.mount import Mount
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records.locks import LOCK_END, GetLock, GetLockReply, Lock, LockKind, LockType

_TYPES = {fcntl.F_RDLCK: LockType.SHARED, fcntl.F_WRLCK: LockType.EXCLUSIVE, fcntl.F_UNLCK: LockType.UNLOCK}
_NUMBERS = {type_: number for number, type_ in _TYPES.items()}


def handlers(mount: Mount) -> Mapping[int, Handler]:
    async def getlk(request: Request) -> Result:
        asked = requests.parse_lock(request.body)
        handle = mount.handles.file(asked.fh)
        await older_ends(handle.file, None)
        question = GetLock(
            handle.file.inode,
            mount.client,
            asked.owner,
            LockKind.RANGE,
            _type(asked.type),
            asked.start,
            min(asked.end, LOCK_END),
        )
        reply: GetLockReply = await mount.call(methods.GET_LOCK, question)
        return answers.lk_out(reply.start, reply.end, _NUMBERS[LockType(reply.type)], reply.process)

    async def setlk(request: Request) -> Result:
        asked = requests.parse_lock(request.body)
        await take(mount.handles.file(asked.fh), asked, None)
        return None

    async def setlkw(request: Request) -> Result:
        asked = requests.parse_lock(request.body)
        handle = mount.handles.file(asked.fh)
        withdrawn: asyncio.Future[None] = mount.loop.create_future()

        def withdraw() -> None:
            if not withdrawn.done():
                withdrawn.set_result(None)

        request.withdraw = withdraw
        await take(handle, asked, withdrawn)
        return None

    async def take(handle: Handle, asked: requests.Lock, withdrawn: "asyncio.Future[None] | None") -> None:
        """`withdrawn`: wait for it, until that is done; None: do not wait."""
        kind = LockKind.FLOCK if asked.lk_flags & abi.LK_FLOCK else LockKind.RANGE
        # The kernel's number of an open file description is used again by the next one. A handle's number never is.
        owner = handle.number if kind is LockKind.FLOCK else asked.owner
        type_ = _type(asked.type)
        file = handle.file
        start, end = (0, LOCK_END) if kind is LockKind.FLOCK else (asked.start, min(asked.end, LOCK_END))
        if type_ is LockType.UNLOCK:
            # What was written under the lock is there for who takes it next.
            if file.dirty:
                await file.settle()
        else:
            await older_ends(file, withdrawn)
            handle.lock_owners.add((kind, owner))
            if kind is LockKind.RANGE:
                file.range_owners.add(owner)
            # Who answers questions goes on only while it sees an owner.
            mount.lock_questions.expect()
        if withdrawn is not None and type_ is not LockType.UNLOCK:
            await wait_for_lock(mount, file.inode, owner, kind, type_, start, end, asked.pid, withdrawn)
        else:
            taken = None
            while taken is None:
                lock = Lock(file.inode, mount.client, owner, kind, type_, mount.request_id(), start, end, asked.pid)
                taken = await take_lock(mount, lock)
        if type_ is not LockType.UNLOCK:
            await renew(handle)

    async def renew(handle: Handle) -> None:
        """Who has taken a lock sees what its holders before have written."""
        file = handle.file
        node = file.node
        await file.ask()
        if node.cached_version != file.version or node.told_version not in (-1, file.version):
            # The kernel's pages, or the length it believes, are of what was there before.
            node.cached_version = file.version
            node.told_version = -1
            mount.channel.notify_inval_inode(file.inode)
            await mount.channel.notified()

    return {Opcode.GETLK: getlk, Opcode.SETLK: setlk, Opcode.SETLKW: setlkw}


def _type(number: int) -> LockType:
    found = _TYPES.get(number)
    if found is None:
        raise EmberError(Code.INVALID, f"lock type {number}")
    return found
