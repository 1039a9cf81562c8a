"""EmberFS for asyncio programs: the same names as the blocking face, awaited.

    async with emberfs.aio.connect("host:port") as fs:
        async with fs.open("/data/a.bin", "wb") as file:
            await file.write(b"...")
        views = await fs.read_ranges([("/data/a.bin", 0, 4096)])

`connect` and `open` may be awaited as well.

A file system belongs to the event loop and the process it was connected in. Every call may be cancelled; once it has
returned or raised, memory that was given to it is not touched any more.
"""

import asyncio
import io
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, TypeVar

from fs_client import copying
from fs_client.append_lock import AppendLocks
from fs_client.async_stream import AsyncStream
from fs_client.awaited import Awaited
from fs_client.credentials import Credentials
from fs_client.dropped import Dropped
from fs_client.file import AsyncFile, OpenMode, checked_file
from fs_client.file_ref import FileRef
from fs_client.globbing import expand
from fs_client.identity import RequestIds, new_client_id, process_umask, process_user, program_name
from fs_client.integers import integer, plain_layout
from fs_client.kept_files import KeptFiles
from fs_client.memory import FreshBytes
from fs_client.meta_client import MetaClient
from fs_client.namespace import Namespace
from fs_client.options import DEFAULT_TIMEOUT_S, ClusterAddress, Options, client_tls, make_options, timeout_of
from fs_client.paths import Path, encode
from fs_client.read_ranges import RangeError, RangeReader
from fs_client.registered_buffer import RegisteredBuffer, register, register_address
from fs_client.routing_cache import RoutingCache
from fs_client.settle import ended
from fs_client.storage_client import StorageClient
from fs_client.write_path import Writer
from fs_common import methods
from fs_common.checks import check
from fs_common.errors import Code, EmberError, to_os_error
from fs_common.ids import ROOT_INODE, ClientId
from fs_common.layout import Layout
from fs_common.limits import BATCH_NAMES_MAX
from fs_common.peers import PeerPool
from fs_common.records import meta
from fs_common.records.routing import GetRouting, GetRoutingReply, Routing
from fs_common.records.session import (
    PROGRAM_LENGTH_MAX,
    PROTOCOL_VERSION,
    Empty,
    GetPermit,
    GivenPass,
    Hello,
    PermitReply,
)
from fs_common.routing_changes import changed
from fs_common.rpc import byte_view
from fs_common.transports.payload import PayloadTransport

T = TypeVar("T")
F = TypeVar("F", bound=AsyncFile)

Readable = FileRef | AsyncFile | Path
"""What can be read from: a file by its reference, an open file, a path."""
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


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
) -> "Awaited[AsyncFileSystem]":
    """Connect to a cluster: `await` it, or enter it by `async with`.

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

    async def begin() -> AsyncFileSystem:
        total_s = timeout_of(timeout_s, timeout)
        return await connect_with(
            make_options(cluster, token, transport, total_s, tls_ca, token_file, rdma_devices, rdma_subnets)
        )

    return Awaited(begin())


async def connect_with(
    options: Options, spawn: Spawn | None = None, *, client: ClientId | None = None, program: str | None = None
) -> "AsyncFileSystem":
    """`connect` with checked options. `spawn` runs what goes on in the background; by default tasks do.

    `client`: whose sessions and locks are gone on with; by default a new client's. `program`: what operators see of it;
    by default the program's name.
    """
    fs = AsyncFileSystem(options, spawn, client, program)
    try:
        await fs._begin()
    except BaseException as error:
        await fs.close()
        if isinstance(error, EmberError):
            raise to_os_error(error) from error
        raise
    return fs


class AsyncFileSystem(Namespace):
    """A connected cluster. Namespace calls are in `Namespace`; this is what concerns the contents of files."""

    def __init__(
        self,
        options: Options,
        spawn: Spawn | None = None,
        client: ClientId | None = None,
        program: str | None = None,
    ) -> None:
        self.options = options
        self.client = client or new_client_id()
        """Who has the sessions and locks."""
        shown = program_name() if program is None else program
        hello = Hello(
            [PROTOCOL_VERSION],
            "client",
            self.client,
            host=socket.gethostname(),
            pid=os.getpid(),
            program=shown[:PROGRAM_LENGTH_MAX].encode(errors="backslashreplace").decode(),
        )
        self._credentials = Credentials(options, hello)
        self.transport = PayloadTransport(options.transport)
        """How contents travel."""
        self.pool = PeerPool(self._credentials, tls=client_tls(options.tls_ca), transport=self.transport)
        metadata = MetaClient(options.addresses, self.pool, options.timeout_s)
        super().__init__(metadata, RequestIds(), process_user(), process_umask())
        self._credentials.fetch_pass = self._fetch_pass
        self.routing = RoutingCache(self._fetch_routing, self.spawn)
        self.storage = StorageClient(self.pool, self.routing, self._fetch_permit)
        self.kept_files = KeptFiles(self.kept)
        self.reader = RangeReader(self.storage, self.kept_files, options.timeout_s)
        # Updates have an identity of their own: a client that is gone on with counts its updates from the start again.
        self.writer = Writer(self.storage, new_client_id(), options.timeout_s)
        self.append_locks = AppendLocks(self)
        self.dropped = Dropped()
        """Files of the blocking face that nobody holds any more, and that are not closed yet."""
        self._spawn = spawn
        self._background: set[asyncio.Task[None]] = set()
        """What `spawn` started and has not ended."""
        self._leaving = asyncio.Event()
        """Set when this is closed."""

    async def _begin(self) -> None:
        self.transport.check()
        reply: GetRoutingReply = await self.metadata.call(methods.GET_ROUTING, GetRouting(0), one_round=True)
        routing = reply.routing
        check(routing is not None, "a client that knows no routing is given one")
        assert routing is not None
        self.routing.adopt(routing)
        # From now on a server of another cluster that took over an address is refused.
        self._credentials.expect_cluster(routing.cluster)

    async def _fetch_permit(self, files: list[int], timeout_s: float) -> PermitReply:
        reply: PermitReply = await self.metadata.call(methods.GET_PERMIT, GetPermit(files), timeout_s=timeout_s)
        return reply

    async def _fetch_pass(self) -> bytes:
        reply: GivenPass = await self.metadata.call(methods.GET_PASS, Empty())
        return reply.given_pass

    async def _fetch_routing(self, known: int, timeout_s: float, wait_s: float) -> Routing | None:
        had = self.routing.routing
        request = GetRouting(known, int(wait_s * 1000), partial=had.version == known)
        reply: GetRoutingReply = await self.metadata.call(methods.GET_ROUTING, request, timeout_s=timeout_s)
        if reply.routing is None or not reply.based_on:
            return reply.routing
        if reply.based_on != had.version:
            text = f"the metadata service told what has changed since routing {reply.based_on}, not {had.version}"
            raise EmberError(Code.INTERNAL, text)
        return changed(had, reply.routing)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run in the background; `close` waits for it. The coroutine handles its own errors."""
        task = (self._spawn or asyncio.get_running_loop().create_task)(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def pause(self, seconds: float) -> bool:
        """Wait for what goes on in the background. False, at once: this is being closed."""
        if not self.closed:
            waiting = asyncio.ensure_future(self._leaving.wait())
            try:
                await asyncio.wait([waiting], timeout=seconds)
            finally:
                waiting.cancel()
        return not self.closed

    async def close(self) -> None:
        """Wait for what goes on in the background, then close all connections. Files should be closed before."""
        await self.dropped.wait()
        self.closed = True
        self._leaving.set()
        await self.routing.close()
        await ended(list(self._background))
        self.storage.close()
        await self.pool.close()
        self.transport.close()

    async def after_dropped(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """A call that comes after the ends of files that nobody holds any more."""
        await self.dropped.wait()
        return await begin()

    def descriptors(self) -> list[int]:
        """File descriptors of its connections."""
        return self.pool.descriptors()

    async def __aenter__(self) -> "AsyncFileSystem":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncFileSystem {self.options.cluster}{' closed' if self.closed else ''}>"

    # Opening

    def open(
        self, path: Path, mode: str = "rb", *, permissions: int = 0o666, layout: Layout | None = None
    ) -> Awaited[AsyncStream]:
        """Open a file: `await` it, or enter it by `async with`. `mode` as for the built-in `open`; bytes in any case.

        `permissions` (less the umask) and `layout` are for a file that is made; by default it has the directory's
        layout. Raises FileNotFoundError, FileExistsError, IsADirectoryError, ...
        """
        return Awaited(self.open_as(AsyncStream, path, mode, permissions=permissions, layout=layout))

    async def open_as(
        self, kind: type[F], path: Path, mode: str, *, permissions: int = 0o666, layout: Layout | None = None
    ) -> F:
        """`open`, for a file without a position, or with one."""
        how = OpenMode(mode)
        name = encode(path)
        opened: meta.OpenReply
        if how.create:
            bits = integer(permissions, "permissions") & 0o7777
            create = meta.Create(
                ROOT_INODE,
                name,
                bits & ~self.umask,
                self.request_id(),
                exclusive=how.exclusive,
                truncate=how.truncate,
                write=True,
                client=self.client,
                layout=plain_layout(layout),
                user=self.user,
                unmasked=bits,
                read=how.readable,
                append=how.append,
            )
            opened = await self.meta_call(methods.CREATE, create, path)
        else:
            request = self.request_id() if how.writable else b""
            client = self.client if how.writable else b""
            open_ = meta.Open(ROOT_INODE, name, how.writable, client, request, self.user, read=how.readable)
            opened = await self.meta_call(methods.OPEN, open_, path)
        file = kind(self, path, how, checked_file(opened.attributes, path), opened)
        # An empty file, too: its times change, and it may have bytes that another writer has not reported.
        if how.truncate and opened.existed:
            try:
                await file.truncate(0)
            except BaseException:
                await file.close()
                raise
        return file

    # Whole files

    async def read_file(self, path: Readable) -> bytes:
        """All bytes of a file."""
        file = await self._ref(path)
        if file.length == 0:
            return b""
        fresh = FreshBytes(file.length)
        (view,) = await self.read_ranges([(file, 0, file.length)], fresh.view)
        got = len(view)
        view.release()
        return fresh.take(got)

    async def write_file(self, path: Path, data: Any, *, layout: Layout | None = None) -> int:
        """Make `data`, a buffer, the contents of the file `path`. Returns its size."""
        if isinstance(data, str):
            raise TypeError("write_file takes bytes or another buffer, not str: use write_text, or encode it")
        async with await self.open_as(AsyncFile, path, "wb", layout=layout) as file:
            return await file.write_at(0, data)

    async def read_text(
        self, path: Readable, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> str:
        """As `pathlib.Path.read_text`."""
        data = await self.read_file(path)
        return io.TextIOWrapper(io.BytesIO(data), encoding=encoding, errors=errors, newline=newline).read()

    async def write_text(
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
        if not isinstance(data, str):
            raise TypeError(f"data must be str, not {type(data).__name__}: write_file takes bytes")
        raw = io.BytesIO()
        text = io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline=newline)
        count = text.write(data)
        text.flush()
        await self.write_file(path, raw.getbuffer(), layout=layout)
        return count

    async def touch(self, path: Path, mode: int = 0o666, exist_ok: bool = True) -> None:
        """As `pathlib.Path.touch`: make an empty file, or set the times of what is there to now."""
        if exist_ok:
            try:
                await self.utime(path)
                return
            except FileNotFoundError:
                pass
        bits = integer(mode, "mode") & ~self.umask & 0o7777
        create = meta.Create(ROOT_INODE, encode(path), bits, self.request_id(), exclusive=not exist_ok, user=self.user)
        await self.meta_call(methods.CREATE, create, path)

    # Patterns and copies

    async def glob(
        self,
        pathname: Path,
        *,
        root_dir: Path | None = None,
        recursive: bool = False,
        include_hidden: bool = False,
    ) -> list[Any]:
        """As `glob.glob`: the paths that match, in no particular order."""
        root = "" if root_dir is None else os.fsdecode(root_dir)
        found = await expand(self, os.fsdecode(pathname), root=root, recursive=recursive, include_hidden=include_hidden)
        return [os.fsencode(path) for path in found] if isinstance(os.fspath(pathname), bytes) else found

    async def iglob(self, pathname: Path, **how: Any) -> AsyncIterator[Any]:
        """`glob`, as an iterator."""
        for path in await self.glob(pathname, **how):
            yield path

    async def copyfile(self, src: Path, dst: Path, *, follow_symlinks: bool = True) -> Path:
        """As `shutil.copyfile`: contents alone, many pieces at a time; holes stay holes. Returns `dst`."""
        if await self.isdir(dst):
            raise to_os_error(EmberError(Code.IS_DIRECTORY), dst)
        await copying.copy_file(self, src, dst, follow_symlinks=follow_symlinks)
        return dst

    async def copy(self, src: Path, dst: Path, *, follow_symlinks: bool = True) -> Any:
        """As `shutil.copy`: contents and mode; `dst` may be a directory. Returns where it is."""
        dst = await copying.into(self, src, dst)
        found = await copying.copy_file(self, src, dst, follow_symlinks=follow_symlinks)
        if found.type == meta.FileType.FILE:
            await self.chmod(dst, found.st_mode)
        return dst

    async def copy2(self, src: Path, dst: Path, *, follow_symlinks: bool = True) -> Any:
        """As `shutil.copy2`: `copy`, and times and extended attributes. Returns where it is."""
        dst = await copying.into(self, src, dst)
        found = await copying.copy_file(self, src, dst, follow_symlinks=follow_symlinks)
        await copying.copy_attributes(self, src, found, dst, follow_symlinks=follow_symlinks)
        return dst

    async def copytree(
        self,
        src: Path,
        dst: Path,
        symlinks: bool = False,
        ignore: copying.Ignore | None = None,
        ignore_dangling_symlinks: bool = False,
        dirs_exist_ok: bool = False,
    ) -> Any:
        """As `shutil.copytree`, several files at a time. Returns `dst`.

        `ignore`: as `shutil.ignore_patterns` makes them; it may not use this file system. What fails is collected, and
        raised as one `shutil.Error` at the end.
        """
        tree = copying.TreeCopy(
            self,
            symlinks=symlinks,
            ignore=ignore,
            ignore_dangling_symlinks=ignore_dangling_symlinks,
            dirs_exist_ok=dirs_exist_ok,
        )
        await tree.copy(os.fspath(src), os.fspath(dst))
        return dst

    async def move(self, src: Path, dst: Path) -> Any:
        """As `shutil.move`, in one step; `dst` may be a directory. Returns where it is."""
        target = await copying.into(self, src, dst)
        if target is dst or (await self.lexists(dst) and await self.samefile(src, dst)):
            await self.rename(src, dst)
            return dst
        try:
            await self.rename(src, target, no_replace=True)
        except FileExistsError:
            raise shutil.Error(f"Destination path {target!r} already exists") from None
        return target

    # Ranges

    async def read_ranges(self, ranges: Sequence[tuple[Readable, int, int]], into: Any = None) -> list[memoryview]:
        """Read many ranges of many files at once.

        `ranges`: (file, offset, length) each; a file is a path, an open file or a `FileRef`.
        `into`: a writable buffer, at least as long as all lengths together. Range i lies behind the lengths of those
        before it; where one is short, at the end of its file, the rest of its place is left as it was. By default a
        buffer is made, in which the ranges lie without gaps.

        Returns a view of each range, cut to the bytes there are. Holes are zeros. Every byte is verified.

        Raises one `OSError` for the first range that cannot be read, naming it; FileNotFoundError, ...; ValueError
        for a negative number or a buffer that is too short.
        """
        self.check_open()
        known: Sequence[tuple[FileRef, int, int]] = ranges  # type: ignore[assignment]
        for file, offset, length in ranges:
            if type(file) is not FileRef or type(offset) is not int or type(length) is not int:
                known = await self._resolve(ranges)
                break
        buffer = None if into is None else byte_view(into)
        if buffer is not None and buffer.readonly:
            raise TypeError("read_ranges needs a writable buffer")
        try:
            return await self.reader.read(known, buffer)
        except RangeError as error:
            raise to_os_error(error, _path_of(ranges[error.number][0])) from error
        except EmberError as error:
            raise to_os_error(error) from error

    @staticmethod
    def register(buffer: Any) -> RegisteredBuffer:
        """See `FileSystem.register`."""
        return register(buffer)

    @staticmethod
    def register_address(address: int, length: int, *, dmabuf: tuple[int, int] | None = None) -> RegisteredBuffer:
        """See `FileSystem.register_address`."""
        return register_address(address, length, dmabuf)

    async def _resolve(self, ranges: Sequence[tuple[Readable, int, int]]) -> list[tuple[FileRef, int, int]]:
        """The same ranges with references for files and Python's own numbers; paths are looked up in one batch."""
        unknown: dict[Any, FileRef | None] = {}
        for file, _, _ in ranges:
            if not isinstance(file, FileRef | AsyncFile):
                unknown[file] = None
        names = list(unknown)
        for start in range(0, len(names), BATCH_NAMES_MAX):
            batch = names[start : start + BATCH_NAMES_MAX]
            if len(batch) == 1:
                unknown[batch[0]] = await self._ref(batch[0])
                continue
            for name, found in zip(batch, await self.stat_batch(ROOT_INODE, batch, read=True), strict=True):
                # A name that is not found is asked for once more, for its own error.
                unknown[name] = await self._ref(name) if found is None else found.ref
        known: list[tuple[FileRef, int, int]] = []
        for number, (file, offset, length) in enumerate(ranges):
            if type(offset) is not int or type(length) is not int:
                offset = integer(offset, f"offset of range {number}")
                length = integer(length, f"length of range {number}")
            if isinstance(file, AsyncFile):
                file = await self._ref(file)
            elif not isinstance(file, FileRef):
                file = unknown[file]  # type: ignore[assignment]
            known.append((file, offset, length))  # type: ignore[arg-type]
        return known

    async def _ref(self, file: Readable) -> FileRef:
        if isinstance(file, FileRef):
            return file
        if isinstance(file, AsyncFile):
            if file.behind:
                await file.settle()
            return file.ref
        return await self.ref(file)


def _path_of(file: Readable) -> Path | None:
    if isinstance(file, FileRef):
        return None
    return file.name if isinstance(file, AsyncFile) else file
