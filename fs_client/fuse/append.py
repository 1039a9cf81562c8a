"""O_APPEND: bytes go to the end of the file, wherever that is by now on any client.

The service's APPEND lock tells the file's exact length and keeps other clients' appends away until this one is settled.
"""

from typing import TYPE_CHECKING

from fs_client.fuse.locks import wait_for_lock
from fs_common import methods
from fs_common.records import meta
from fs_common.records.meta import LockKind, LockType

if TYPE_CHECKING:
    from fs_client.fuse.handles import Handle
    from fs_client.fuse.kernel_request import Request
    from fs_client.fuse.mount import Mount


async def append(mount: "Mount", request: "Request", handle: "Handle") -> None:
    """Write the request's data at the end of the file, and settle it. Other appends here go behind this one."""
    file = handle.file
    async with file.appending:
        owner = handle.number
        reply: meta.LockReply = await wait_for_lock(
            mount, file.inode, owner, LockKind.APPEND, LockType.EXCLUSIVE, 0, meta.LOCK_END, request.pid
        )
        try:
            await file.uncut()
            if reply.attributes is not None:
                file.refresh(reply.attributes)
            offset = file.length
            await file.back.room()
            data = request.take_data()
            size = len(data.view)
            mount.cache.invalidate(file.inode, file.chunk_size, offset, offset + size)
            file.back.add(offset, data, mount.now())
            file.wrote(offset + size)
            await file.settle()
        finally:
            unlock = meta.ReleaseLocks(file.inode, mount.client, owner, LockKind.APPEND, mount.request_id())
            await mount.call(methods.RELEASE_LOCKS, unlock)
