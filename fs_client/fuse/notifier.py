"""Notifications to the kernel, written by threads of their own.

The kernel takes the locks of what a notification is about before its write returns: a directory's for an entry, a
page's for cached data. Whoever holds them may be waiting for an answer of ours. So the loop, which gives the answers,
never writes notifications itself.

Those of attributes alone take no lock that anybody holds while he waits for us. They have a thread to themselves, so
an answer may wait until the kernel has taken one: whatever its caller has locked, and whatever else is being told.

Invariant: those of one thread go out in the order in which they were sent.
"""

import asyncio
import contextlib
import errno
import logging
import os
import queue
import threading
from collections.abc import Sequence

from fs_client.fuse.counters import ChannelCounters

logger = logging.getLogger(__name__)

QUEUED_MAX = 65_536
_EXPECTED = frozenset({errno.ENOENT, errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED})
"""The kernel knows no such inode or name (so there is nothing to invalidate), or the mount is gone."""

Message = Sequence[bytes | memoryview]


class Notifiers:
    """Of one channel."""

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop, counters: ChannelCounters) -> None:
        self.waiting = Notifier(descriptor, loop, counters, "fuse notifications")
        """What may wait for locks of programs."""
        self.attributes = Notifier(descriptor, loop, counters, "fuse attribute notifications")

    def stop(self) -> None:
        self.waiting.stop()
        self.attributes.stop()

    async def close(self, grace_s: float) -> None:
        await self.attributes.close(grace_s)
        await self.waiting.close(grace_s)


class Notifier:
    """Used from the thread of the loop; the thread inside only writes."""

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop, counters: ChannelCounters, name: str) -> None:
        self._file = descriptor
        self._loop = loop
        self._counters = counters
        self._name = name
        self._queue: queue.SimpleQueue[Message | asyncio.Future[None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        """Started by the first notification."""
        self._gone: asyncio.Future[None] | None = None
        """The thread's end."""
        self._queued = 0
        self._taken = 0
        """Of them, those whose writes have returned; changed by the thread alone."""
        self._stopped = False
        """Nothing more is written. Set by the loop, read by the thread before each write."""

    def send(self, message: Message) -> bool:
        """Queue it; False if too many wait already: wait for `flushed` and send it again. Memory in it is stable until
        `flushed` returns."""
        if self._stopped:
            return True
        if self._queue.qsize() >= QUEUED_MAX:
            return False
        self._counters.notifications += 1
        self._queued += 1
        self._queue.put(message)
        if self._thread is None:
            self._gone = self._loop.create_future()
            self._thread = threading.Thread(target=self._write_all, name=self._name, daemon=True)
            self._thread.start()
        return True

    @property
    def idle(self) -> bool:
        """All that were sent are written."""
        return self._taken >= self._queued

    async def sent(self, message: Message) -> None:
        """Write it, behind those before it."""
        while not self.send(message):
            await self.flushed()
        await self.flushed()

    async def flushed(self) -> None:
        """All that were sent so far are written."""
        if self._thread is None or self._stopped:
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(done)
        await done

    def stop(self) -> None:
        """Drop what waits, and end the thread when its write returns."""
        self._stopped = True
        self._queue.put(None)

    async def close(self, grace_s: float) -> None:
        """Write what waits, for so long, and end the thread."""
        thread, gone = self._thread, self._gone
        if thread is None or gone is None:
            self._stopped = True
            return
        try:
            async with asyncio.timeout(grace_s):
                await self.flushed()
        except TimeoutError:
            logger.error("a notification to the kernel does not return: whoever holds its lock does not end")
        self.stop()
        await asyncio.wait([gone], timeout=grace_s)
        if gone.done():
            thread.join()

    def _write_all(self) -> None:
        while (message := self._queue.get()) is not None:
            if isinstance(message, asyncio.Future):
                self._tell(message)
            elif not self._stopped:
                try:
                    os.writev(self._file, message)
                except OSError as error:
                    if error.errno not in _EXPECTED:
                        logger.warning("the kernel refused a notification: %s", error.strerror)
                self._taken += 1
        if self._gone is not None:
            self._tell(self._gone)

    def _tell(self, future: "asyncio.Future[None]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(_set_done, future)


def _set_done(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)
