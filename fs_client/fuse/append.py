"""O_APPEND: bytes go to the end of the file, wherever that is by now on any client.

The service's APPEND lock tells the file's exact length and keeps other clients' appends away until this one is settled.
It is counted on for its lease alone (`locks.take_lock`): nothing is sent to the daemons after it, and an append that
was not settled within it is acknowledged only if the service says, when the lock is given up, that it was held.

A write(2) that is longer than one request comes as several, and nothing says which is the last. So after a long request
the lock is kept for a moment (`LINGER_S`) in which the next one may come, and at most `HOLD_MAX_S` in all: then others
have their turn, and what such a write has left goes behind theirs.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from fs_client.fuse.locks import Granted, wait_for_lock, withdraw_lock
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records.locks import LOCK_END, Lock, LockKind, LockReply, LockType, ReleaseLocks, ReleaseLocksReply

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
LINGER_S = 0.1
"""From the answer of a long request until the kernel has sent the next of the same write, also on a busy machine."""
LEASE_LEFT_S = 1.0
"""A lock with less of its lease is taken anew before it is used again."""
HOLD_MAX_S = 2.0
"""While requests follow each other. Others wait for no longer."""
LONG_PART = 2
"""A request of at least this part of the longest (1/2) may have a next one: how much one carries depends on how the
program's memory lies in pages."""


class Held:
    """The APPEND lock of one file, as this mount has it. Guarded by `File.appending`."""

    __slots__ = ("locked", "next_offset", "number", "since", "timer", "until")

    def __init__(self) -> None:
        self.locked = False
        """The service was told to lock, and was not told to unlock."""
        self.since = 0.0
        """On the loop's clock: when it was taken."""
        self.until = 0.0
        """On the mount's clock: how long nobody else has it for certain."""
        self.number = 0
        """Handle of the last append."""
        self.next_offset = 0
        """Where the kernel's next request is if it is of the same write."""
        self.timer: asyncio.TimerHandle | None = None
        """Set while it is kept for a next request."""

    def continues(self, handle: "Handle", offset: int) -> bool:
        """Whether a request may be of the same write as the one before it."""
        return self.locked and self.number == handle.number and self.next_offset == offset

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


async def append(mount: "Mount", request: "Request", handle: "Handle", asked: int) -> None:
    """Write the request's data at the end of the file, and settle it. Other appends here go behind this one. `asked`:
    the offset that the kernel named."""
    file = handle.file
    held = file.append_lock
    async with file.appending:
        held.stop()
        if held.locked and not (
            held.continues(handle, asked)
            and mount.loop.time() - held.since < HOLD_MAX_S
            and mount.now() < held.until - LEASE_LEFT_S
        ):
            await _release_or_later(mount, file)
        stamp = mount.nodes.stamp()
        reply: LockReply | None = None
        if not held.locked:
            reply, held.until = await _lock(mount, request, file)
            held.locked = True
            held.since = mount.loop.time()
        long = False
        try:
            await file.back.room()
            await file.uncut()
            node = file.node
            if reply is not None and reply.attributes is not None and stamp >= node.changed:
                file.refresh(reply.attributes)
            elif reply is None and mount.nodes.certain(node, mount.now()) and node.attributes is not None:
                # Nobody has changed it since the lock was taken.
                file.refresh(node.attributes)
            else:
                # Something was changed here since the lock was asked for: it may tell the length from before.
                await file.ask()
            # What cuts the file here comes before, and this goes to the new end; or it waits, and cuts this, too.
            async with file.changing:
                offset = file.length
                data = request.take_data()
                size = len(data.view)
                mount.cache.invalidate(file.inode, file.chunk_size, offset, offset + size)
                await file.store_under(offset, data, lambda: held.until - mount.now())
                file.wrote(offset + size)
                # What is shown from now on is what is reported.
                file.unsettled.acknowledged(0, file.mtime_ns)
            if offset != asked and not handle.direct:
                # The kernel has the bytes in its pages where it believed the end to be. It drops them once it has this
                # request's answer: until then it holds them.
                mount.channel.notify_inval_inode(file.inode, asked, size)
            await file.settle()
            if mount.now() >= held.until:
                held.locked = False
                await _check_held(mount, file, offset, size)
            held.number, held.next_offset = handle.number, asked + size
            long = 0 < mount.longest_write() <= size * LONG_PART
        finally:
            if long and held.locked:
                held.timer = mount.loop.call_later(LINGER_S, _on_timer, mount, file)
            else:
                await _release_or_later(mount, file)


async def _check_held(mount: "Mount", file: "File", offset: int, size: int) -> None:
    """Give the lock up after its lease was over. Raises LOCK_LOST if it may have been another's meanwhile, who has
    appended at the same place; what the call raises if that cannot be known."""
    if not await _release(mount, file):
        raise EmberError(
            Code.LOCK_LOST,
            f"inode {file.inode}: {size} bytes may have been appended at {offset}, and others' there, too: this mount "
            "was cut off from the metadata service for too long",
        )


async def _lock(mount: "Mount", request: "Request", file: "File") -> Granted:
    def given_up(lock: Lock) -> None:
        mount.spawn(_release_later(mount, file, lock))

    try:
        return await wait_for_lock(
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


async def release_kept(mount: "Mount", file: "File", handle: "Handle | None" = None) -> None:
    """Give the lock up if it is only kept for a next request (of `handle`)."""
    held = file.append_lock
    if held.timer is None or (handle is not None and held.number != handle.number):
        return
    async with file.appending:
        if held.timer is not None:
            held.stop()
            await _release_or_later(mount, file)


def _on_timer(mount: "Mount", file: "File") -> None:
    if not mount.closing:
        mount.spawn(release_kept(mount, file))


async def _release_or_later(mount: "Mount", file: "File") -> None:
    file.append_lock.locked = False
    try:
        await _release(mount, file)
    except BaseException as error:
        # What was written is stored; whether others must wait is not this writer's concern.
        mount.spawn(_release_later(mount, file))
        if not isinstance(error, EmberError):
            raise


async def _release(mount: "Mount", file: "File") -> bool:
    """Whether the lock had been held until now."""
    unlock = ReleaseLocks(file.inode, mount.client, OWNER, LockKind.APPEND, mount.request_id())
    reply: ReleaseLocksReply = await mount.call(methods.RELEASE_LOCKS, unlock)
    return reply.held


async def _release_later(mount: "Mount", file: "File", lock: Lock | None = None) -> None:
    """Give the lock up between two appends of this mount, once the service can be reached. `lock`: a request for it
    that may still wait there."""
    for _ in range(RELEASE_TRIES):
        async with file.appending:
            if mount.closing:
                return  # the connection ends, and all locks of this client with it
            if file.append_lock.locked:
                return  # taken again, and given up by whoever has it
            try:
                if lock is not None:
                    await withdraw_lock(mount, lock)
                await _release(mount, file)
                return
            except EmberError as error:
                logger.warning("appends of others to inode %d wait: %s", file.inode, error)
