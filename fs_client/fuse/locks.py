"""Advisory locks, which the metadata service keeps for all clients.

A lock belongs to (client, owner); the owner is the kernel's number for a process or an open file description. What was
taken through a handle is noted there, so that its end gives it up. A wait is cut into slices, each one call; it ends
when the program is interrupted.
"""

from typing import TYPE_CHECKING

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records import meta
from fs_common.records.meta import LockKind

if TYPE_CHECKING:
    from fs_client.fuse.handles import Handle
    from fs_client.fuse.mount import Mount

SLICE_MS = 4000
"""Shorter than one try of a call may take."""


async def wait_for_lock(
    mount: "Mount", inode: int, owner: int, kind: int, type_: int, start: int, end: int, process: int
) -> meta.LockReply:
    """Take a lock, however long that takes. Cancelled, it may have been taken: the caller gives it up."""
    while True:
        request = meta.Lock(inode, mount.client, owner, kind, type_, mount.request_id(), start, end, process, SLICE_MS)
        try:
            reply: meta.LockReply = await mount.call(methods.LOCK, request)
            return reply
        except EmberError as error:
            if error.code is not Code.WOULD_BLOCK:
                raise


async def release_range_locks(mount: "Mount", handle: "Handle", owner: int) -> None:
    """A process closes the file: POSIX takes all of its range locks, through whatever descriptor they came."""
    file = handle.file
    if not any((LockKind.RANGE, owner) in other.lock_owners for other in file.handles):
        return
    request = meta.ReleaseLocks(file.inode, mount.client, owner, LockKind.RANGE, mount.request_id())
    await mount.call(methods.RELEASE_LOCKS, request)
    for other in file.handles:
        other.lock_owners.discard((LockKind.RANGE, owner))


async def release_all_locks(mount: "Mount", handle: "Handle") -> None:
    """The open file description ends: so do all locks that were taken through it."""
    owners, handle.lock_owners = handle.lock_owners, set()
    for kind, owner in owners:
        request = meta.ReleaseLocks(handle.file.inode, mount.client, owner, kind, mount.request_id())
        await mount.call(methods.RELEASE_LOCKS, request)
