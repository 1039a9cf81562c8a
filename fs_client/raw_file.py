"""Files of the blocking face: a raw file on an open file of the async core, under Python's own buffers.

`RawFile` is an `io.RawIOBase`. `wrap` puts on it what the built-in `open` does: `BufferedReader`, `BufferedWriter` or
`BufferedRandom`, and `TextIOWrapper` for text.

Writing under a buffer: what leaves the buffer is gathered to whole chunks, which are stored in the background while the
program goes on. What goes wrong there is raised once, by the next write, flush or close. Large writes are sent from the
caller's memory, but for their ends; the call returns when they are stored.

Reading under a buffer: a seek starts with a small read. While reading goes on in sequence reads grow, and a file that
is open for reading only then reads a chunk at a time, ahead of what the buffer asks for.

Fork: a file open for reading goes on in the child by its reference. A file open for writing belongs to the process
that opened it: in a child it cannot be used, and closing it there does nothing.
"""

import contextlib
import errno
import io
import os
import warnings
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec

from fs_client import process
from fs_client.file import AsyncFile, OpenMode
from fs_client.file_ref import FileRef
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
        """Nobody holds it any more: nothing may block."""
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
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check()
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += self._end
        elif whence != os.SEEK_SET:
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        if offset < 0:
            raise OSError(errno.EINVAL, "Invalid argument: negative seek position", self.name)
        self._position = offset
        return offset

    # Reading

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
        if size < _FRESH_FROM:
            (found,) = self._fs.read_ranges([(self, self._position, size)])
            self._position += len(found)
            return bytes(found)
        fresh = FreshBytes(size)
        (found,) = self._fs.read_ranges([(self, self._position, size)], fresh.view)
        count = len(found)
        found.release()
        self._position += count
        return fresh.take(count)

    # Writing

    def write(self, data: Any) -> int:
        self._check(writing=True)
        view = byte_view(data)
        if self._mode.append:
            self._position = self._end
        if self._finalizing or (self.buffer_size and len(view) < DIRECT_FROM):
            self._write_behind(view)
        else:
            self._write_through(view)
        return len(view)

    def _write_behind(self, view: memoryview) -> None:
        complete = self._gather.add(self._position, view)
        self._position += len(view)
        for offset, piece in complete:
            self._run(self._file.write_behind, offset, piece)

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

    def _send_gathered(self) -> None:
        if self._own:
            for offset, piece in self._gather.take():
                self._run(self._file.write_behind, offset, piece)

    @property
    def _end(self) -> int:
        """Of the file, what is gathered included."""
        return max(self._file.length, self._gather.end)

    def truncate(self, size: int | None = None) -> int:
        self._check(writing=True)
        length = self._position if size is None else size
        self._send_gathered()
        self._run(self._file.truncate, length)
        return length

    def flush(self) -> None:
        """Wait until all writes are stored. Raises what went wrong with them."""
        self._check()
        self._send_gathered()
        if self._own and self._file.behind:
            self._run(self._file.settle)

    def fsync(self) -> None:
        """`flush`, and make the file's length and times known to others."""
        self._check(writing=True)
        self._send_gathered()
        self._run(self._file.fsync)

    # Ending

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()
        finally:
            if self._own:
                # After the end of everything there is nothing left to close: files collected then are just dropped.
                with contextlib.suppress(process.ShutDown):
                    self._run(self._file.close)

    def _dealloc_warn(self, source: Any) -> None:
        """Called by the buffers of `io` when a file is collected that was not closed."""
        if self._mode.writable and self._own:
            warnings.warn(f"unclosed file {source!r}", ResourceWarning, stacklevel=2, source=source)

    def __del__(self) -> None:
        if not self.closed:
            self._finalizing = True
            self._dealloc_warn(self)
            self.close()

    def __reduce__(self) -> Any:
        raise TypeError("an open file cannot be pickled; pickle its `ref` or its path")

    def __repr__(self) -> str:
        return f"<fs_client.RawFile name={self.name!r} mode={self.mode!r}{' closed' if self.closed else ''}>"

    def _run(self, begin: Callable[P, Coroutine[Any, Any, Any]], *args: P.args, **kwargs: P.kwargs) -> None:
        if self._finalizing:
            self._driver.submit(begin, *args, **kwargs)
        else:
            self._driver.run(begin, *args, **kwargs)

    @property
    def _own(self) -> bool:
        """This process opened the file."""
        return process.current() is self._driver

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
                raise OSError(errno.EBADF, text, self.name)


class FileReader(io.BufferedReader):
    """What `open` returns for reading."""

    raw: RawFile

    @property
    def ref(self) -> FileRef:
        return self.raw.ref


class FileWriter(io.BufferedWriter):
    """What `open` returns for writing: `flush` returns when the bytes are stored."""

    raw: RawFile

    @property
    def ref(self) -> FileRef:
        """A reference to the file; its length does not count what is still in the buffer."""
        return self.raw.ref

    def flush(self) -> None:
        if self.raw._own:
            super().flush()
            self.raw.flush()

    def fsync(self) -> None:
        """`flush`, and make the file's length and times known to others."""
        self.flush()
        self.raw.fsync()

    def __del__(self) -> None:
        _finalize(self)


class FileRandom(io.BufferedRandom):
    """What `open` returns for reading and writing."""

    raw: RawFile

    @property
    def ref(self) -> FileRef:
        """A reference to the file; its length does not count what is still in the buffer."""
        return self.raw.ref

    def flush(self) -> None:
        if self.raw._own:
            super().flush()
            self.raw.flush()

    def fsync(self) -> None:
        """`flush`, and make the file's length and times known to others."""
        self.flush()
        self.raw.fsync()

    def __del__(self) -> None:
        _finalize(self)


def _finalize(file: FileWriter | FileRandom) -> None:
    """Close a file that nobody holds any more, without blocking."""
    if not file.closed:
        file.raw._dealloc_warn(file)
        file.raw._finalizing = True
        file.close()


def wrap(raw: RawFile, mode: OpenMode, line_buffering: bool, **text: Any) -> Any:
    """The file object that the built-in `open` would make of `raw`. `text`: encoding, errors, newline."""
    file = _wrap(raw, mode, line_buffering, **text)
    if mode.writable:
        process.driver().close_at_exit.add(file)
    return file


def _wrap(raw: RawFile, mode: OpenMode, line_buffering: bool, **text: Any) -> Any:
    size = raw.buffer_size
    if not size:
        return raw
    buffered: FileReader | FileWriter | FileRandom
    if mode.readable and mode.writable:
        buffered = FileRandom(raw, size)
    elif mode.writable:
        buffered = FileWriter(raw, size)
    else:
        buffered = FileReader(raw, size)
    if mode.binary:
        return buffered
    wrapper = io.TextIOWrapper(buffered, line_buffering=line_buffering, **text)
    wrapper.mode = mode.text  # type: ignore[misc]
    return wrapper
