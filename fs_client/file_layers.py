"""What lies on a raw file, as the built-in `open` does it: Python's own buffers, and its text layer.

Finalizers of these classes use nothing but their own attributes: at the end of an interpreter the names of modules are
None already.
"""

import io
import weakref
from typing import TYPE_CHECKING, Any

from fs_client import process
from fs_client.file import OpenMode
from fs_client.file_ref import FileRef
from fs_client.raw_file import RawFile

if TYPE_CHECKING:
    _Buffered = io.BufferedIOBase
else:
    _Buffered = object


class FileReader(io.BufferedReader):
    """What `open` returns for reading."""

    raw: RawFile

    def pread(self, size: int, offset: int) -> bytes:
        """As `os.pread`: up to `size` bytes from `offset` on; the position stays. Threads may do so side by side."""
        return self.raw.pread(size, offset)

    @property
    def ref(self) -> FileRef:
        return self.raw.ref


class _Stored(_Buffered):
    """What a buffer for writing adds to Python's own: its bytes reach the cluster when they are to."""

    raw: RawFile

    @property
    def ref(self) -> FileRef:
        """A reference to the file; its length does not count what is still in the buffer."""
        return self.raw.ref

    def flush(self) -> None:
        if self.raw.usable:
            super().flush()
            self.raw.flush()

    def fsync(self) -> None:
        """`flush`, and make what was written durable: on the disks of all replicas."""
        super().flush()
        self.raw.fsync()

    def close(self) -> None:
        """Python's own would drop what is in the buffer when a signal handler raises."""
        raw = self.raw
        if raw.ended:
            return
        raw.begin_close()
        if raw.usable and not raw.closed:
            try:
                super().flush()
            except BaseException as error:
                if not raw.breaks_off(error):
                    raw.close()
                    raise
                super().flush()
        raw.close()

    def __del__(self) -> None:
        if not self.raw.ended and self.raw.usable:
            self.raw.finalize(self)


class _Deferring(_Buffered):
    """Takes what it is given whatever signal handlers raise meanwhile: the text layer could not give it again, and what
    is appended may not be given twice."""

    raw: RawFile

    def write(self, data: Any) -> int:
        count = super().write(data)
        self.raw.raise_late()
        return count


class FileWriter(_Stored, io.BufferedWriter):
    """What `open` returns for writing: `flush` returns when the bytes are stored and others see them."""

    raw: RawFile


class FileRandom(_Stored, io.BufferedRandom):
    """What `open` returns for reading and writing: `flush` returns when the bytes are stored and others see them."""

    raw: RawFile

    def pread(self, size: int, offset: int) -> bytes:
        """As `os.pread`: up to `size` bytes from `offset` on, what was written included; the position stays."""
        super().flush()
        return self.raw.pread(size, offset)


class DeferringWriter(_Deferring, FileWriter):
    """A `FileWriter` for appends and below text."""

    raw: RawFile


class DeferringRandom(_Deferring, FileRandom):
    """A `FileRandom` for appends and below text."""

    raw: RawFile


class FileText(io.TextIOWrapper):
    """What `open` returns for text."""

    buffer: Any

    def close(self) -> None:
        raw = self.buffer.raw
        if raw.ended:
            return
        raw.begin_close()
        try:
            if not raw.closed:
                super().flush()
        except BaseException as error:
            if not raw.breaks_off(error):
                raise
        finally:
            self.buffer.close()

    def __del__(self) -> None:
        if not self.buffer.raw.ended and self.buffer.raw.usable:
            self.buffer.raw.finalize(self)


def wrap(raw: RawFile, mode: OpenMode, line_buffering: bool, **text: Any) -> Any:
    """The file object that the built-in `open` would make of `raw`. `text`: encoding, errors, newline."""
    file = _wrap(raw, mode, line_buffering, **text)
    if mode.writable:
        process.driver().close_at_exit[id(raw)] = weakref.ref(file)
    return file


def _wrap(raw: RawFile, mode: OpenMode, line_buffering: bool, **text: Any) -> Any:
    size = raw.buffer_size
    if not size:
        return raw
    deferring = mode.append or not mode.binary
    buffered: FileReader | FileWriter | FileRandom
    if mode.readable and mode.writable:
        buffered = DeferringRandom(raw, size) if deferring else FileRandom(raw, size)
    elif mode.writable:
        buffered = DeferringWriter(raw, size) if deferring else FileWriter(raw, size)
    else:
        buffered = FileReader(raw, size)
    raw.defers = deferring
    if mode.binary:
        return buffered
    try:
        wrapper = FileText(buffered, line_buffering=line_buffering, **text)
    except BaseException:
        buffered.close()
        raise
    wrapper.mode = mode.text  # type: ignore[misc]
    return wrapper
