"""O_APPEND of the API: the service's APPEND lock around each append, so that it goes to the end of the file wherever
that is by then on any client or mount.

The answer to the lock tells the file's exact length, and other clients' appends wait until this one is settled. All
appends of this client to a file take turns here and are one owner, so what an answer that was lost left locked is taken
again by the next append, and given up after it.

The lock counts for its lease (docs/concurrency/mount.md, "Cut off while appending"): from before it was asked for, by a
clock that runs on while the machine sleeps. Nothing is sent to the daemons after it, and an append that was settled
after it counts only if the service says, when the lock is given up, that it had not been taken away.

Used by `fs_client.file`, on its loop. Concurrency: docs/concurrency/client.md.
"""

import asyncio
import logging
import math
import os
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from fs_client.paths import Path
from fs_common import methods
from fs_common.checks import check
from fs_common.clocks import boottime_s
from fs_common.errors import Code, EmberError, Retry, to_os_error
from fs_common.records import meta
from fs_common.records.locks import LOCK_END, Lock, LockKind, LockReply, LockType, ReleaseLocks, ReleaseLocksReply

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

logger = logging.getLogger(__name__)

OWNER: Final = 0
SLICE_MS: Final = 4000
"""One call waits so long: shorter than one try of a call may take."""
WAIT_S: Final = 90.0
"""For other clients in all: longer than the service lets a silent client keep its locks (`client_timeout_ms`)."""
RELEASE_TRIES: Final = 8
"""Each lasts as long as a call may."""


class AppendLocks:
    """Of one client."""

    def __init__(self, fs: "AsyncFileSystem", now: Callable[[], float] = boottime_s) -> None:
        self._fs = fs
        self.now = now
        """The clock of leases."""
        self._turns: weakref.WeakValueDictionary[int, asyncio.Lock] = weakref.WeakValueDictionary()

    def turn(self, inode: int) -> asyncio.Lock:
        """Held by the append of this client that goes on."""
        found = self._turns.get(inode)
        if found is None:
            found = self._turns[inode] = asyncio.Lock()
        return found

    async def take(self, inode: int, path: Path) -> tuple[meta.Attributes, float]:
        """Wait for the lock, in its turn. Returns the file's attributes of the moment it was taken, and until when
        nobody else has it for certain.

        Raises `OSError`: ETIMEDOUT if others have it for `WAIT_S`.
        """
        fs = self._fs
        until = time.monotonic() + WAIT_S
        while True:
            request = Lock(
                inode,
                fs.client,
                OWNER,
                LockKind.APPEND,
                LockType.EXCLUSIVE,
                fs.request_id(),
                0,
                LOCK_END,
                os.getpid(),
                SLICE_MS,
            )
            sent = self.now()
            try:
                reply: LockReply = await fs.metadata.call(methods.LOCK, request)
            except EmberError as error:
                if error.code is Code.WOULD_BLOCK:
                    if time.monotonic() < until:
                        continue
                    text = f"another client has appended for over {WAIT_S:g} s: {error.message}"
                    raise to_os_error(EmberError(Code.TIMED_OUT, text), path) from error
                # It may have been granted all the same.
                fs.spawn(self._give_up(inode, request))
                raise to_os_error(error, path) from error
            except BaseException:
                fs.spawn(self._give_up(inode, request))
                raise
            check(reply.attributes is not None, "who is given the append lock is told the length", inode)
            assert reply.attributes is not None
            lease_end = sent + reply.lease_ms / 1000 if reply.lease_ms else math.inf
            if self.now() < lease_end:
                return reply.attributes, lease_end
            # Somebody else may have it by now. If not, asking again takes it again.

    async def check_held(self, inode: int, path: Path) -> None:
        """Give the lock up after its lease was over. Raises EIO (LOCK_LOST) if it may have been another's meanwhile,
        who has appended at the same place, and what the call raises if that cannot be known."""
        try:
            if await self._release(inode):
                return
        except EmberError as error:
            raise to_os_error(error, path) from error
        text = (
            "bytes may have been appended where others appended, too: this client was cut off from the service too long"
        )
        raise to_os_error(EmberError(Code.LOCK_LOST, text), path)

    async def release(self, inode: int) -> None:
        """What was appended is stored and settled; if the service cannot be told now, it is told later."""
        try:
            await self._release(inode)
        except BaseException as error:
            self._fs.spawn(self._give_up(inode))
            if not isinstance(error, EmberError):
                raise

    async def _release(self, inode: int) -> bool:
        """Whether it had been held until now."""
        fs = self._fs
        request = ReleaseLocks(inode, fs.client, OWNER, LockKind.APPEND, fs.request_id())
        reply: ReleaseLocksReply = await fs.metadata.call(methods.RELEASE_LOCKS, request)
        return reply.held

    async def _give_up(self, inode: int, request: Lock | None = None) -> None:
        """Between two appends of this client. `request`: one for the lock that may still wait at the service; sent
        again without waiting, it ends there."""
        for _ in range(RELEASE_TRIES):
            async with self.turn(inode):
                try:
                    if request is not None:
                        await self._withdraw(request)
                    await self._release(inode)
                    return
                except EmberError as error:
                    logger.warning("appends of others to inode %d wait: %s", inode, error)
                    if error.retry is Retry.FINAL:
                        return
            if self._fs.closed:
                return  # the connection ends, and in time all locks of this client with it

    async def _withdraw(self, request: Lock) -> None:
        try:
            await self._fs.metadata.call(methods.LOCK, msgspec.structs.replace(request, wait_ms=0))
        except EmberError as error:
            if error.code is not Code.WOULD_BLOCK:
                raise
