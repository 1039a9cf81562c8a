"""What lies on a raw file, as the built-in `open` does it: Python's own buffers, and its text layer.

Finalizers of these classes use nothing but their own attributes: at the end of an interpreter the names of modules are
None already.
"""

import io
import weakref
from typing import Any

from fs_client import process
from fs_client.file import OpenMode
from fs_client.file_ref import FileRef
from fs_client.raw_file import RawFile


class FileReader(io.BufferedReader):
    """What `open` returns for reading."""

    raw: RawFile

    @property
    def ref(self) -> FileRef:
        return self.raw.ref


class FileWriter(io.BufferedWriter):
    """What `open` returns for writing: `flush` returns when the bytes are stored and others see them."""

    raw: RawFile

    @property
    def ref(self) -> FileRef:
        """A reference to the file; its length does not count what is still in the buffer."""
        return self.raw.ref

    def flush(self) -> None:
        if self.raw._driver.usable:
            super().flush()
            self.raw.flush()

    def fsync(self) -> None:
        """`flush`, and make what was written durable: on the disks of all replicas."""
        super().flush()
        self.raw.fsync()

    def close(self) -> None:
        if not self.closed:
            self.raw.begin_close()
        super().close()

    def __del__(self) -> None:
        if not self.closed and self.raw._driver.usable:
            self.raw.finalize(self)


class FileRandom(io.BufferedRandom):
    """What `open` returns for reading and writing: `flush` returns when the bytes are stored and others see them."""

    raw: RawFile

    @property
    def ref(self) -> FileRef:
        """A reference to the file; its length does not count what is still in the buffer."""
        return self.raw.ref

    def flush(self) -> None:
        if self.raw._driver.usable:
            super().flush()
            self.raw.flush()

    def fsync(self) -> None:
        """`flush`, and make what was written durable: on the disks of all replicas."""
        super().flush()
        self.raw.fsync()

    def close(self) -> None:
        if not self.closed:
            self.raw.begin_close()
        super().close()

    def __del__(self) -> None:
        if not self.closed and self.raw._driver.usable:
            self.raw.finalize(self)


class DeferringWriter(FileWriter):
    """Takes what it is given whatever signal handlers raise meanwhile: the text layer could not give it again, and what
    is appended may not be given twice."""

    def write(self, data: Any) -> int:
        count = super().write(data)
        self.raw.raise_late()
        return count


class DeferringRandom(FileRandom):
    """Takes what it is given whatever signal handlers raise meanwhile: the text layer could not give it again, and what
    is appended may not be given twice."""

    def write(self, data: Any) -> int:
        count = super().write(data)
        self.raw.raise_late()
        return count


class FileText(io.TextIOWrapper):
    """What `open` returns for text."""

    buffer: Any

    def close(self) -> None:
        if not self.closed:
            self.buffer.raw.begin_close()
        super().close()

    def __del__(self) -> None:
        if not self.closed and self.buffer.raw._driver.usable:
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
