"""O_APPEND: bytes go to the end of the file, wherever that is by now on any client.

The service's APPEND lock tells the file's exact length and keeps other clients' appends away until this one is settled.
"""

import logging
from typing import TYPE_CHECKING

from fs_client.fuse.locks import wait_for_lock, withdraw_lock
from fs_common import methods
from fs_common.errors import EmberError
from fs_common.records.locks import LOCK_END, Lock, LockKind, LockReply, LockType, ReleaseLocks

if TYPE_CHECKING:
    from fs_client.fuse.files import File
    from fs_client.fuse.handles import Handle
    from fs_client.fuse.kernel_request import Request
    from fs_client.fuse.mount import Mount


logger = logging.getLogger(__name__)

OWNER = 0
"""All appends of this mount to a file take turns here, so the service need not tell them apart. What an answer that was
lost left locked is thus taken again by the next append, and given up after it."""
RELEASE_TRIES = 8
"""Each lasts as long as a call may. The service takes the locks of a client that is gone for longer."""


async def append(mount: "Mount", request: "Request", handle: "Handle") -> None:
    """Write the request's data at the end of the file, and settle it. Other appends here go behind this one."""
    file = handle.file

    def given_up(lock: Lock) -> None:
        mount.spawn(_release_later(mount, file, lock))

    async with file.appending:
        stamp = mount.nodes.stamp()
        try:
            reply: LockReply = await wait_for_lock(
                mount,
                file.inode,
                OWNER,
                LockKind.APPEND,
                LockType.EXCLUSIVE,
                0,
                LOCK_END,
                request.pid,
                given_up=given_up,
            )
        except EmberError:
            # It may have been granted all the same.
            mount.spawn(_release_later(mount, file))
            raise
        try:
            await file.back.room()
            await file.uncut()
            if reply.attributes is not None and stamp >= file.node.changed:
                file.refresh(reply.attributes)
            else:
                # Something was changed here since the lock was asked for: it may tell the length from before.
                await file.ask()
            offset = file.length
            data = request.take_data()
            size = len(data.view)
            mount.cache.invalidate(file.inode, file.chunk_size, offset, offset + size)
            file.back.add(offset, data, mount.now())
            file.wrote(offset + size)
            await file.settle()
        finally:
            try:
                await _release(mount, file)
            except BaseException as error:
                # What was written is stored; whether others must wait is not this writer's concern.
                mount.spawn(_release_later(mount, file))
                if not isinstance(error, EmberError):
                    raise


async def _release(mount: "Mount", file: "File") -> None:
    unlock = ReleaseLocks(file.inode, mount.client, OWNER, LockKind.APPEND, mount.request_id())
    await mount.call(methods.RELEASE_LOCKS, unlock)


async def _release_later(mount: "Mount", file: "File", lock: Lock | None = None) -> None:
    """Give the lock up between two appends of this mount, once the service can be reached. `lock`: a request for it
    that may still wait there."""
    for _ in range(RELEASE_TRIES):
        async with file.appending:
            if mount.closing:
                return  # the connection ends, and all locks of this client with it
            try:
                if lock is not None:
                    await withdraw_lock(mount, lock)
                await _release(mount, file)
                return
            except EmberError as error:
                logger.warning("appends of others to inode %d wait: %s", file.inode, error)
