"""GETLK, SETLK, SETLKW, for fcntl(2) ranges and flock(2)."""

import asyncio
import fcntl
from collections.abc import Mapping

from fs_client.fuse import abi, answers, requests
from fs_client.fuse.abi import Opcode
from fs_client.fuse.handles import Handle
from fs_client.fuse.kernel_request import Handler, Request, Result
from fs_client.fuse.locks import wait_for_lock
from fs_client.fuse.mount import Mount
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records import meta
from fs_common.records.meta import LockKind, LockType

_TYPES = {fcntl.F_RDLCK: LockType.SHARED, fcntl.F_WRLCK: LockType.EXCLUSIVE, fcntl.F_UNLCK: LockType.UNLOCK}
_NUMBERS = {type_: number for number, type_ in _TYPES.items()}


def handlers(mount: Mount) -> Mapping[int, Handler]:
    async def getlk(request: Request) -> Result:
        asked = requests.parse_lock(request.body)
        handle = mount.handles.file(asked.fh)
        question = meta.GetLock(
            handle.file.inode,
            mount.client,
            asked.owner,
            LockKind.RANGE,
            _type(asked.type),
            asked.start,
            min(asked.end, meta.LOCK_END),
        )
        reply: meta.GetLockReply = await mount.call(methods.GET_LOCK, question)
        return answers.lk_out(reply.start, reply.end, _NUMBERS[LockType(reply.type)], reply.process)

    async def setlk(request: Request) -> Result:
        asked = requests.parse_lock(request.body)
        await take(request, mount.handles.file(asked.fh), asked, wait=False)
        return None

    async def setlkw(request: Request) -> Result:
        asked = requests.parse_lock(request.body)
        handle = mount.handles.file(asked.fh)
        try:
            await take(request, handle, asked, wait=True)
        except asyncio.CancelledError:
            # The program was interrupted: nobody knows whether the lock was taken, so it is given up.
            mount.spawn(give_up(handle, asked))
            raise
        return None

    async def take(request: Request, handle: Handle, asked: requests.Lock, *, wait: bool) -> None:
        kind = LockKind.FLOCK if asked.lk_flags & abi.LK_FLOCK else LockKind.RANGE
        type_ = _type(asked.type)
        file = handle.file
        start, end = (0, meta.LOCK_END) if kind is LockKind.FLOCK else (asked.start, min(asked.end, meta.LOCK_END))
        if type_ is LockType.UNLOCK:
            # What was written under the lock is there for who takes it next.
            if file.dirty:
                await file.settle()
        else:
            handle.lock_owners.add((kind, asked.owner))
        if wait and type_ is not LockType.UNLOCK:
            await wait_for_lock(mount, file.inode, asked.owner, kind, type_, start, end, asked.pid)
        else:
            lock = meta.Lock(
                file.inode, mount.client, asked.owner, kind, type_, mount.request_id(), start, end, asked.pid
            )
            await mount.call(methods.LOCK, lock)
        if type_ is not LockType.UNLOCK:
            await renew(handle)

    async def renew(handle: Handle) -> None:
        """Who has taken a lock sees what its holders before have written."""
        file = handle.file
        version = file.version
        await mount.fresh_attributes(file.node)
        if file.version != version:
            # The kernel's pages are of what was there before.
            file.node.cached_version = file.version
            mount.channel.notify_inval_inode(file.inode)
            await mount.channel.notified()

    async def give_up(handle: Handle, asked: requests.Lock) -> None:
        kind = LockKind.FLOCK if asked.lk_flags & abi.LK_FLOCK else LockKind.RANGE
        unlock = meta.Lock(
            handle.file.inode,
            mount.client,
            asked.owner,
            kind,
            LockType.UNLOCK,
            mount.request_id(),
            0 if kind is LockKind.FLOCK else asked.start,
            meta.LOCK_END if kind is LockKind.FLOCK else min(asked.end, meta.LOCK_END),
            asked.pid,
        )
        try:
            await mount.call(methods.LOCK, unlock)
        except EmberError:
            # It ends with the handle, or with this client.
            handle.lock_owners.add((kind, asked.owner))

    return {Opcode.GETLK: getlk, Opcode.SETLK: setlk, Opcode.SETLKW: setlkw}


def _type(number: int) -> LockType:
    found = _TYPES.get(number)
    if found is None:
        raise EmberError(Code.INVALID, f"lock type {number}")
    return found
