"""The blocking face of EmberFS: `connect` and `FileSystem`.

Each call runs the async core on this process's loop (`process.py`). A `FileSystem` may be used by any number of
threads, passed through fork, and pickled: where it finds itself in a process without a connection, its next call
connects. What it carries is its options alone.
"""

import io
import os
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from fs_client import process
from fs_client.aio import AsyncFileSystem, connect_with
from fs_client.blocking_names import BlockingNames
from fs_client.file import AsyncFile, OpenMode
from fs_client.file_layers import wrap
from fs_client.file_ref import FileRef
from fs_client.integers import integer
from fs_client.options import DEFAULT_TIMEOUT_S, ClusterAddress, Options, make_options, timeout_of
from fs_client.paths import Path
from fs_client.raw_file import BUFFER_SIZE, RawFile
from fs_client.registered_buffer import RegisteredBuffer, register, register_address
from fs_common.layout import Layout

P = ParamSpec("P")
T = TypeVar("T")

Readable = FileRef | RawFile | io.BufferedReader | io.BufferedRandom | Path
"""What can be read from: a reference, an open binary file, a path."""


def connect(
    cluster: ClusterAddress | None = None,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    transport: str | None = None,
    rdma_devices: str | Sequence[str] | None = None,
    rdma_subnets: str | Sequence[str] | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    tls_ca: str | None = None,
    timeout: float | None = None,
) -> "FileSystem":
    """Connect to a cluster.

    `cluster`: where its metadata servers are: "host:port[,host:port...]", "ember://host:port", (host, port), or a list
    of such; by default `EMBERFS_CLUSTER` or `127.0.0.1:9700`.
    `token`, or a `token_file` that it is in: who this is, where the cluster has security on; by default `EMBERFS_TOKEN`
    or `EMBERFS_TOKEN_FILE`. `timeout_s`, or `timeout`: the total time of one call, retries included.
    `tls_ca`: file with the cluster's authority, for TLS; by default `EMBERFS_TLS_CA`, or none.
    `transport`: how contents travel: "tcp"; "rdma": by RDMA or not at all; "auto": by RDMA where both sides can; by
    default `EMBERFS_TRANSPORT`, or "auto". `rdma_devices`: NAME or NAME:PORT of those to use; `rdma_subnets`:
    ADDRESS/BITS of their networks; by default `EMBERFS_RDMA_DEVICES`, `EMBERFS_RDMA_SUBNETS`, or all.

    Raises `ValueError`: an argument is wrong; `OSError`: the token is not known, or its file cannot be read; nobody
    answers at any address (at once); the cluster is not ready (after `timeout_s`).
    """
    fs = FileSystem(
        make_options(
            cluster, token, transport, timeout_of(timeout_s, timeout), tls_ca, token_file, rdma_devices, rdma_subnets
        )
    )
    fs._connection()
    return fs


class _Connection(NamedTuple):
    driver: process.Driver
    core: AsyncFileSystem


class FileSystem(BlockingNames):
    """A cluster, for blocking programs. Thread safe, fork safe, picklable. Behaves like `os` for a remote tree."""

    def __init__(self, cluster: Options | ClusterAddress | None = None) -> None:
        """Does not connect: the first call does. `connect` takes all options, and tells at once if it cannot.

        Two of the same options are equal.
        """
        if not isinstance(cluster, Options):
            cluster = make_options(cluster, None, None, DEFAULT_TIMEOUT_S)
        self.options = cluster
        self.closed = False
        self._connected: _Connection | None = None
        """Valid while its driver is that of this process."""

    # How calls are made

    def _connection(self) -> _Connection:
        connected = self._connected
        if connected is not None and connected.driver is process.current():
            return connected
        driver = process.driver()
        return driver.run(self._connect, driver)

    async def _connect(self, driver: process.Driver) -> _Connection:
        async with driver.connecting:
            connected = self._connected
            if connected is None or connected.driver is not driver:
                if self.closed:
                    raise ValueError("the file system is closed")
                core = await connect_with(self.options, driver.spawn)
                driver.open.add(core)
                connected = self._connected = _Connection(driver, core)
            return connected

    def _call(
        self,
        method: Callable[Concatenate[AsyncFileSystem, P], Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        driver, core = self._connection()
        if core.dropped:
            return driver.run(core.after_dropped, partial(method, core, *args, **kwargs))
        return driver.run(method, core, *args, **kwargs)

    def close(self) -> None:
        """Close the connections of this process. Files should be closed before."""
        self.closed = True
        connected, self._connected = self._connected, None
        if connected is not None and connected.driver is process.current():
            driver, core = connected
            try:
                driver.run(core.close)
            except BaseException:
                # A signal handler raised: the rest goes on in the background.
                driver.submit(core.close)
                raise
            finally:
                driver.open.discard(core)

    def __del__(self) -> None:
        # At the end of an interpreter the names of this module are None already.
        connected: _Connection | None = getattr(self, "_connected", None)
        if connected is not None and connected.driver.usable:
            driver, core = connected
            driver.open.discard(core)
            driver.submit(core.close)

    def __enter__(self) -> "FileSystem":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (FileSystem, (self.options,))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileSystem) and self.options == other.options

    def __hash__(self) -> int:
        return hash(self.options)

    def __repr__(self) -> str:
        return f"<FileSystem {self.options.cluster}{' closed' if self.closed else ''}>"

    # Files

    def open(
        self,
        path: Path,
        mode: str | None = None,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        permissions: int = 0o666,
        layout: Layout | None = None,
    ) -> Any:
        """Open a file as the built-in `open` does. `mode` is by default "rb", or "r" where `encoding`, `errors` or
        `newline` say that it is text.

        Returns an `io.BufferedReader`, `BufferedWriter` or `BufferedRandom`; the `RawFile` itself for `buffering=0`;
        an `io.TextIOWrapper` for a mode without `b`. Binary files have `ref`, those for writing `fsync()`.

        `flush` makes what was written visible to everybody, its length too (one call of the metadata service); `fsync`
        makes it durable. Mode `a`: each buffer that is full or flushed goes in one piece to the end of the file,
        wherever that is by then on any client or mount. A file that is dropped without `close` is stored before the
        next call.

        `permissions` (less the umask) and `layout` are for a file that is made.
        """
        if mode is None:
            mode = "rb" if encoding is None and errors is None and newline is None else "r"
        how = OpenMode(mode)
        # `buffering=False` is how many write 0, and the built-in `open` takes it.
        buffering = int(buffering) if isinstance(buffering, bool) else integer(buffering, "buffering")
        if how.binary and (encoding is not None or errors is not None or newline is not None):
            raise ValueError("binary mode doesn't take an encoding, errors or newline argument")
        if not how.binary and buffering == 0:
            raise ValueError("can't have unbuffered text I/O")
        opened: list[AsyncFile] = []

        async def open_file(core: AsyncFileSystem) -> None:
            opened.append(await core.open_as(AsyncFile, path, mode, permissions=permissions, layout=layout))

        try:
            self._call(open_file)
            raw = RawFile(self, opened[0], how, buffering if buffering == 0 or buffering > 1 else BUFFER_SIZE)
        except BaseException:
            # A signal handler raised when it was open already: nobody will close it.
            if opened:
                process.driver().submit(opened[0].close)
            raise
        return wrap(raw, how, buffering == 1, encoding=encoding, errors=errors, newline=newline)

    def read_file(self, path: Path | FileRef) -> bytes:
        """All bytes of a file."""
        return self._call(AsyncFileSystem.read_file, path)

    def write_file(self, path: Path, data: Any, *, layout: Layout | None = None) -> int:
        """Make `data`, a buffer, the contents of the file `path`. Returns its size."""
        return self._call(AsyncFileSystem.write_file, path, data, layout=layout)

    def read_text(
        self, path: Path | FileRef, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> str:
        """As `pathlib.Path.read_text`."""
        return self._call(AsyncFileSystem.read_text, path, encoding, errors, newline)

    def write_text(
        self,
        path: Path,
        data: str,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        layout: Layout | None = None,
    ) -> int:
        """As `pathlib.Path.write_text`. Returns how many characters `data` has."""
        return self._call(AsyncFileSystem.write_text, path, data, encoding, errors, newline, layout=layout)

    def read_ranges(self, ranges: Sequence[tuple[Readable, int, int]], into: Any = None) -> list[memoryview]:
        """Read many ranges of many files at once.

        `ranges`: (file, offset, length) each; a file is a path, an open binary file or a `FileRef`.
        `into`: a writable buffer, at least as long as all lengths together. Range i lies behind the lengths of those
        before it; where one is short, at the end of its file, the rest of its place is left as it was. By default a
        buffer is made, in which the ranges lie without gaps.

        Returns a view of each range, cut to the bytes there are. Holes are zeros. Every byte is verified.

        Raises one `OSError` for the first range that cannot be read, naming it; FileNotFoundError, ...; ValueError
        for a negative number or a buffer that is too short.
        """
        known: Any = ranges
        for file, _, _ in ranges:
            if type(file) is not FileRef:
                known = [(_source(file), offset, length) for file, offset, length in ranges]
                break
        return self._call(AsyncFileSystem.read_ranges, known, into)

    @staticmethod
    def register(buffer: Any) -> RegisteredBuffer:
        """Say that `buffer` will be read into, or written from, again and again until this is closed.

        Over RDMA it is registered with the adapter once, instead of for each call; over TCP nothing is done. It serves
        all file systems of this process. Pass `buffer` itself, or parts of it, to the calls.

            with fs.register(arena):
                while ...:
                    fs.read_ranges(ranges, into=arena)

        `buffer` is held until the end: a bytearray cannot be resized, an `mmap` not be closed. Raises OSError (ENOMEM)
        if an adapter refuses it, saying why; TypeError and ValueError for what is no contiguous buffer.
        """
        return register(buffer)

    @staticmethod
    def register_address(address: int, length: int, *, dmabuf: tuple[int, int] | None = None) -> RegisteredBuffer:
        """`register` for memory that no Python object stands for, as that of a GPU; its `view` is for the calls.

        `length` bytes from `address` on, which this process can read and write: every byte is verified where it has
        arrived, and holes are made zeros. `dmabuf`: descriptor of a dma-buf that exports the memory, and the offset in
        it; adapters register that instead of the pages of the processor.

        The caller keeps memory and descriptor until `close` has returned, which refuses while calls use them.
        """
        return register_address(address, length, dmabuf)

    def ref(self, path: Path) -> FileRef:
        """A light, picklable reference to a file, for `read_ranges`."""
        return self._call(AsyncFileSystem.ref, path)


def _source(file: Any) -> Any:
    """What the core calls this file."""
    if isinstance(file, io.BufferedReader | io.BufferedRandom):
        file = file.raw
    return file.source if isinstance(file, RawFile) else file
