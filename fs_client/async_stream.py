"""Open files of the async face as programs know files: a position, reads and writes from there on, lines.

Writes are gathered to whole chunks, which are stored in the background while the program goes on; what goes wrong there
is raised once, by the next write, flush or close. Large writes are sent from the caller's memory. In mode `a` each
buffer that is full or flushed is one `append`. Reads of little are answered from a window that is read ahead.

Reads and writes at offsets (`AsyncFile`) may run side by side, and see what was written before. What has to do with the
position is for one task at a time, as with any file of Python.
"""

import errno
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fs_client.extents import find_extent
from fs_client.file import AsyncFile, OpenMode
from fs_client.file_ref import FileRef
from fs_client.integers import integer
from fs_client.paths import Path
from fs_client.write_gather import WriteGather
from fs_common.limits import MIB
from fs_common.records import meta
from fs_common.rpc import byte_view

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

DIRECT_FROM = 4 * MIB
"""Writes of this size and more are sent from the caller's memory; smaller ones are gathered and sent behind."""
APPEND_BYTES = 256 * 1024
"""Of small writes in mode `a` that become one append."""
WINDOW_FIRST = 32 * 1024
WINDOW_MAX = MIB
"""Of the window, which doubles with each that is read in sequence: random small reads would move whole chunks."""


class AsyncStream(AsyncFile):
    """See the module. Made by `AsyncFileSystem.open`."""

    def __init__(self, fs: "AsyncFileSystem", path: Path, mode: OpenMode, ref: FileRef, opened: meta.OpenReply) -> None:
        super().__init__(fs, path, mode, ref, opened)
        self._position = ref.length if mode.append else 0
        self._gather = WriteGather(ref.layout.chunk_size)
        self._appending = bytearray()
        """Taken, and not appended yet."""
        self._window = b""
        """What is known of the file from `_window_start` on. Nothing else has been written here since."""
        self._window_start = 0
        self._window_size = WINDOW_FIRST

    @property
    def length(self) -> int:
        return max(super().length, self._gather.end)

    @property
    def behind(self) -> bool:
        return bool(self._gather.end) or super().behind

    def seekable(self) -> bool:
        return True

    async def tell(self) -> int:
        self._check_open()
        return self._position

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As `io.IOBase.seek`, with `os.SEEK_DATA` and `os.SEEK_HOLE`."""
        self._check_open()
        offset, whence = integer(offset, "offset"), integer(whence, "whence")
        if self._appending:
            await self._append_all()
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += self.length
        elif whence in (os.SEEK_DATA, os.SEEK_HOLE):
            await self.settle()
            found = None
            if 0 <= offset < self.length:
                found = await find_extent(self._fs, self.ref, offset, whence == os.SEEK_DATA, self.name)
            if found is None:
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), self.name)
            offset = found
        elif whence != os.SEEK_SET:
            raise ValueError(f"invalid whence ({whence}, should be 0, 1, 2, SEEK_DATA or SEEK_HOLE)")
        if offset < 0:
            raise OSError(errno.EINVAL, "Invalid argument: negative seek position", self.name)
        self._position = offset
        return offset

    # Reading

    async def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, fewer only at the end of the file; None or negative: all the rest."""
        self._check_open(reading=True)
        size = -1 if size is None else integer(size, "size")
        if size < 0 or size > self._window_size:
            data = await self.read_at(self._position, size)
        else:
            data = b""
            while len(data) < size and (more := await self._look(size - len(data), len(data))):
                data += more
        self._position += len(data)
        return data

    async def readinto(self, buffer: Any) -> int:
        """Fill a writable buffer. Returns how many bytes there were, 0 at the end."""
        count = await self.read_into(self._position, buffer)
        self._position += count
        return count

    async def readline(self, size: int | None = -1) -> bytes:
        """Up to and with the next newline; b"" at the end of the file."""
        self._check_open(reading=True)
        limit = -1 if size is None else integer(size, "size")
        parts: list[bytes] = []
        count = 0
        while limit < 0 or count < limit:
            part = await self._look(self._window_size if limit < 0 else limit - count, count)
            if not part:
                break
            end = part.find(b"\n") + 1
            parts.append(part[:end] if end else part)
            count += len(parts[-1])
            if end:
                break
        self._position += count
        return b"".join(parts)

    async def readlines(self, hint: int | None = -1) -> list[bytes]:
        """All lines that are left; `hint`: no more once they have so many bytes."""
        lines: list[bytes] = []
        left = None if hint is None or hint <= 0 else integer(hint, "hint")
        async for line in self:
            lines.append(line)
            if left is not None:
                left -= len(line)
                if left < 0:
                    break
        return lines

    def __aiter__(self) -> "AsyncStream":
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def _look(self, size: int, ahead: int) -> bytes:
        """Up to `size` bytes `ahead` of the position, as many as the window has. b"": the end of the file."""
        offset = self._position + ahead
        within = offset - self._window_start
        if not 0 <= within < len(self._window):
            follows = within == len(self._window) > 0
            self._window_size = min(2 * self._window_size, WINDOW_MAX) if follows else WINDOW_FIRST
            self._window = await self.read_at(offset, self._window_size)
            self._window_start, within = offset, 0
        return self._window[within : within + size]

    async def read_at(self, offset: int, length: int = -1) -> bytes:
        await self._send()
        return await super().read_at(offset, length)

    async def read_into(self, offset: int, into: Any) -> int:
        await self._send()
        return await super().read_into(offset, into)

    async def refresh(self) -> int:
        self._window = b""
        return await super().refresh()

    # Writing

    async def write(self, data: Any) -> int:
        """Take all of `data`, any buffer, which may be changed again on return. Returns its size in bytes."""
        self._check_open(writing=True)
        if isinstance(data, str):
            raise TypeError("files of the asynchronous face take bytes or another buffer, not str: encode it")
        view = byte_view(data)
        self._window = b""
        if self._mode.append:
            self._appending += view
            self._position = self.length + len(self._appending)
            if len(self._appending) >= APPEND_BYTES:
                await self._append_all()
            return len(view)
        if len(view) >= DIRECT_FROM:
            await self._send()
            await super().write_at(self._position, view)
        else:
            self._gather.add(self._position, view)
            await self._send_complete()
        self._position += len(view)
        return len(view)

    async def writelines(self, lines: Any) -> None:
        for line in lines:
            await self.write(line)

    async def write_at(self, offset: int, data: Any) -> int:
        await self._send()
        self._window = b""
        return await super().write_at(offset, data)

    async def truncate(self, length: int | None = None) -> int:
        """Cut the file, or extend it with zeros, to `length` bytes, by default to the position."""
        self._window = b""
        return await super().truncate(self._position if length is None else length)

    async def _append_all(self) -> None:
        whole = bytes(self._appending)
        self._appending.clear()
        ends: list[int] = []
        try:
            await self.append(whole, ends.append)
        except BaseException:
            if not ends:
                self._appending[:0] = whole
            raise
        finally:
            if ends:
                self._position = ends[0] + len(self._appending)

    async def _send(self) -> None:
        """Give away what is gathered."""
        if self._appending:
            await self._append_all()
        self._gather.take()
        await self._send_complete()

    async def _send_complete(self) -> None:
        complete = self._gather.complete
        while complete:
            offset, piece = complete[0]
            await self.write_behind(offset, piece)
            complete.popleft()

    async def settle(self) -> None:
        if not self.closed:
            self._gather.take()
            await self._send_complete()
        await super().settle()

    async def flush(self) -> None:
        if self._appending:
            await self._append_all()
        await super().flush()

    async def fsync(self) -> None:
        if self._appending:
            await self._append_all()
        await super().fsync()

    async def close(self) -> None:
        """As of `AsyncFile`: what was written is stored before."""
        try:
            if not self.closed and self._mode.writable:
                await self._send()
        finally:
            await super().close()

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        # At the end of an interpreter the names of this module are None already; what failed to open has no attributes.
        if not getattr(self, "closed", True) and (self._appending or self._gather.end):
            text = f"unclosed file {self!r}: what was written last is lost"
            warn(text, ResourceWarning, stacklevel=2, source=self)
