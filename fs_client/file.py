"""An open file of the async face: reads and writes at offsets, and what its session owes the metadata service.

A file open for writing has a session. `close` and `fsync` tell the service how far this session wrote (a hint), or ask
it to find the exact length if a write failed. The file's own length follows its own writes at once; what others write
shows after `refresh` or the next open (close-to-open).

Writes may also be given away (`write_behind`): a bounded number of bytes is on its way in the background, and what
goes wrong there is raised once, by the next `write_behind`, `settle`, `fsync` or `close`.

Calls about one file may run side by side. Those that learn its length from the service take turns (`_asking`): an
answer from before a hint was taken would make the file shorter than what was told. None makes it end before what was
given to `append` or `write_behind` and is on its way (`_claimed_end`).

An append takes the service's APPEND lock (`append_lock`), asks for the end of the file under it, writes, and settles
the length before it gives the lock up. From the first byte on it cannot be cancelled.

Used on the event loop of its file system only. Concurrency: docs/concurrency/client.md.
"""

import asyncio
import contextlib
import errno
import io
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fs_client.backoff import Attempts
from fs_client.file_ref import FileRef
from fs_client.integers import integer
from fs_client.memory import FreshBytes
from fs_client.paths import Path
from fs_client.settle import ended
from fs_client.sync_chains import lost, sync_file
from fs_client.unsettled import Unsettled
from fs_client.write_path import LeaseLeft
from fs_common import methods
from fs_common.checks import check
from fs_common.errors import Code, EmberError, Retry, to_os_error
from fs_common.layout import Layout
from fs_common.limits import FILE_SIZE_MAX, MIB
from fs_common.records import meta
from fs_common.rpc import byte_view

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

logger = logging.getLogger(__name__)

BEHIND_BYTES_MAX = 16 * MIB
"""Given away and not stored, for one file: what a writer may be ahead of the daemons."""
TELL_PAUSE_MIN_S = 1.0
TELL_PAUSE_MAX_S = 64.0
"""Between tries to tell the service of a close that failed."""
TELL_TRY_S = 5.0
"""A client that is being closed waits no longer for one."""
_FRESH_FROM = 64 * 1024
"""Smaller results are copied: that is cheaper than the care of `FreshBytes`."""


class AsyncFile:
    """See the module. Made by `AsyncFileSystem.open`."""

    def __init__(
        self, fs: "AsyncFileSystem", path: Path, mode: "OpenMode", ref: FileRef, opened: meta.OpenReply
    ) -> None:
        self._fs = fs
        self.name = path
        self.mode = mode.text
        self._mode = mode
        self.ref = ref
        """A reference to this file; its length follows this file's own writes."""
        self._session = opened.session
        """Empty for a file that is open for reading only."""
        self._unsettled = Unsettled(opened.attributes.truncate_version)
        self._unsynced = fs.storage.unsynced.open(self.ref.inode) if opened.session else None
        """What was stored and is not on disks yet, of all who write this file here. None: not open for writing."""
        self._losses = self._unsynced.losses if self._unsynced is not None else 0
        """Those of it that are no concern of this file, or that it was told of."""
        self._behind: set[asyncio.Task[None]] = set()
        """Writes on their way; each ends by itself."""
        self._behind_bytes = 0
        self._behind_error: BaseException | None = None
        """The first that failed, until it is raised."""
        self._claims = 0
        """Writes on their way whose place is the file's end as it was when they came."""
        self._claimed_end = 0
        """Where the last of them ends."""
        self._asking = asyncio.Lock()
        self._answers = 0
        """How often the service has told the file's length."""
        self.closed = False

    @property
    def inode(self) -> int:
        return self.ref.inode

    @property
    def length(self) -> int:
        """Bytes: as of open or `refresh`, and this file's own writes."""
        return self.ref.length

    @property
    def behind(self) -> bool:
        """Writes given away are on their way, or one of them failed and that has not been raised."""
        return bool(self._behind) or self._behind_error is not None

    @property
    def fs(self) -> "AsyncFileSystem":
        return self._fs

    @property
    def flushed(self) -> bool:
        """Everything that was written is stored, and the service knows how far."""
        return not self.behind and not self._unsettled

    @property
    def layout(self) -> Layout:
        return self.ref.layout

    def readable(self) -> bool:
        return self._mode.readable

    def writable(self) -> bool:
        return self._mode.writable

    def __repr__(self) -> str:
        return f"<AsyncFile {self.name!r} mode={self.mode!r}{' closed' if self.closed else ''}>"

    async def __aenter__(self) -> "AsyncFile":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Reading

    async def read_at(self, offset: int, length: int = -1) -> bytes:
        """Bytes `[offset, offset + length)`, fewer at the end of the file; length -1: all the rest."""
        self._check_open(reading=True)
        offset, length = integer(offset, "offset"), integer(length, "length")
        available = max(self.ref.length - offset, 0)
        size = available if length < 0 else min(length, available)
        if size < _FRESH_FROM:
            (view,) = await self._fs.read_ranges([(self, offset, size)])
            return bytes(view)
        fresh = FreshBytes(size)
        (view,) = await self._fs.read_ranges([(self, offset, size)], fresh.view)
        got = len(view)
        view.release()
        return fresh.take(got)

    async def read_into(self, offset: int, into: Any) -> int:
        """Fill `into`, a writable buffer, from `offset` on. Returns how many bytes there were, 0 at the end."""
        self._check_open(reading=True)
        buffer = byte_view(into)
        (view,) = await self._fs.read_ranges([(self, offset, len(buffer))], buffer)
        return len(view)

    async def refresh(self) -> int:
        """Learn the file's length anew, as far as other writers have settled it. Returns it."""
        self._check_open()
        await self.settle()
        async with self._asking:
            reply: meta.AttributesReply = await self._fs.meta_call(
                methods.STAT, meta.Stat(self.inode, b"", user=self._fs.user), self.name
            )
            return self._learn(max(reply.attributes.length, self._unsettled.written_end))

    def _learn(self, length: int) -> int:
        self._answers += 1
        self.ref.length = max(length, self._claimed_end)
        return self.ref.length

    # Writing

    async def write_at(self, offset: int, data: Any) -> int:
        """Store `data` at `offset`; on return it is stored on all replicas. Returns its size in bytes.

        `data` is any buffer; it is not copied and must not change until this returns. Writes of one file that are
        under way together take effect in the order of their calls.
        """
        self._check_open(writing=True)
        offset = integer(offset, "offset")
        view = byte_view(data)
        self._begin_at(offset)
        await self._write(offset, view)
        return len(view)

    async def append(self, data: Any, stored: Callable[[int], object] | None = None) -> int:
        """Write `data` in one piece at the end of the file, wherever that is by then on any client or mount. On return
        it is stored, and others see it. Returns its size.

        Cancelled: nothing is appended, or, if that had begun, all of it; then it is raised when that has ended.
        `stored`: told the offset behind `data` once it is certain that all of it is there.
        Raises ETIMEDOUT if other clients keep appending and do not let go.
        """
        self._check_open(writing=True)
        return await self._append(byte_view(data), stored)

    async def _append(self, view: memoryview, stored: Callable[[int], object] | None) -> int:
        if not view:
            return 0
        locks = self._fs.append_locks
        async with locks.turn(self.inode):
            await self.settle()
            answers = self._answers
            attributes, lease_end = await locks.take(self.inode, self.name)
            appending = self._append_locked(view, attributes, lease_end, answers, stored)
            storing = asyncio.get_running_loop().create_task(appending)
            try:
                await ended([storing])
            finally:
                await locks.release(self.inode)
        return storing.result()

    async def _append_locked(
        self,
        view: memoryview,
        attributes: meta.Attributes,
        lease_end: float,
        answers: int,
        stored: Callable[[int], object] | None,
    ) -> int:
        """`attributes`: as of when the lock was taken, after `answers` answers had told the file's length."""
        locks = self._fs.append_locks
        if self._unsettled or self._answers != answers:
            # Something of this file was written or told meanwhile, which that may be older than.
            await self._tell(relaxed=True)
        else:
            self._learn(self._unsettled.settled(attributes))
        offset = self.ref.length
        end = offset + len(view)
        self._claim(end)
        try:
            await self._write(offset, view, lambda: lease_end - locks.now())
        except BaseException:
            # What of it is there is settled before others append, or they would write over it.
            with contextlib.suppress(OSError):
                await self._tell(relaxed=True)
            raise
        finally:
            self._unclaim()
        await self._tell(relaxed=True)
        if locks.now() >= lease_end:
            await locks.check_held(self.inode, self.name)
        if stored is not None:
            stored(end)
        return len(view)

    def _begin_at(self, offset: int) -> None:
        """A write begins there: chunks between the end and it are left out, unless others on their way fill them."""
        if offset - self.ref.length >= self.ref.layout.chunk_size:
            self._unsettled.holes()

    def _claim(self, end: int) -> None:
        """The next append goes behind `end`, though what is before it is still on its way."""
        self._claims += 1
        self._claimed_end = max(self._claimed_end, end)
        self.ref.length = max(self.ref.length, end)

    def _unclaim(self) -> None:
        self._claims -= 1
        if not self._claims:
            self._claimed_end = 0

    async def _write(
        self, offset: int, view: memoryview, lease_left_s: LeaseLeft | None = None, *, patient: bool = False
    ) -> None:
        if offset < 0 or offset + len(view) > FILE_SIZE_MAX:
            number = errno.EINVAL if offset < 0 else errno.EFBIG
            raise OSError(number, f"cannot write {len(view)} bytes at offset {offset}", self.name)
        try:
            await self._fs.writer.write(
                self.ref, offset, view, self._acknowledged, patient=patient, lease_left_s=lease_left_s
            )
        except EmberError as error:
            self._failed()
            raise to_os_error(error, self.name) from error
        except BaseException:
            self._failed()
            raise

    def _acknowledged(self, end: int) -> None:
        if end > self.ref.length:
            self.ref.length = end
        self._unsettled.acknowledged(end, time.time_ns())
        if self._fs.user.uid:
            self._unsettled.unprivileged()

    def _failed(self) -> None:
        """Something of a write may be stored all the same."""
        self._unsettled.failed()
        if self._fs.user.uid:
            self._unsettled.unprivileged()

    async def write_behind(self, offset: int, data: bytes | memoryview) -> None:
        """Take over `data`, which must not change any more, and store it in the background.

        Waits while more than `BEHIND_BYTES_MAX` are on their way. Raises, once, what went wrong with earlier ones.
        """
        self._check_open(writing=True)
        while self._behind_bytes >= BEHIND_BYTES_MAX:
            await asyncio.wait(self._behind, return_when=asyncio.FIRST_COMPLETED)
        self._raise_behind_error()
        view = memoryview(data)
        self._begin_at(offset)
        self._claim(offset + len(view))
        self._behind_bytes += len(view)
        task = self._fs.spawn(self._store_behind(offset, view))
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _store_behind(self, offset: int, view: memoryview) -> None:
        try:
            await self._write(offset, view, patient=True)
        except Exception as error:
            if self._behind_error is None:
                self._behind_error = error
        finally:
            self._behind_bytes -= len(view)
            self._unclaim()

    async def settle(self) -> None:
        """Wait for all writes given away. Raises, once, what went wrong with them."""
        while self._behind:
            await asyncio.wait(self._behind)
        self._raise_behind_error()

    def _raise_behind_error(self) -> None:
        error = self._behind_error
        if error is not None:
            self._behind_error = None
            raise error

    async def truncate(self, length: int) -> int:
        """Cut the file, or extend it with zeros, to `length` bytes."""
        self._check_open(writing=True)
        length = integer(length, "length")
        await self.settle()
        async with self._asking:
            attributes = await self._fs.truncate_inode(self.inode, length, self.name, self._session)
            self._learn(attributes.length)
            self._unsettled.cut(attributes)
        return length

    async def fsync(self) -> None:
        """Wait for writes given away; on return everything that this client has written to the file, through whatever
        open, is on the disks of all replicas, and others see the file's length and times.

        Raises, once, what went wrong with earlier writes; EIO also where daemons lost what was written and not synced.
        """
        self._check_open()
        deadline = Attempts(self._fs.options.timeout_s)
        await self.settle()
        storage = self._fs.storage
        unsynced = storage.unsynced.open(self.inode)
        try:
            await sync_file(storage, unsynced, deadline.left_s())
        except EmberError as error:
            raise to_os_error(error, self.name) from error
        finally:
            storage.unsynced.close(unsynced)
        if self._session:
            await self._tell(deadline)
        self._raise_losses()

    def _raise_losses(self) -> None:
        unsynced = self._unsynced
        if unsynced is not None:
            self._fs.storage.unsynced.look(unsynced)
            if unsynced.losses != self._losses:
                self._losses = unsynced.losses
                raise to_os_error(lost(f"inode {self.inode}"), self.name)

    async def flush(self) -> None:
        """Wait for writes given away; on return all that was written is stored, and others see it and the file's
        length and times. One call of the metadata service, if they do not know of something yet."""
        self._check_open()
        await self.settle()
        if self._session and self._unsettled:
            await self._tell(relaxed=True)

    async def _tell(self, deadline: Attempts | None = None, *, relaxed: bool = False) -> None:
        """Settle length and times. `relaxed`: to survive the death of processes, before it is on a disk."""
        async with self._asking:
            hint = self._unsettled.take()
            try:
                request = hint.fsync(self.inode, self._session, self._fs.request_id(), relaxed=relaxed)
                timeout_s = None if deadline is None else deadline.left_s()
                reply: meta.AttributesReply = await self._fs.meta_call(
                    methods.FSYNC, request, self.name, timeout_s=timeout_s
                )
            except BaseException:
                self._unsettled.give_back(hint)
                raise
            self._learn(self._unsettled.settled(reply.attributes))

    async def close(self) -> None:
        """End the session, the file's length being exact afterwards. Raises what went wrong with earlier writes, as
        far as it is known: what is to survive a power cut is for `fsync`.

        The file is closed in any case. Closing twice does nothing. If the service cannot be told now, it is told later.
        """
        if self.closed:
            return
        self.closed = True
        deadline = Attempts(self._fs.options.timeout_s)
        try:
            await self.settle()
        finally:
            if self._unsynced is not None:
                try:
                    async with self._asking:
                        await self._end_session(deadline)
                    self._raise_losses()
                finally:
                    self._fs.storage.unsynced.close(self._unsynced)

    async def _end_session(self, deadline: Attempts) -> None:
        request = self._unsettled.take().close(self.inode, self._session, self._fs.request_id())
        try:
            reply: meta.AttributesReply = await self._fs.meta_call(
                methods.CLOSE, request, self.name, timeout_s=deadline.left_s()
            )
        except BaseException as error:
            cause = error.__cause__
            if not (isinstance(cause, EmberError) and cause.retry is Retry.FINAL):
                self._fs.spawn(self._end_session_later(request))
            raise
        self._learn(self._unsettled.settled(reply.attributes))

    async def _end_session_later(self, request: meta.Close) -> None:
        """The file's length depends on it. Under the same request id: it may have been carried out."""
        fs = self._fs
        pause_s = TELL_PAUSE_MIN_S
        while await fs.pause(pause_s):
            try:
                await fs.metadata.call(methods.CLOSE, request, timeout_s=min(TELL_TRY_S, fs.options.timeout_s))
                return
            except EmberError as error:
                logger.warning("closing inode %d: %s", self.inode, error)
                if error.retry is Retry.FINAL:
                    return
            pause_s = min(2 * pause_s, TELL_PAUSE_MAX_S)

    def _check_open(self, *, reading: bool = False, writing: bool = False) -> None:
        self._fs.check_open()
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if reading and not self._mode.readable:
            raise io.UnsupportedOperation("not readable")
        if writing and not self._mode.writable:
            raise io.UnsupportedOperation("not writable")


class OpenMode:
    """What the letters of `open`'s mode mean."""

    __slots__ = ("append", "binary", "create", "exclusive", "readable", "text", "truncate", "writable")

    def __init__(self, text: str) -> None:
        letters = set(text)
        kind = letters & set("rwax")
        if len(letters) != len(text) or letters - set("rwaxbt+") or len(kind) != 1 or {"b", "t"} <= letters:
            raise ValueError(f"invalid mode: {text!r}")
        plus = "+" in letters
        self.text = text
        self.binary = "b" in letters
        self.readable = "r" in letters or plus
        self.writable = "r" not in letters or plus
        self.create = "r" not in letters
        self.exclusive = "x" in letters
        self.truncate = "w" in letters
        self.append = "a" in letters


def checked_file(attributes: meta.Attributes, path: Path) -> FileRef:
    """The reference to a file that was opened; IsADirectoryError for a directory."""
    if attributes.type == meta.FileType.DIRECTORY:
        raise to_os_error(EmberError(Code.IS_DIRECTORY, "Is a directory"), path)
    layout = attributes.layout
    check(layout is not None, "a file has a layout", attributes.inode)
    assert layout is not None
    return FileRef(attributes.inode, attributes.length, layout)
