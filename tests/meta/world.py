"""A namespace on a store in memory, with a clock, storage daemons and request ids that tests control."""

import copy
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import pytest

from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.records import meta
from fs_common.records.locks import GetLock, GetLockReply, Lock, LockKind, LockType, ReleaseLocks
from fs_common.records.meta import Attributes, FileType, User
from fs_common.records.routing import Chain, ChainTable, ChainTarget, NodeInfo, NodeState, PublicState, Routing
from fs_meta import fsck, schema
from fs_meta.chain_allocator import ChainAllocator
from fs_meta.format import prepare_store
from fs_meta.gc import Collector
from fs_meta.inode_count import InodeCount
from fs_meta.inode_ids import InodeIds
from fs_meta.kv.interface import KeyValueStore, Transaction
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.locks.waits import get_locks
from fs_meta.ops.access import access
from fs_meta.ops.batch_create import batch_create
from fs_meta.ops.batch_stat import batch_stat
from fs_meta.ops.close import close
from fs_meta.ops.context import Context
from fs_meta.ops.create import create
from fs_meta.ops.create_unnamed import create_unnamed
from fs_meta.ops.fsync import fsync
from fs_meta.ops.get_lock import get_lock
from fs_meta.ops.get_xattr import get_xattr
from fs_meta.ops.inodes import put_inode
from fs_meta.ops.link import link
from fs_meta.ops.list_xattrs import list_xattrs
from fs_meta.ops.lock import lock
from fs_meta.ops.lookup import lookup
from fs_meta.ops.mkdir import mkdir
from fs_meta.ops.mknod import mknod
from fs_meta.ops.open import open_
from fs_meta.ops.readdir import readdir
from fs_meta.ops.readlink import readlink
from fs_meta.ops.release_locks import release_locks
from fs_meta.ops.remove_tree import remove_tree
from fs_meta.ops.remove_xattr import remove_xattr
from fs_meta.ops.rename import rename
from fs_meta.ops.resolve import get_inode
from fs_meta.ops.rmdir import rmdir
from fs_meta.ops.set_attr import set_attr
from fs_meta.ops.set_xattr import set_xattr
from fs_meta.ops.stat import stat
from fs_meta.ops.symlink import symlink
from fs_meta.ops.truncate import truncate
from fs_meta.ops.unlink import unlink
from fs_meta.ops.usage import usage
from fs_meta.service_time import ServiceTime

ROOT = 1
CHUNK = 64 * 1024
ROOT_LAYOUT = Layout(chunk_size=CHUNK, stripe=2)
GC_DELAY_NS = 300 * 10**9
KEEP_NS = 600 * 10**9
LOCK_LEASE_MS = 20_000
RETRY_NS = 60 * 10**9
CLIENT = b"c" * 16
SUPERUSER = User()


class Clock:
    """Every look at it is a millisecond later, so that times can be told apart."""

    def __init__(self, now_ns: int = 1_700_000_000 * 10**9) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        self.now_ns += 10**6
        return self.now_ns


class FakeChunks:
    """Storage daemons: chunk lengths by (inode, index)."""

    def __init__(self) -> None:
        self.lengths: dict[tuple[int, int], int] = {}
        self.unreachable = False
        self.measured: list[int] = []
        """Inodes that were asked about, in order."""
        self.cuts: list[tuple[int, int]] = []
        self.removals: list[list[int]] = []
        """Inodes of each `remove`."""
        self.after_step: list[Callable[[], Awaitable[None]]] = []
        """Each runs once, after the next `measure` or `cut` has done its work and before its caller knows."""

    def write(self, inode: int, layout: Layout, end: int) -> None:
        """A client writes all chunks up to `end`."""
        size = layout.chunk_size
        for index in range((end + size - 1) // size):
            within = min(size, end - index * size)
            self.lengths[inode, index] = max(self.lengths.get((inode, index), 0), within)

    def of(self, inode: int) -> dict[int, int]:
        return {index: length for (owner, index), length in self.lengths.items() if owner == inode}

    async def measure(self, inode: int, layout: Layout) -> int:
        self._check()
        self.measured.append(inode)
        length = max((index * layout.chunk_size + within for index, within in self.of(inode).items()), default=0)
        await self._stepped()
        return length

    async def cut(self, inode: int, layout: Layout, length: int) -> None:
        self._check()
        self.cuts.append((inode, length))
        boundary, within = divmod(length, layout.chunk_size)
        for index in self.of(inode):
            if index > boundary or (index == boundary and not within):
                del self.lengths[inode, index]
            elif index == boundary:
                self.lengths[inode, index] = min(self.lengths[inode, index], within)
        await self._stepped()

    async def remove(self, files: Sequence[tuple[int, Layout]]) -> list[EmberError | None]:
        self.removals.append([inode for inode, _ in files])
        if self.unreachable:
            return [EmberError(Code.UNREACHABLE, "no storage daemon answers")] * len(files)
        for inode, _ in files:
            for index in self.of(inode):
                del self.lengths[inode, index]
        return [None] * len(files)

    def _check(self) -> None:
        if self.unreachable:
            raise EmberError(Code.UNREACHABLE, "no storage daemon answers")

    async def _stepped(self) -> None:
        if self.after_step:
            await self.after_step.pop(0)()


def make_routing(chains: int = 4, tables: dict[int, int] | None = None) -> Routing:
    """`chains` chains of one target each on as many nodes; `tables`: id -> version."""
    nodes = [NodeInfo(n, "127.0.0.1", 9000 + n, NodeState.UP, 1000, 100) for n in range(1, chains + 1)]
    listed = [Chain(n, 1, [ChainTarget(n * 100 + 1, n, PublicState.SERVING)]) for n in range(1, chains + 1)]
    versions = {1: 1} if tables is None else tables
    return Routing(
        1,
        "test",
        nodes,
        listed,
        [ChainTable(table, version, list(range(1, chains + 1))) for table, version in versions.items()],
        replicas=1,
    )


_requests = itertools.count(1)


def new_request() -> bytes:
    return next(_requests).to_bytes(16, "big")


class World:
    """The operations with short names: paths relative to the root, a new request id for each call."""

    def __init__(self, kv: KeyValueStore) -> None:
        self.kv = kv
        self.user = SUPERUSER
        """As whom its calls are made, where they do not say otherwise."""
        self.clock = Clock()
        """The wall clock."""
        self.monotonic = Clock(10**9)
        """What the service's time grows with."""
        self.service_time = ServiceTime(kv, self.monotonic)
        self.chunks = FakeChunks()
        self.routing: Routing | None = make_routing()
        self.context = self.new_context()
        self.collector = Collector(self.context, retry_ns=RETRY_NS)

    def acting(self, user: User) -> Self:
        """The same world in the eyes of another user."""
        other = copy.copy(self)
        other.user = user
        return other

    def new_context(self) -> Context:
        """What a process that starts on this store has."""
        return Context(
            kv=self.kv,
            inode_ids=InodeIds(self.kv),
            inode_count=InodeCount(self.kv),
            allocator=ChainAllocator(lambda: self.routing),
            chunks=self.chunks,
            routing=lambda: self.routing,
            now_ns=self.clock,
            service_time=self.service_time,
            gc_delay_ns=GC_DELAY_NS,
            lock_lease_ms=LOCK_LEASE_MS,
        )

    async def access(self, inode: int, mask: int) -> Attributes:
        return (await access(self.context, meta.Access(inode, mask, self.user))).attributes

    async def mknod(self, path: bytes, type_: FileType, mode: int = 0o644, at: int = ROOT, **more: Any) -> Attributes:
        request = meta.Mknod(at, path, type_, mode, new_request(), user=self.user, **more)
        return (await mknod(self.context, request)).attributes

    async def create(self, path: bytes, at: int = ROOT, mode: int = 0o644, **more: Any) -> Attributes:
        request = meta.Create(at, path, mode, new_request(), user=self.user, **more)
        return (await create(self.context, request)).attributes

    async def create_open(self, path: bytes, at: int = ROOT, mode: int = 0o644, **more: Any) -> meta.OpenReply:
        request = meta.Create(at, path, mode, new_request(), write=True, user=self.user, **{"client": CLIENT, **more})
        return await create(self.context, request)

    async def batch_create(self, names: list[bytes], parent: int = ROOT, **more: Any) -> meta.BatchAttributesReply:
        return await batch_create(
            self.context, meta.BatchCreate(parent, names, 0o644, new_request(), user=self.user, **more)
        )

    async def create_unnamed(self, directory: int = ROOT, mode: int = 0o600, **more: Any) -> meta.OpenReply:
        client = more.pop("client", CLIENT)
        request = meta.CreateUnnamed(directory, mode, new_request(), client, user=self.user, **more)
        return await create_unnamed(self.context, request)

    async def open(self, path: bytes, at: int = ROOT, write: bool = True, **more: Any) -> meta.OpenReply:
        request = new_request() if write or more.get("hold") else b""
        changes = {"client": CLIENT, **more}
        return await open_(self.context, meta.Open(at, path, write, request=request, user=self.user, **changes))

    async def close(self, inode: int, session: bytes, written_end: int = -1, **more: Any) -> Attributes:
        request = meta.Close(inode, session, new_request(), written_end, **more)
        return (await close(self.context, request)).attributes

    async def fsync(self, inode: int, session: bytes, written_end: int = -1, **more: Any) -> Attributes:
        request = meta.Fsync(inode, session, new_request(), written_end, **more)
        return (await fsync(self.context, request)).attributes

    async def mkdir(self, path: bytes, at: int = ROOT, mode: int = 0o755, **more: Any) -> Attributes:
        return (await mkdir(self.context, meta.Mkdir(at, path, mode, new_request(), user=self.user, **more))).attributes

    async def unlink(self, path: bytes, at: int = ROOT) -> None:
        await unlink(self.context, meta.Unlink(at, path, new_request(), self.user))

    async def rmdir(self, path: bytes, at: int = ROOT) -> None:
        await rmdir(self.context, meta.Rmdir(at, path, new_request(), self.user))

    async def remove_tree(self, path: bytes, at: int = ROOT) -> None:
        await remove_tree(self.context, meta.RemoveTree(at, path, new_request(), self.user))

    async def rename(self, path: bytes, new_path: bytes, flags: int = 0, at: int = ROOT, new_at: int = ROOT) -> None:
        await rename(self.context, meta.Rename(at, path, new_at, new_path, new_request(), flags, self.user))

    async def symlink(self, path: bytes, target: bytes, at: int = ROOT, **more: Any) -> Attributes:
        request = meta.Symlink(at, path, target, new_request(), user=self.user, **more)
        return (await symlink(self.context, request)).attributes

    async def readlink(self, path: bytes, at: int = ROOT) -> bytes:
        return (await readlink(self.context, meta.Readlink(at, path, self.user))).target

    async def link(self, path: bytes, new_path: bytes, at: int = ROOT, new_at: int = ROOT) -> Attributes:
        return (await link(self.context, meta.Link(at, path, new_at, new_path, new_request(), self.user))).attributes

    async def set_attr(self, path: bytes, at: int = ROOT, **more: Any) -> Attributes:
        request = meta.SetAttr(at, path, new_request(), user=self.user, **more)
        return (await set_attr(self.context, request)).attributes

    async def truncate(self, inode: int, length: int, session: bytes = b"") -> Attributes:
        request = meta.Truncate(inode, length, new_request(), self.user, session)
        return (await truncate(self.context, request)).attributes

    async def stat(self, path: bytes, at: int = ROOT, follow: bool = True) -> Attributes:
        return (await stat(self.context, meta.Stat(at, path, follow, self.user))).attributes

    async def batch_stat(self, paths: list[bytes], at: int = ROOT, **more: Any) -> meta.BatchAttributesReply:
        return await batch_stat(self.context, meta.BatchStat(at, paths, user=self.user, **more))

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        return (await lookup(self.context, meta.Lookup(parent, name, self.user))).attributes

    async def readdir(self, inode: int, **more: Any) -> meta.ReaddirReply:
        return await readdir(self.context, meta.Readdir(inode, user=self.user, **more))

    async def names(self, inode: int = ROOT) -> list[bytes]:
        return [entry.name for entry in (await self.readdir(inode)).entries]

    async def usage(self, inode: int = ROOT) -> meta.UsageReply:
        return await usage(self.context, meta.Usage(inode, self.user))

    async def get_xattr(self, inode: int, name: bytes, user: User = SUPERUSER) -> bytes:
        return (await get_xattr(self.context, meta.GetXattr(inode, name, user))).value

    async def list_xattrs(self, inode: int, user: User = SUPERUSER) -> list[bytes]:
        return (await list_xattrs(self.context, meta.ListXattrs(inode, user))).names

    async def set_xattr(
        self, inode: int, name: bytes, value: bytes = b"", flags: int = 0, user: User = SUPERUSER
    ) -> None:
        await set_xattr(self.context, meta.SetXattr(inode, name, value, new_request(), flags, user))

    async def remove_xattr(self, inode: int, name: bytes, user: User = SUPERUSER) -> None:
        await remove_xattr(self.context, meta.RemoveXattr(inode, name, new_request(), user))

    async def lock(
        self, inode: int, owner: int, type_: int = LockType.EXCLUSIVE, kind: int = LockKind.RANGE, **more: Any
    ) -> Attributes | None:
        """The caller is this world."""
        request = Lock(
            inode, more.pop("client", CLIENT), owner, kind, type_, more.pop("request", new_request()), **more
        )
        return (await lock(self.context, request, self)).attributes

    async def unlock(self, inode: int, owner: int, kind: int = LockKind.RANGE, **more: Any) -> None:
        await self.lock(inode, owner, LockType.UNLOCK, kind, **more)

    async def get_lock(
        self, inode: int, owner: int, type_: int = LockType.EXCLUSIVE, kind: int = LockKind.RANGE, **more: Any
    ) -> GetLockReply:
        request = GetLock(inode, more.pop("client", CLIENT), owner, kind, type_, **more)
        return await get_lock(self.context, request)

    async def release_locks(self, inode: int, owner: int, kind: int = LockKind.RANGE, client: bytes = CLIENT) -> bool:
        """Whether there were any."""
        return (await release_locks(self.context, ReleaseLocks(inode, client, owner, kind, new_request()))).held

    async def held(self, inode: int) -> list[tuple[int, int, int, int]]:
        """(owner, type, start, end) of each lock."""
        locks = await self.kv.read(lambda txn: get_locks(txn, inode))
        return [(lock.owner, lock.type, lock.start, lock.end) for lock in locks]

    async def collect_all(self) -> None:
        """Let the GC delay pass and run the collector until it finds nothing."""
        self.monotonic.now_ns += GC_DELAY_NS + RETRY_NS
        while await self.collector.collect():
            self.monotonic.now_ns += GC_DELAY_NS

    async def dump(self) -> list[tuple[bytes, bytes]]:
        return await dump(self.kv)

    async def table(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return [pair for pair in await self.dump() if pair[0][:1] == prefix]

    async def inodes(self) -> set[int]:
        return {schema.split_inode_key(key) for key, _ in await self.table(b"I")}


async def _open_root(txn: Transaction) -> None:
    root = await get_inode(txn, ROOT)
    root.mode = 0o777
    put_inode(txn, ROOT, root)


async def dump(kv: KeyValueStore) -> list[tuple[bytes, bytes]]:
    async def read(txn: Transaction) -> list[tuple[bytes, bytes]]:
        return await txn.range(b"\0", b"\xff" * 16)

    return await kv.read(read)


@asynccontextmanager
async def world(kv: KeyValueStore | None = None) -> AsyncIterator[World]:
    """A freshly formatted namespace whose root directory everybody may write; sound when the test is through."""
    store = kv or MemoryStore()
    await prepare_store(store, "test", ROOT_LAYOUT, 0, 0, 1)
    await store.transact(_open_root)
    made = World(store)
    await made.context.inode_count.flush()
    await made.service_time.begin(KEEP_NS, GC_DELAY_NS)
    yield made
    await made.context.inode_ids.close()
    findings = fsck.check(await made.dump())
    assert not findings, findings
    await store.close()


@contextmanager
def fails(number: int) -> Iterator[None]:
    """The block raises an `EmberError` with this errno."""
    with pytest.raises(EmberError) as caught:
        yield
    assert caught.value.errno == number, caught.value
