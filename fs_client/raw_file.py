"""Files of the blocking face: a raw file on an open file of the async core, under Python's own buffers.

`RawFile` is an `io.RawIOBase`; the layers above it are in `file_layers`.

Writing under a buffer: what leaves the buffer is gathered to whole chunks, which are stored in the background while the
program goes on. What goes wrong there is raised once, by the next write, flush or close. Large writes are sent from the
caller's memory, but for their ends; the call returns when they are stored.

Reading under a buffer: a seek starts with a small read. While reading goes on in sequence reads grow, and a file that
is open for reading only then reads a chunk at a time, ahead of what the buffer asks for.

Appending (mode `a`): each write of the raw file, so each buffer that is full or flushed, is one `AsyncFile.append`.

Signal handlers may raise between any two steps, and end any call. What a write was given is then either not taken at
all, the position being what it was, and may be given again; or, where the layer above could not give it again (text,
appending, closing), it is taken all the same, and the exception is raised when that layer is done (`_late`). A close
that is broken into goes on in the background.

Dropped files: finalizers never block. They submit what is gathered and the close, and note the file (`core.dropped`);
the next call of its file system waits for that. What goes wrong then is reported as what is raised in a finalizer is.
At the end of the interpreter they find the driver unusable and do nothing: everything was closed before.

Fork: a file open for reading goes on in the child by its reference. A file open for writing belongs to the process
that opened it: in a child it cannot be used, and closing it there does nothing.
"""

import asyncio
import errno
import io
import os
import warnings
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec

from fs_client import process
from fs_client.extents import find_extent
from fs_client.file import AsyncFile, OpenMode
from fs_client.file_ref import FileRef
from fs_client.integers import integer
from fs_client.memory import FreshBytes
from fs_client.write_gather import WriteGather
from fs_common.layout import Layout
from fs_common.limits import MIB
from fs_common.rpc import byte_view

if TYPE_CHECKING:
    from fs_client.filesystem import FileSystem

P = ParamSpec("P")

DIRECT_FROM = 4 * MIB
"""Writes of this size and more are sent from the caller's memory; smaller ones are gathered and sent behind."""
BUFFER_SIZE = 256 * 1024
"""Of Python's buffer; larger reads and writes pass it by."""
WINDOW_FIRST = 32 * 1024
"""What the buffer is filled with after a seek. Doubles with each read in sequence: random small reads would otherwise
move a whole buffer each."""
AHEAD_MAX = 4 * MIB
"""Of larger chunks only so much is read ahead."""
_FRESH_FROM = 64 * 1024


class RawFile(io.RawIOBase):
    """See the module. One position, so one thread at a time, as with any file of Python."""

    def __init__(self, fs: "FileSystem", file: AsyncFile, mode: OpenMode, buffer_size: int) -> None:
        super().__init__()
        self._fs = fs
        self._file = file
        self._mode = mode
        self._driver = process.driver()
        """Of the process that opened it."""
        self.buffer_size = buffer_size
        """Of the buffer it stands under; 0: there is none."""
        self._finalizing = False
        """Nothing may block: nobody holds it any more, or its close was broken into."""
        self.ended = False
        """It is closed, and nothing of that is left to do; `closed` of `io` is set earlier."""
        self._closing = False
        """Its length is settled by the close that comes, not by flushing."""
        self.defers = False
        """What breaks into a write is raised by the layer above, once everything is taken."""
        self._late: BaseException | None = None
        """What a signal handler raised, to be raised by the layer above."""
        self._failure = 0
        """`id` of the error that the last work on the loop ended with: what else is raised is a signal handler's."""
        self._unappended = b""
        """Taken, and to be appended before everything else."""
        self._end_task: asyncio.Task[None] | None = None
        """Used on the loop only."""
        self._position = file.length if mode.append else 0
        self._gather = WriteGather(file.layout.chunk_size)
        self._window = WINDOW_FIRST
        """How much of a buffer the next read in sequence fills."""
        self._read_end = 0
        """Where the last read ended."""
        self._ahead = memoryview(b"")
        """Read ahead, from `_ahead_start` on."""
        self._ahead_start = 0
        self.name = file.name
        self.mode = mode.text

    @property
    def usable(self) -> bool:
        """False in a forked child, and at the end of the process."""
        return self._driver.usable

    @property
    def source(self) -> AsyncFile | FileRef:
        """What the core reads this file from: an open file with its pending writes, or just a reference."""
        self._send_gathered()
        return self._file if self._mode.writable and self._own else self._file.ref

    @property
    def ref(self) -> FileRef:
        return self._file.ref

    @property
    def inode(self) -> int:
        return self._file.inode

    @property
    def layout(self) -> Layout:
        return self._file.layout

    def readable(self) -> bool:
        self._check()
        return self._mode.readable

    def writable(self) -> bool:
        self._check()
        return self._mode.writable

    def seekable(self) -> bool:
        self._check()
        return True

    def tell(self) -> int:
        self._check()
        return self._position + len(self._unappended)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check()
        offset, whence = integer(offset, "offset"), integer(whence, "whence")
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += self._end
        elif whence in (os.SEEK_DATA, os.SEEK_HOLE):
            offset = self._extent(offset, whence)
        elif whence != os.SEEK_SET:
            raise ValueError(f"invalid whence ({whence}, should be 0, 1, 2, SEEK_DATA or SEEK_HOLE)")
        if offset < 0:
            raise OSError(errno.EINVAL, "Invalid argument: negative seek position", self.name)
        self._position = offset
        return offset

    def _extent(self, offset: int, whence: int) -> int:
        """Where the next data or hole is, by whole chunks; OSError (ENXIO) where there is none."""
        if self._mode.writable and self._own:
            self.flush()
        found = None
        if 0 <= offset < self._end:
            found = self._fs._call(find_extent, self._file.ref, offset, whence == os.SEEK_DATA, self.name)
        if found is None:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), self.name)
        return found

    # Reading

    def pread(self, size: int, offset: int) -> bytes:
        """As `os.pread`: up to `size` bytes from `offset` on; the position stays. Threads may do so side by side."""
        self._check(reading=True)
        size, offset = integer(size, "size"), integer(offset, "offset")
        if size < 0 or offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self.name)
        return self._read(offset, max(min(size, self._end - offset), 0))

    def _read(self, offset: int, size: int) -> bytes:
        if size < _FRESH_FROM:
            (found,) = self._fs.read_ranges([(self, offset, size)])
            return bytes(found)
        fresh = FreshBytes(size)
        (found,) = self._fs.read_ranges([(self, offset, size)], fresh.view)
        count = len(found)
        found.release()
        return fresh.take(count)

    def readinto(self, buffer: Any) -> int:
        self._check(reading=True)
        view = byte_view(buffer)
        if len(view) <= self.buffer_size:
            count = self._fill(view)
        else:
            (found,) = self._fs.read_ranges([(self, self._position, len(view))], view)
            count = len(found)
        self._position += count
        self._read_end = self._position
        return count

    def _fill(self, view: memoryview) -> int:
        """Read into Python's buffer, as much as seems wise."""
        position = self._position
        if position != self._read_end:
            self._window = WINDOW_FIRST
        within = position - self._ahead_start
        if not 0 <= within < len(self._ahead):
            if self._window < self.buffer_size or self._mode.writable:
                view = view[: self._window]
                self._window *= 2
                (found,) = self._fs.read_ranges([(self, position, len(view))], view)
                return len(found)
            size = min(self.layout.chunk_size, AHEAD_MAX)
            (self._ahead,) = self._fs.read_ranges([(self, position, size - position % size)])
            self._ahead_start = position
            within = 0
        part = self._ahead[within : within + len(view)]
        view[: len(part)] = part
        return len(part)

    def readall(self) -> bytes:
        self._check(reading=True)
        size = max(self._end - self._position, 0)
        data = self._read(self._position, size)
        end = self._position + len(data)
        self._position = end
        return data

    # Writing

    def write(self, data: Any) -> int:
        self._check(writing=True)
        view = byte_view(data)
        size = len(view)
        position = self._position
        if self._mode.append:
            whole = memoryview(self._unappended + bytes(view)) if self._unappended else view
            if self._finalizing:
                self._unappended = bytes(whole)
                return size
            ends: list[int] = []
            try:
                self._run(self._file.append, whole, ends.append)
                self._unappended, self._position = b"", ends[0] if ends else position
            except BaseException as error:
                if ends:
                    self._unappended, self._position = b"", ends[0]
                if not self.defers or not self._broke_in(error):
                    raise
                self._break_off(error)
                if not ends:
                    self._unappended = bytes(whole)
            return size
        try:
            if self._finalizing or (self.buffer_size and size < DIRECT_FROM):
                self._write_behind(view)
            else:
                self._write_through(view)
        except BaseException as error:
            self._position = position
            if not self.defers or not self._broke_in(error):
                raise
            self._break_off(error)
            self._take(position, view)
            self._position = position + size
        return size

    def _write_behind(self, view: memoryview) -> None:
        end = self._position + len(view)
        self._gather.add(self._position, view)
        self._position = end
        self._send_complete()

    def _write_through(self, view: memoryview) -> None:
        """Under a buffer the ends, which do not fill a piece, are gathered; the rest is stored on return."""
        head = tail = 0
        if self.buffer_size:
            piece_size = self._gather.piece_size
            head = -self._position % piece_size
            tail = (self._position + len(view)) % piece_size
        middle = view[head : len(view) - tail]
        self._write_behind(view[:head])
        self._send_gathered()
        self._run(self._file.write_at, self._position, middle)
        self._position += len(middle)
        self._write_behind(view[len(view) - tail :])

    def _take(self, position: int, view: memoryview) -> None:
        """Gather all of it, whatever signal handlers raise."""
        while True:
            try:
                self._gather.add(position, view)
                return
            except MemoryError:
                raise
            except BaseException as error:
                self._late = error

    def _send_gathered(self) -> None:
        if self._own:
            self._gather.take()
            self._send_complete()

    def _send_complete(self) -> None:
        complete = self._gather.complete
        while complete:
            offset, piece = complete[0]
            self._run(self._file.write_behind, offset, piece)
            complete.popleft()

    @property
    def _end(self) -> int:
        """Of the file, what is gathered included."""
        return max(self._file.length, self._gather.end)

    def truncate(self, size: int | None = None) -> int:
        self._check(writing=True)
        length = self._position if size is None else integer(size, "size")
        self._send_gathered()
        self._run(self._file.truncate, length)
        return length

    def flush(self) -> None:
        """Wait until all writes are stored and others see them, the file's length too: one call of the metadata service
        if something was written. Raises what went wrong with writes."""
        self._check()
        if not self.usable:
            return
        try:
            self._send_gathered()
            if self._finalizing:
                return  # the close in the background waits, and tells of errors
            if self._unappended:
                self.write(b"")
            if self._closing:
                # The close tells the length.
                if self._file.behind:
                    self._run(self._file.settle)
            elif not self._file.flushed:
                self._run(self._file.flush)
        except BaseException as error:
            if not self._closing or not self._broke_in(error):
                raise
            self._break_off(error)
        if not self._closing:
            self.raise_late()

    def fsync(self) -> None:
        """`flush`, and make what was written durable: on the disks of all replicas."""
        self._check(writing=True)
        self._send_gathered()
        if self._unappended:
            self.write(b"")
        self._run(self._file.fsync)
        self.raise_late()

    def raise_late(self) -> None:
        """By the layer above, when it has given everything down."""
        late, self._late = self._late, None
        if late is not None:
            raise late

    def breaks_off(self, error: BaseException) -> bool:
        """Whether a signal handler raised `error`; then it is raised later."""
        if not self._broke_in(error):
            return False
        self._break_off(error)
        return True

    def _break_off(self, error: BaseException) -> None:
        """A signal handler raised `error`, which the layer above raises. A close goes on in the background."""
        self._late = error
        if self._closing:
            self._finalizing = True

    def _broke_in(self, error: BaseException) -> bool:
        """Whether a signal handler raised it."""
        refused = isinstance(error, MemoryError | process.ShutDown | process.NoThread)
        return id(error) != self._failure and not refused

    # Ending

    def close(self) -> None:
        if self.ended:
            return
        if not self.usable:
            # Of the parent, or after the end of everything, when nothing is left to close.
            super().close()
            return
        self.begin_close()
        try:
            if not self.closed:
                super().close()
        finally:
            self._end_all()
        self.raise_late()

    def begin_close(self) -> None:
        """Nothing more will be written but what is in buffers."""
        self._closing = self.defers = True

    def finalize(self, file: Any) -> None:
        """Nobody holds `file`, which is this or a layer above it, any more."""
        self.begin_close()
        self._finalizing = True
        try:
            self._dealloc_warn(file)
        finally:
            file.close()

    def _end_all(self) -> None:
        if self._mode.writable:
            try:
                if not self._finalizing:
                    self._end_now()
            except BaseException as error:
                if not self.breaks_off(error):
                    self.ended = True
                    raise
            if self._finalizing:
                self._end_behind()
            self._driver.close_at_exit.pop(id(self), None)
        else:
            # There is nobody to be told.
            self._file.closed = True
        self.ended = True

    def _end_now(self) -> None:
        try:
            self._send_gathered()
        except BaseException as error:
            if not self._broke_in(error):
                self._run(self._close_file)
            raise
        self._run(self._close_file)

    def _end_behind(self) -> None:
        """In the background, before the next call of this file system. May be repeated."""
        self._file.fs.dropped.add(self._file)
        self._send_gathered()
        self._driver.submit(self._close_dropped)

    async def _close_file(self) -> None:
        """Whoever waits may be cancelled; the close goes on."""
        if self._end_task is None:
            self._end_task = self._driver.spawn(self._close_all())
        await asyncio.shield(self._end_task)

    async def _close_all(self) -> None:
        try:
            if self._unappended:
                await self._file.append(self._unappended)
        finally:
            await self._file.close()

    async def _close_dropped(self) -> None:
        try:
            await self._close_file()
        except Exception as error:
            report_unraisable(error)
        finally:
            self._file.fs.dropped.ended(self._file)

    def _dealloc_warn(self, source: Any) -> None:
        """Called by the buffers of `io` when a file is collected that was not closed."""
        if self._mode.writable and self._own:
            warnings.warn(f"unclosed file {source!r}", ResourceWarning, stacklevel=2, source=source)

    def __del__(self) -> None:
        # At the end of an interpreter the names of this module are None already.
        if not self.ended and self.usable:
            self.finalize(self)

    def __reduce__(self) -> Any:
        raise TypeError("an open file cannot be pickled; pickle its `ref` or its path")

    def __repr__(self) -> str:
        return f"<fs_client.RawFile name={self.name!r} mode={self.mode!r}{' closed' if self.closed else ''}>"

    def _run(self, begin: Callable[P, Coroutine[Any, Any, Any]], *args: P.args, **kwargs: P.kwargs) -> None:
        if self._finalizing:
            self._driver.submit(begin, *args, **kwargs)
        else:
            self._failure = 0
            self._driver.run(self._noted, partial(begin, *args, **kwargs))

    async def _noted(self, begin: process.Begin[Any]) -> None:
        try:
            await begin()
        except Exception as error:
            self._failure = id(error)
            raise

    @property
    def _own(self) -> bool:
        """This process opened the file."""
        return not self._driver.inherited

    def _check(self, *, reading: bool = False, writing: bool = False) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if reading and not self._mode.readable:
            raise io.UnsupportedOperation("not readable")
        if writing:
            if not self._mode.writable:
                raise io.UnsupportedOperation("not writable")
            if not self._own:
                text = "the file was opened for writing by the parent process; open it again in this one"
                raise OSError(errno.EBADF, f"{os.strerror(errno.EBADF)}: {text}", self.name)


class _Unraisable:
    """Python reports what is raised in finalizers, and goes on."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


def report_unraisable(error: BaseException) -> None:
    """Of a file that nobody holds any more: as an exception that is ignored, which names the file."""
    _Unraisable(error)
