"""Advisory locks, which the metadata service keeps for all clients.

A lock belongs to (client, owner); the owner is the kernel's number for a process or an open file description. What was
taken through a handle is noted there, so that its end gives it up. A wait is cut into slices, each one call; it ends
when the program is interrupted.
"""

import asyncio
import errno
import logging
import math
import os
from asyncio import FIRST_COMPLETED
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from fs_client.settle import ended
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records.locks import Lock, LockKind, LockReply, LockType, ReleaseLocks

if TYPE_CHECKING:
    from fs_client.fuse.files import File
    from fs_client.fuse.handles import Handle
    from fs_client.fuse.mount import Mount

logger = logging.getLogger(__name__)

SLICE_MS = 4000
"""Shorter than one try of a call may take."""


class Granted(NamedTuple):
    """A lock that was taken."""

    reply: LockReply
    until: float
    """On the mount's clock: so long nobody else has it, whatever becomes of our connections."""


async def take_lock(mount: "Mount", lock: Lock) -> Granted | None:
    """Ask once, through all tries of the call. None: taken, but the answer came so late that somebody else may have it
    by now; taking it again, under another request, is right.

    The lease counts from before the first try: the service has heard of this mount then, and not surely since.
    """
    sent = mount.now()
    reply: LockReply = await mount.call(methods.LOCK, lock)
    if not reply.lease_ms:
        return Granted(reply, math.inf)
    until = sent + reply.lease_ms / 1000
    return Granted(reply, until) if mount.now() < until else None


async def wait_for_lock(
    mount: "Mount",
    inode: int,
    owner: int,
    kind: int,
    type_: int,
    start: int,
    end: int,
    process: int,
    withdrawn: "asyncio.Future[None] | None" = None,
    given_up: Callable[[Lock], None] | None = None,
) -> Granted:
    """Take a lock, however long that takes, or until `withdrawn` is done: then InterruptedError, without the lock.

    `given_up`: called instead of withdrawing the request when the caller is cancelled; see `withdraw_lock`.
    """
    while True:
        request = Lock(inode, mount.client, owner, kind, type_, mount.request_id(), start, end, process, SLICE_MS)
        asking: asyncio.Task[Granted | None] = mount.loop.create_task(take_lock(mount, request))
        try:
            waiting: list[asyncio.Future[Any]] = [asking] if withdrawn is None else [asking, withdrawn]
            await asyncio.wait(waiting, return_when=FIRST_COMPLETED)
        except asyncio.CancelledError:
            asking.cancel()
            if given_up is not None:
                given_up(request)
            else:
                mount.spawn(_withdraw_quietly(mount, request))
            raise
        if not asking.done():
            await withdraw_lock(mount, request)
            asking.cancel()
            await ended([asking])
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        try:
            granted = asking.result()
            if granted is not None:
                return granted
            if withdrawn is not None and withdrawn.done():
                await withdraw_lock(mount, request)
        except EmberError as error:
            if error.code is not Code.WOULD_BLOCK:
                raise
        if withdrawn is not None and withdrawn.done():
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))


async def withdraw_lock(mount: "Mount", request: Lock) -> None:
    """End a wait: the same request without waiting is told of the lock if it was taken, which is then given up."""
    try:
        await mount.call(methods.LOCK, msgspec.structs.replace(request, wait_ms=0))
    except EmberError as error:
        if error.code in (Code.WOULD_BLOCK, Code.DEADLOCK):
            return
        raise
    unlock = msgspec.structs.replace(request, type=LockType.UNLOCK, request=mount.request_id(), wait_ms=0)
    await mount.call(methods.LOCK, unlock)


async def _withdraw_quietly(mount: "Mount", request: Lock) -> None:
    try:
        await withdraw_lock(mount, request)
    except EmberError as error:
        logger.warning("a lock on inode %d may be left until its file is closed: %s", request.inode, error)


async def release_range_locks(mount: "Mount", handle: "Handle", owner: int) -> None:
    """A process closes the file: POSIX takes all of its range locks, through whatever descriptor they came."""
    file = handle.file
    if owner not in file.range_owners:
        return
    request = ReleaseLocks(file.inode, mount.client, owner, LockKind.RANGE, mount.request_id())
    await mount.call(methods.RELEASE_LOCKS, request)
    file.range_owners.discard(owner)
    for other in file.handles:
        other.lock_owners.discard((LockKind.RANGE, owner))


async def release_all_locks(mount: "Mount", handle: "Handle") -> None:
    """The open file description ends: so do all locks that were taken through it.

    What its flushes have left is its own. The kernel's number for it may by now be that of another description, which
    then has been noted there as well: whatever is locked under that number ends with that one.
    """
    file = handle.file
    for kind, owner in list(handle.lock_owners):
        if not any((kind, owner) in other.lock_owners for other in file.handles if other is not handle):
            request = ReleaseLocks(file.inode, mount.client, owner, kind, mount.request_id())
            await mount.call(methods.RELEASE_LOCKS, request)
            if kind is LockKind.RANGE:
                file.range_owners.discard(owner)
        handle.lock_owners.discard((kind, owner))


async def older_ends(file: "File", withdrawn: "asyncio.Future[None] | None") -> None:
    """Wait until the locks of open file descriptions whose ends were told before have been given up: that must not hit
    what is taken now under the same number. Raises InterruptedError if `withdrawn` is done first."""
    waiting: set[asyncio.Future[None]] = set(file.ending)
    while waiting:
        await asyncio.wait(waiting if withdrawn is None else {*waiting, withdrawn}, return_when=FIRST_COMPLETED)
        if withdrawn is not None and withdrawn.done():
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        waiting = {end for end in waiting if not end.done()}
