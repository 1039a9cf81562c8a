"""Files of the blocking face: a raw file on an open file of the async core, under Python's own buffers.

`RawFile` is an `io.RawIOBase`. `open_file` wraps it as the built-in `open` does: `BufferedReader`, `BufferedWriter` or
`BufferedRandom` with a buffer of one chunk, and `TextIOWrapper` for text.

Under a buffer, writes go on in the background: what leaves the buffer is copied once and on its way while the program
goes on; it is cut so that the buffer's next flush ends at a chunk border. An error of such a write is raised once, by
the next write, flush or close. Large writes are not copied: the call returns when they are stored.

Fork: a file open for reading goes on in the child by its reference. A file open for writing belongs to the process
that opened it: in a child it cannot be used, and closing it there does nothing.
"""

import errno
import io
import os
import warnings
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from fs_client import process
from fs_client.file import AsyncFile, OpenMode
from fs_client.file_ref import FileRef
from fs_client.memory import FreshBytes
from fs_common.layout import Layout
from fs_common.limits import MIB
from fs_common.rpc import byte_view

if TYPE_CHECKING:
    from fs_client.filesystem import FileSystem

DIRECT_FROM = 4 * MIB
"""Writes of this size and more are sent from the caller's memory; smaller ones are copied and sent behind."""
WINDOW_FIRST = 64 * 1024
"""What a buffer is filled with after a seek. Doubles while reading goes on in sequence, up to the buffer's size: random
reads through a buffer of a chunk would otherwise move a chunk each."""
_FRESH_FROM = 64 * 1024


class RawFile(io.RawIOBase):
    """See the module. One position, so one thread at a time, as with any file of Python."""

    def __init__(self, fs: "FileSystem", file: AsyncFile, mode: OpenMode, *, buffered: bool) -> None:
        super().__init__()
        self._fs = fs
        self._file = file
        self._mode = mode
        self._driver = process.driver()
        """Of the process that opened it."""
        self._buffered = buffered
        """Stands under a buffer, which is content with short reads and writes."""
        self._finalizing = False
        """Nobody holds it any more: nothing may block."""
        self._position = file.length if mode.append else 0
        self._window = WINDOW_FIRST
        self._read_end = 0
        """Where the last read ended."""
        self.name = file.name
        self.mode = mode.text

    @property
    def source(self) -> AsyncFile | FileRef:
        """What the core reads this file from: an open file with its pending writes, or just a reference."""
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
            offset += self._file.length
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
        if self._buffered:
            if self._position == self._read_end:
                self._window = min(self._window * 2, self.layout.chunk_size)
            else:
                self._window = WINDOW_FIRST
            if len(view) <= self.layout.chunk_size:
                view = view[: self._window]
        (found,) = self._fs.read_ranges([(self, self._position, len(view))], view)
        self._position += len(found)
        self._read_end = self._position
        return len(found)

    def readall(self) -> bytes:
        self._check(reading=True)
        size = max(self._file.length - self._position, 0)
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
            self._position = self._file.length
        if self._finalizing or (self._buffered and len(view) < DIRECT_FROM):
            count = self._size_to_border(len(view))
            self._run(self._file.write_behind(self._position, bytes(view[:count])))
        else:
            count = len(view)
            self._run(self._file.write_at(self._position, view))
        self._position += count
        return count

    def _size_to_border(self, size: int) -> int:
        """As much of `size` bytes as ends at a chunk border, if there is one among them: the buffer keeps the rest."""
        chunk_size = self.layout.chunk_size
        end = (self._position + size) // chunk_size * chunk_size
        return end - self._position if end > self._position else size

    def truncate(self, size: int | None = None) -> int:
        self._check(writing=True)
        length = self._position if size is None else size
        self._run(self._file.truncate(length))
        return length

    def flush(self) -> None:
        """Wait until all writes are stored. Raises what went wrong with them."""
        self._check()
        if self._own and self._file.behind:
            self._run(self._file.settle())

    def fsync(self) -> None:
        """`flush`, and make the file's length and times known to others."""
        self._check(writing=True)
        self._run(self._file.fsync())

    # Ending

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()
        finally:
            if self._own:
                self._run(self._file.close())

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

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        if self._finalizing:
            self._driver.submit(coroutine)
        else:
            self._driver.run(coroutine)

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


def wrap(raw: RawFile, mode: OpenMode, buffering: int, **text: Any) -> Any:
    """The file object that the built-in `open` would make of `raw`. `text`: encoding, errors, newline."""
    if buffering == 0:
        return raw
    size = buffering if buffering > 1 else raw.layout.chunk_size
    buffered: FileReader | FileWriter | FileRandom
    if mode.readable and mode.writable:
        buffered = FileRandom(raw, size)
    elif mode.writable:
        buffered = FileWriter(raw, size)
    else:
        buffered = FileReader(raw, size)
    if mode.binary:
        return buffered
    wrapper = io.TextIOWrapper(buffered, line_buffering=buffering == 1, **text)
    wrapper.mode = mode.text  # type: ignore[misc]
    return wrapper
