"""A metadata service on a dict: the records of the real one, POSIX names, retries by request id, faults on demand."""

import asyncio
import itertools
import posixpath
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.methods import Method
from fs_common.records import meta
from fs_common.records.locks import Lock, LockReply, ReleaseLocks, ReleaseLocksReply
from fs_common.records.meta import Attributes, FileType
from fs_common.records.routing import GetRouting, GetRoutingReply, Routing
from fs_common.records.session import Empty
from fs_common.rpc import Call, Reply, Service
from fs_common.transports import tcp


class FakeMetadata:
    """Inodes by number, directories as dicts from name to number. Several servers may offer the same one."""

    def __init__(self, cluster: str, layout: Layout, routing: Callable[[], Routing | None]) -> None:
        self.routing = routing
        """None: the cluster is not ready."""
        self.inodes: dict[int, Attributes] = {}
        self.children: dict[int, dict[bytes, int]] = {}
        self.xattrs: dict[int, dict[bytes, bytes]] = {}
        self.sessions: dict[bytes, int] = {}
        """Session to inode."""
        self.calls: list[tuple[str, Any]] = []
        self.remembered: dict[bytes, msgspec.Struct] = {}
        """Request id to answer."""
        self.lost_replies = 0
        """So many mutating calls are applied, and then the connection seems to break."""
        self.fault: Callable[[Method], EmberError | None] = lambda method: None
        self.cut: Callable[[int, int, int], None] = lambda inode, length, chunk_size: None
        self.stored_length: Callable[[int, int], int] = lambda inode, chunk_size: 0
        self.page_size = 1024
        self.append_locks: dict[int, tuple[bytes, int]] = {}
        """Inode to client and owner."""
        self.lock_lease_ms = 20_000
        self.held_back = threading.Event()
        """Somebody waits for newer routing."""
        self._routing_changed: asyncio.Future[None] | None = None
        self._lock_waiters: list[asyncio.Future[None]] = []
        self._refused_locks: set[bytes] = set()
        """Request ids: all copies of a request have one answer."""
        self.lost_lock_replies = 0
        self._on_disk: tuple[dict[int, Attributes], dict[int, dict[bytes, int]]] = {}, {}
        """What a power cut leaves of `inodes` and `children`."""
        self.kept_ms = 300_000
        """For how long files stay that lose their names."""
        self.collected: set[int] = set()
        """Inodes that are gone, or of which chunks may be."""
        self._numbers = itertools.count(2)
        self._firsts = itertools.count()
        self._make_root(layout)
        self.service = Service("meta", cluster, 1)
        self.server: tcp.Server | None = None
        for method in methods.BY_NUMBER.values():
            if method is methods.LOCK:
                self.service.register(method, self._lock)
                continue
            if method is methods.GET_ROUTING:
                self.service.register(method, self._get_routing)
                continue
            handler = getattr(self, f"_{method.name}", None)
            if handler is not None:
                self.service.register(method, self._answering(method, handler))

    def _make_root(self, layout: Layout) -> None:
        self.inodes[1] = Attributes(1, FileType.DIRECTORY, 0o755, 0, 0, 2, 0, 0, 0, 0, layout, parent=1)
        self.children[1] = {}
        self._to_disk()

    def _to_disk(self) -> None:
        self._on_disk = dict(self.inodes), {inode: dict(names) for inode, names in self.children.items()}

    def power_cut(self) -> None:
        """The service starts again with what was on its disk."""
        inodes, children = self._on_disk
        self.inodes, self.children = dict(inodes), {inode: dict(names) for inode, names in children.items()}

    def _answering(self, method: Method, handler: Callable[[Any], msgspec.Struct]) -> Callable[[Call], Reply]:
        def answer(call: Call) -> Reply:
            request = call.request
            fault = self.fault(method)
            if fault is not None:
                raise fault
            self.calls.append((method.name, request))
            number = getattr(request, "request", b"")
            if not number:
                return Reply(handler(request))
            if number not in self.remembered:
                self.remembered[number] = handler(request)
                if not getattr(request, "relaxed", False):
                    self._to_disk()
            if self.lost_replies:
                self.lost_replies -= 1
                raise EmberError(Code.PEER_GONE, "the connection broke before the answer came")
            return Reply(self.remembered[number])

        return answer

    # Names

    def _walk(self, at: int, path: bytes, follow: bool, depth: int = 0) -> tuple[int, bytes, int | None]:
        """(directory, name, inode or None) of a path."""
        if depth > 40:
            raise EmberError(Code.LOOP, "Too many levels of symbolic links")
        current = 1 if path.startswith(b"/") else at
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        directory, last, found = current, b"", current
        for place, name in enumerate(names):
            if self.inodes[current].type != FileType.DIRECTORY:
                raise EmberError(Code.NOT_DIRECTORY, "Not a directory")
            if len(name) > 255:
                raise EmberError(Code.NAME_TOO_LONG, "File name too long")
            directory, last = current, name
            child = self.inodes[current].parent if name == b".." else self.children[current].get(name)
            is_last = place == len(names) - 1
            if child is None:
                if is_last:
                    return directory, last, None
                raise EmberError(Code.NOT_FOUND, "No such file or directory")
            if self.inodes[child].type == FileType.SYMLINK and (follow or not is_last):
                directory, last, target = self._walk(current, self.inodes[child].target, True, depth + 1)
                if target is None:
                    if is_last:
                        return directory, last, None
                    raise EmberError(Code.NOT_FOUND, "No such file or directory")
                child = target
            current = found = child
        return directory, last, found

    def _find(self, at: int, path: bytes, follow: bool = True) -> Attributes:
        found = at if not path else self._walk(at, path, follow)[2]
        if not path and at not in self.inodes:
            raise EmberError(Code.STALE, "Stale file handle")
        if found is None or found not in self.inodes:
            raise EmberError(Code.NOT_FOUND, "No such file or directory")
        return self.inodes[found]

    def _new(self, directory: int, name: bytes, **fields: Any) -> Attributes:
        now = time.time_ns()
        number = next(self._numbers)
        made = Attributes(
            **{
                "inode": number,
                "mode": 0o644,
                "uid": 0,
                "gid": 0,
                "links": 1,
                "length": 0,
                "atime_ns": now,
                "mtime_ns": now,
                "ctime_ns": now,
                "btime_ns": now,
                **fields,
            }
        )
        self.inodes[number] = made
        self.children[directory][name] = number
        return made

    def _change(self, inode: int, **fields: Any) -> Attributes:
        self.inodes[inode] = msgspec.structs.replace(self.inodes[inode], **fields)
        return self.inodes[inode]

    def _file_layout(self, directory: int, asked: Layout | None) -> Layout:
        layout = asked or self.inodes[directory].layout
        routing = self.routing()
        assert layout is not None and routing is not None
        table = routing.tables[0]
        first = next(self._firsts) % len(table.chains)
        stripe = min(layout.stripe, len(table.chains))
        return msgspec.structs.replace(layout, stripe=stripe, table_version=table.version, first=first, seed=first)

    def _make_file(self, directory: int, name: bytes, mode: int, layout: Layout | None) -> Attributes:
        return self._new(directory, name, type=FileType.FILE, mode=mode, layout=self._file_layout(directory, layout))

    # Calls

    async def _get_routing(self, call: Call) -> Reply:
        request: GetRouting = call.request
        fault = self.fault(methods.GET_ROUTING)
        if fault is not None:
            raise fault
        self.calls.append((methods.GET_ROUTING.name, request))
        loop = asyncio.get_running_loop()
        until = loop.time() + request.wait_ms / 1000
        while True:
            routing = self.routing()
            if routing is None:
                raise EmberError(Code.CLUSTER_NOT_READY, "storage daemons have not registered")
            if request.known_version != routing.version:
                return Reply(GetRoutingReply(routing))
            left_s = until - loop.time()
            if left_s <= 0:
                return Reply(GetRoutingReply(None))
            self.held_back.set()
            if self._routing_changed is None:
                self._routing_changed = loop.create_future()
            await asyncio.wait([self._routing_changed], timeout=left_s)

    def routing_changed(self) -> None:
        """Tell those who wait. On the servers' loop."""
        changed, self._routing_changed = self._routing_changed, None
        if changed is not None:
            changed.set_result(None)

    def _stat(self, request: meta.Stat) -> meta.AttributesReply:
        return meta.AttributesReply(self._find(request.at, request.path, request.follow))

    def _batch_stat(self, request: meta.BatchStat) -> meta.BatchAttributesReply:
        return _each(request.paths, lambda path: self._find(request.at, path, request.follow))

    def _kept(self, request: meta.Kept) -> meta.KeptReply:
        return meta.KeptReply(
            [self.kept_ms if inode in self.inodes and inode not in self.collected else -1 for inode in request.inodes]
        )

    def _create(self, request: meta.Create) -> meta.OpenReply:
        directory, name, found = self._walk(request.at, request.path, not request.exclusive)
        existed = found is not None
        if found is not None:
            if request.exclusive:
                raise EmberError(Code.EXISTS, "File exists")
            made = self.inodes[found]
            if made.type == FileType.DIRECTORY:
                raise EmberError(Code.IS_DIRECTORY, "Is a directory")
        else:
            made = self._make_file(directory, name, request.mode, request.layout)
        session = self._session(made.inode) if request.write else b""
        return meta.OpenReply(made, session, existed)

    def _session(self, inode: int) -> bytes:
        session = b"session%09d" % next(self._numbers)
        self.sessions[session] = inode
        return session

    def _batch_create(self, request: meta.BatchCreate) -> meta.BatchAttributesReply:
        def make(name: bytes) -> Attributes:
            if name in self.children[request.parent]:
                raise EmberError(Code.EXISTS, "File exists")
            return self._make_file(request.parent, name, request.mode, request.layout)

        return _each(request.names, make)

    def _open(self, request: meta.Open) -> meta.OpenReply:
        found = self._find(request.at, request.path)
        if found.type == FileType.DIRECTORY and request.write:
            raise EmberError(Code.IS_DIRECTORY, "Is a directory")
        return meta.OpenReply(found, self._session(found.inode) if request.write else b"", True)

    def _close(self, request: meta.Close) -> meta.AttributesReply:
        reply = self._fsync(request)
        del self.sessions[request.session]
        return reply

    def _fsync(self, request: Any) -> meta.AttributesReply:
        if self.sessions.get(request.session) != request.inode:
            raise EmberError(Code.BAD_SESSION, "no such session")
        found = self.inodes[request.inode]
        assert found.layout is not None
        length = found.length
        if request.exact or (request.written_end >= 0 and request.truncate_version != found.truncate_version):
            length = self.stored_length(found.inode, found.layout.chunk_size)
        elif request.written_end > length:
            length = request.written_end
        changed = self._change(found.inode, length=length, mtime_ns=request.mtime_ns or found.mtime_ns)
        return meta.AttributesReply(changed)

    def _sync(self, request: meta.Sync) -> Empty:
        self._to_disk()
        return Empty()

    # Locks

    async def _lock(self, call: Call) -> Reply:
        """APPEND only, which is exclusive."""
        request: Lock = call.request
        fault = self.fault(methods.LOCK)
        if fault is not None:
            raise fault
        self.calls.append((methods.LOCK.name, request))
        loop = asyncio.get_running_loop()
        until = loop.time() + request.wait_ms / 1000
        mine = (request.client, request.owner)
        # Refused once is refused for good, also if the lock has come free since.
        while request.request in self._refused_locks or self.append_locks.setdefault(request.inode, mine) != mine:
            if loop.time() >= until or request.request in self._refused_locks:
                self._refused_locks.add(request.request)
                self._wake_lock_waiters()
                raise EmberError(Code.WOULD_BLOCK, "another owner has it")
            waiter: asyncio.Future[None] = loop.create_future()
            self._lock_waiters.append(waiter)
            await asyncio.wait([waiter], timeout=until - loop.time())
        if self.lost_lock_replies:
            self.lost_lock_replies -= 1
            raise EmberError(Code.NO_SPACE, "it is taken, and seems not to be")
        return Reply(LockReply(self.inodes[request.inode], self.lock_lease_ms))

    def _release_locks(self, request: ReleaseLocks) -> ReleaseLocksReply:
        held = self.append_locks.get(request.inode) == (request.client, request.owner)
        if held:
            del self.append_locks[request.inode]
            self._wake_lock_waiters()
        return ReleaseLocksReply(held)

    def _wake_lock_waiters(self) -> None:
        waiters, self._lock_waiters = self._lock_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _mkdir(self, request: meta.Mkdir) -> meta.AttributesReply:
        if request.parents:
            path = request.path
            above = posixpath.dirname(path.rstrip(b"/"))
            if above.strip(b"/"):
                self._mkdir(meta.Mkdir(request.at, above, request.mode, b"", True))
        directory, name, found = self._walk(request.at, request.path, True)
        if found is not None:
            if request.parents and self.inodes[found].type == FileType.DIRECTORY:
                return meta.AttributesReply(self.inodes[found])
            raise EmberError(Code.EXISTS, "File exists")
        layout = request.layout or self.inodes[directory].layout
        made = self._new(
            directory, name, type=FileType.DIRECTORY, mode=request.mode, links=2, layout=layout, parent=directory
        )
        self.children[made.inode] = {}
        return meta.AttributesReply(made)

    def _readdir(self, request: meta.Readdir) -> meta.ReaddirReply:
        names = sorted(name for name in self.children[request.inode] if name > request.after)
        limit = min(request.limit, self.page_size)
        entries = []
        for name in names[:limit]:
            found = self.inodes[self.children[request.inode][name]]
            shown = found if request.with_attributes else None
            entries.append(meta.DirectoryEntry(name, found.inode, found.type, shown))
        return meta.ReaddirReply(entries, len(names) > limit)

    def _unlink(self, request: meta.Unlink) -> Empty:
        directory, name, found = self._walk(request.at, request.path, False)
        if found is None:
            raise EmberError(Code.NOT_FOUND, "No such file or directory")
        if self.inodes[found].type == FileType.DIRECTORY:
            raise EmberError(Code.IS_DIRECTORY, "Is a directory")
        del self.children[directory][name]
        return Empty()

    def _rmdir(self, request: meta.Rmdir) -> Empty:
        directory, name, found = self._walk(request.at, request.path, False)
        if found is None:
            raise EmberError(Code.NOT_FOUND, "No such file or directory")
        if self.inodes[found].type != FileType.DIRECTORY:
            raise EmberError(Code.NOT_DIRECTORY, "Not a directory")
        if self.children[found]:
            raise EmberError(Code.NOT_EMPTY, "Directory not empty")
        del self.children[directory][name]
        return Empty()

    def _remove_tree(self, request: meta.RemoveTree) -> Empty:
        directory, name, found = self._walk(request.at, request.path, False)
        if found is None:
            raise EmberError(Code.NOT_FOUND, "No such file or directory")
        del self.children[directory][name]
        return Empty()

    def _rename(self, request: meta.Rename) -> Empty:
        directory, name, found = self._walk(request.at, request.path, False)
        new_directory, new_name, existing = self._walk(request.new_at, request.new_path, False)
        if found is None or (existing is None and request.flags == meta.RenameFlags.EXCHANGE):
            raise EmberError(Code.NOT_FOUND, "No such file or directory")
        if existing is not None and request.flags == meta.RenameFlags.NO_REPLACE:
            raise EmberError(Code.EXISTS, "File exists")
        del self.children[directory][name]
        self.children[new_directory][new_name] = found
        if request.flags == meta.RenameFlags.EXCHANGE:
            assert existing is not None
            self.children[directory][name] = existing
        return Empty()

    def _symlink(self, request: meta.Symlink) -> meta.AttributesReply:
        directory, name, found = self._walk(request.at, request.path, False)
        if found is not None:
            raise EmberError(Code.EXISTS, "File exists")
        target = request.target
        made = self._new(directory, name, type=FileType.SYMLINK, mode=0o777, target=target, length=len(target))
        return meta.AttributesReply(made)

    def _readlink(self, request: meta.Readlink) -> meta.ReadlinkReply:
        found = self._find(request.at, request.path, False)
        if found.type != FileType.SYMLINK:
            raise EmberError(Code.INVALID, "not a symbolic link")
        return meta.ReadlinkReply(found.target)

    def _real_path(self, request: meta.RealPath) -> meta.RealPathReply:
        names: list[bytes] = []
        at = request.inode
        while at != 1:
            parent = next(number for number, names_ in self.children.items() if at in names_.values())
            names.append(next(name for name, number in self.children[parent].items() if number == at))
            at = parent
        return meta.RealPathReply(b"/" + b"/".join(reversed(names)))

    def _access(self, request: meta.Access) -> meta.AttributesReply:
        """As for the owner."""
        found = self.inodes[request.inode]
        if request.mask & ~(found.mode >> 6):
            raise EmberError(Code.ACCESS_DENIED, "Permission denied")
        return meta.AttributesReply(found)

    def _get_xattr(self, request: meta.GetXattr) -> meta.XattrReply:
        values = self.xattrs.get(request.inode, {})
        if request.name not in values:
            raise EmberError(Code.NO_XATTR, "none of that name")
        return meta.XattrReply(values[request.name])

    def _list_xattrs(self, request: meta.ListXattrs) -> meta.ListXattrsReply:
        return meta.ListXattrsReply(sorted(self.xattrs.get(request.inode, {})))

    def _set_xattr(self, request: meta.SetXattr) -> Empty:
        values = self.xattrs.setdefault(request.inode, {})
        if request.flags & meta.XattrFlags.CREATE and request.name in values:
            raise EmberError(Code.EXISTS, "File exists")
        if request.flags & meta.XattrFlags.REPLACE and request.name not in values:
            raise EmberError(Code.NO_XATTR, "none of that name")
        values[request.name] = request.value
        return Empty()

    def _remove_xattr(self, request: meta.RemoveXattr) -> Empty:
        if self.xattrs.get(request.inode, {}).pop(request.name, None) is None:
            raise EmberError(Code.NO_XATTR, "none of that name")
        return Empty()

    def _link(self, request: meta.Link) -> meta.AttributesReply:
        found = self._find(request.at, request.path, False)
        directory, name, existing = self._walk(request.new_at, request.new_path, False)
        if existing is not None:
            raise EmberError(Code.EXISTS, "File exists")
        self.children[directory][name] = found.inode
        return meta.AttributesReply(self._change(found.inode, links=found.links + 1))

    def _set_attr(self, request: meta.SetAttr) -> meta.AttributesReply:
        found = self._find(request.at, request.path, request.follow)
        names = ("mode", "uid", "gid", "atime_ns", "mtime_ns", "layout")
        changes = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
        now_ns = time.time_ns()
        changes |= {f"{name}_ns": now_ns for name in ("atime", "mtime") if getattr(request, f"{name}_now")}
        return meta.AttributesReply(self._change(found.inode, **changes))

    def _truncate(self, request: meta.Truncate) -> meta.AttributesReply:
        found = self.inodes[request.inode]
        assert found.layout is not None
        self.cut(request.inode, request.length, found.layout.chunk_size)
        changed = self._change(request.inode, length=request.length, truncate_version=found.truncate_version + 1)
        return meta.AttributesReply(changed)

    def _statfs(self, request: meta.Statfs) -> meta.StatfsReply:
        return meta.StatfsReply(1 << 40, 1 << 39, len(self.inodes), 3)

    def _usage(self, request: meta.Usage) -> meta.UsageReply:
        counts = dict.fromkeys(FileType, 0)
        total = 0
        left = list(self.children[request.inode].values())
        while left:
            found = self.inodes[left.pop()]
            counts[found.type] += 1
            total += found.length if found.type == FileType.FILE else 0
            left += self.children.get(found.inode, {}).values()
        return meta.UsageReply(counts[FileType.FILE], counts[FileType.DIRECTORY], counts[FileType.SYMLINK], total)


def _each(names: list[bytes], make: Callable[[bytes], Attributes]) -> meta.BatchAttributesReply:
    found: list[Attributes | None] = []
    errors: list[meta.NameFailure] = []
    for place, name in enumerate(names):
        try:
            found.append(make(name))
        except EmberError as error:
            found.append(None)
            errors.append(meta.NameFailure(place, error.code.value.number, error.message))
    return meta.BatchAttributesReply(found, errors)
