"""One mounted cluster: what all operations share, and what goes on in the background.

Owns the tables of nodes and handles, the caches, write-back, and the calls to the metadata service in the name of the
program that asked. The channel to the kernel is given to it once it exists.

Concurrency: docs/concurrency/mount.md.
"""

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fs_client.aio import AsyncFileSystem
from fs_client.fuse.append import release_kept
from fs_client.fuse.control import Control
from fs_client.fuse.data_cache import DataCache
from fs_client.fuse.files import BACKGROUND_S, SETTLE_AGE_S, File
from fs_client.fuse.following import CHANGES, Following
from fs_client.fuse.forgetting import Bound
from fs_client.fuse.gone import IN_DIRECTORY, Gone
from fs_client.fuse.handles import Handle, Handles
from fs_client.fuse.lock_questions import LockQuestions
from fs_client.fuse.locks import release_all_locks
from fs_client.fuse.losses import report
from fs_client.fuse.nodes import FOREVER, Node, Nodes
from fs_client.fuse.policy import Policy
from fs_client.fuse.reads import ReadGather
from fs_client.fuse.users import User, groups_of, user_of
from fs_client.fuse.write_back import Dirty
from fs_client.settle import ended, run_all
from fs_client.sync_chains import lost, sync_everything, sync_file
from fs_client.unsynced_guard import UnsyncedGuard
from fs_common import heap, methods, tracing
from fs_common.buffers import BufferPool
from fs_common.clocks import boottime_s
from fs_common.endless import keep
from fs_common.errors import Code, EmberError, Retry
from fs_common.ids import ROOT_INODE
from fs_common.limits import MIB
from fs_common.methods import Method
from fs_common.records import meta
from fs_common.records.session import Ping

if TYPE_CHECKING:
    from fs_client.fuse.channel import Channel
    from fs_client.fuse.kernel_request import Request

logger = logging.getLogger(__name__)

TICK_S = 0.2
"""How often what is old is looked for."""
CLOSE_PAUSE_MIN_S = 1.0
CLOSE_PAUSE_MAX_S = 64.0
"""Pauses double between tries to close a file; about two minutes and the time of the calls in all."""
QUIET_S = 10.0
ASK_MAX = 3
"""How often attributes are asked for that changes of this mount cross."""
STAY_KNOWN_S = 5.0
"""Much less than the time after which the service takes a client for dead."""
CALL_ROUNDS = 3
"""Times that a change is waited for as long as a call may take, while the service answers others."""
_CARRIED_THROUGH = (CHANGES | {methods.OPEN, methods.CREATE_UNNAMED, methods.REMOVE_TREE}) - {methods.FSYNC}
"""Changes with an id of their own, that program or mount would take for not made if they were given up. What a report
of lengths and times could not tell is told by the next one, and it waits for storage: a chain that stands still would
make each append wait as often. A close ends a session: it has its outcome, or the session may be gone unknown."""
SETTLING_MAX = 32
"""Files that are settled side by side when all are."""
POOL_BYTES_MAX = 64 * MIB
"""Unused buffers that are kept."""

_OWN_ERRNO = {
    Code.PEER_GONE: errno.EIO,
    Code.UNREACHABLE: errno.EIO,
    Code.BAD_FRAME: errno.EIO,
    Code.BAD_BODY: errno.EIO,
    Code.TOO_LARGE: errno.EIO,
    Code.UNKNOWN_METHOD: errno.EOPNOTSUPP,
    Code.VERSION_MISMATCH: errno.EIO,
    Code.WRONG_CLUSTER: errno.EIO,
    Code.BUSY: errno.EIO,
    Code.CLOSING: errno.EIO,
    Code.CANCELLED: errno.EINTR,
    Code.KV_CONFLICT: errno.EIO,
    Code.CLUSTER_NOT_READY: errno.EIO,
    Code.CHUNK_NOT_FOUND: errno.EIO,
}
"""Where a program must not see the error's own errno: EAGAIN, say, speaks of descriptors that do not block."""


class Mount:
    """See the module. Made on the event loop it is used on."""

    channel: "Channel"

    def __init__(self, fs: AsyncFileSystem, policy: Policy, root: int = ROOT_INODE) -> None:
        """`root`: the directory of the cluster that is mounted."""
        self.fs = fs
        self.root = root
        self.policy = policy
        self.client = fs.client
        self.request_id = fs.request_id
        self.loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = boottime_s
        """What is believed is believed by a lease of the service: no longer because the machine slept."""
        self.nodes = Nodes(root, policy.attribute_s, policy.name_s, policy.absent_s, listings_exclude=policy.dataset)
        self.handles = Handles()
        self.pool = BufferPool(POOL_BYTES_MAX)
        self.cache = DataCache(policy.cache_bytes)
        self.dirty = Dirty(policy.dirty_bytes)
        self.reads = ReadGather(self)
        self.reopening = asyncio.Lock()
        """Held while a file gets a session again."""
        self.writing: set[File] = set()
        """Files with something that was written and is not settled."""
        self.control: Control | None = None
        """`.emberfs`"""
        self.statfs: tuple[float, meta.StatfsReply] | None = None
        """The last answer, and until when it is believed."""
        self.began = time.time()
        self.unwanted: Callable[[Request, Any], None] | None = None
        """Undoes an open whose program was told something else; set by the operations."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self.closing = False
        """The end has come: what fails now is not tried again."""
        self.lost_bytes = 0
        """That programs had written and that could not be stored, as far as it is in the log."""
        self.progress_at = self.loop.time()
        """On the loop's clock: when the cluster last stored something for this mount, or answered a call of it. Who
        waits for what is to be stored waits while there is progress."""
        self.heard_at = self.progress_at
        """When the metadata service last answered anything."""
        self._ticking: asyncio.TimerHandle | None = None
        self._known_nodes = heap.Watermark()
        """What they took goes back to the system."""
        self._kept: list[asyncio.Task[None]] = []
        self.following = Following(self)
        self.gone = Gone(self.nodes)
        self.lock_questions = LockQuestions(self)
        self._bound = Bound(self)

    # Calls

    def progressed(self) -> None:
        self.progress_at = self.loop.time()

    async def call(self, method: Method, request: Any, timeout_s: float | None = None) -> Any:
        """Call the metadata service. Raises `EmberError` whose errno is what the program shall see. `timeout_s`:
        instead of the mount's.

        A change is not given up while the service answers others: it was sent, and may be made however late. It is
        sent again under its own id, so it is made once.
        """
        began = asked = self.loop.time()
        while True:
            try:
                reply = await self.fs.metadata.call(method, request, timeout_s=timeout_s)
            except EmberError as error:
                if error.retry is Retry.FINAL:
                    self.heard_at = self.progress_at = self.loop.time()
                elif self._is_under_way(method, error, began, asked):
                    asked = self.loop.time()
                    continue
                else:
                    self.following.unsure(method)
                error.errno = self.errno(error)
                raise
            except asyncio.CancelledError:
                self.following.unsure(method)
                raise
            self.heard_at = self.progress_at = self.loop.time()
            return reply

    def _is_under_way(self, method: Method, error: EmberError, began: float, asked: float) -> bool:
        """Whether a call that has failed, last asked for at `asked`, goes on."""
        waited_s = self.loop.time() - began
        alive = error.code is Code.TIMED_OUT and self.heard_at > asked
        if not alive or method not in _CARRIED_THROUGH or waited_s >= CALL_ROUNDS * self.fs.options.timeout_s:
            return False
        logger.warning("%s is under way for %.0f s; the service answers others", method.name, waited_s)
        return True

    async def call_as(
        self, request: "Request", method: Method, make: Callable[[User], Any], *, grouped: bool = False
    ) -> Any:
        """Call in the name of the program that asked. `make` makes the record, with a request id of its own each time.

        Supplementary groups are looked at only if the call is refused without them, or if `grouped`: that takes
        reading a file of the process.
        """
        user = user_of(request)
        if grouped and user.uid:
            return await self.call(method, make(User(user.uid, user.gid, groups_of(request))))
        try:
            return await self.call(method, make(user))
        except EmberError as error:
            if error.code is Code.STALE:
                # Another client took its last name. The kernel looks the name up again, which must not be answered
                # from what was known before.
                self.nodes.change(request.node)
                if request.opcode in IN_DIRECTORY and self.gone.again(request.pid, request.node):
                    raise EmberError(Code.NOT_FOUND, f"directory {request.node} was removed") from error
            if error.code not in (Code.ACCESS_DENIED, Code.NOT_PERMITTED) or not user.uid:
                raise
            groups = groups_of(request)
            if not groups:
                raise
        return await self.call(method, make(User(user.uid, user.gid, groups)))

    def answers_from_memory(self, request: "Request") -> bool:
        """What is known of names and contents of directories may be told to who asks: the kernel has checked his
        permission, or he needs none. Else the service has to."""
        return self.policy.kernel_checks or not request.uid

    @staticmethod
    def errno(error: OSError) -> int:
        if isinstance(error, EmberError):
            return _OWN_ERRNO.get(error.code, error.errno or errno.EIO)
        return error.errno or errno.EIO

    # Nodes and files

    async def attributes(self, inode: int) -> Node:
        """The node, with attributes that may be believed. Asks the service if they are old."""
        node = self.nodes.node(inode)
        now = self.now()
        if node.attributes is not None and (node.removed or self.nodes.fresh(node, now)):
            return node
        return await self.fresh_attributes(node)

    async def fresh_attributes(self, node: Node) -> Node:
        """The node with what the service has now. An answer that a change of this mount has crossed may be from before
        that change: it is asked again, unless the change's own answer is believed by then. Where changes never stop,
        the last answer is shown: it is of a moment behind the question, which is all that who asked can want."""
        nodes = self.nodes
        for _ in range(ASK_MAX):
            stamp = nodes.stamp()
            try:
                reply: meta.AttributesReply = await self.call(methods.STAT, meta.Stat(node.inode, b"", False))
            except EmberError as error:
                if error.code is Code.STALE and node.removed and node.attributes is not None:
                    return node
                raise
            node = nodes.adopt(reply.attributes, stamp, self.now(), reply.promised)
            if stamp >= node.changed:
                if node.file is not None:
                    node.file.refresh(reply.attributes)
                return node
            if node.removed or nodes.fresh(node, self.now()):
                return node
        nodes.show_once(reply.attributes, stamp)
        return node

    def file(self, attributes: meta.Attributes) -> File:
        """The open file of this inode, made if this is its first open."""
        node = self.nodes.node(attributes.inode)
        if node.file is None:
            layout = attributes.layout
            if attributes.type != meta.FileType.FILE or layout is None:
                raise EmberError(Code.NO_DEVICE, f"inode {attributes.inode} is no file with contents")
            node.file = File(self, node, attributes, layout)
        return node.file

    async def close_handle(self, handle: Handle) -> None:
        """The last use of a handle is over: store, settle, end the session. Errors were for its flush.

        What fails because somebody does not answer is tried again for a while: the file's length depends on it.
        """
        file = handle.file
        pause_s = CLOSE_PAUSE_MIN_S
        try:
            while True:
                try:
                    await self.finish_handle(handle)
                    await release_kept(self, file, handle)
                    await release_all_locks(self, handle)
                    return
                except EmberError as error:
                    logger.warning("closing inode %d: %s", file.inode, error)
                    if error.retry is Retry.FINAL or pause_s > CLOSE_PAUSE_MAX_S or self.closing:
                        return
                await asyncio.sleep(pause_s)
                pause_s *= 2
        finally:
            self.handles.files.pop(handle.number, None)
            file.handles.discard(handle)
            if not file.handles:
                await self._last_close(file)

    async def finish_handle(self, handle: Handle) -> None:
        """Everything written is stored and settled, and the handle's session has ended."""
        file = handle.file
        if handle.session:
            if file.node.removed:
                await self.hold(file.inode, besides=handle)
            await file.end_session(handle)
        elif handle.writable and file.dirty:
            await file.settle()
        if not file.dirty:
            self.writing.discard(file)

    async def make_durable(self, file: File) -> None:
        """fsync: on return what was written before is on the disks of all replicas, and the file's record and names
        on the service's. Errors of the writes themselves are the handles'."""
        await file.back.flush()
        try:
            await run_all(
                [sync_file(self.fs.storage, file.unsynced, self.fs.options.timeout_s), file.settle(durable=True)]
            )
        except EmberError as error:
            error.errno = self.errno(error)
            raise
        finally:
            file.look_for_losses()

    async def make_all_durable(self) -> None:
        """syncfs: `make_durable` for everything that was written here, in files that were closed since, too, and for
        all names. Raises WRITES_LOST if something of it was lost before it could be synced."""
        await run_all([file.settle() for file in self.writing])
        try:
            whole = await sync_everything(self.fs.storage, self.fs.options.timeout_s)
        except EmberError as error:
            error.errno = self.errno(error)
            raise
        await self.call(methods.SYNC, meta.Sync())
        if not whole:
            raise lost("the file system")

    async def _last_close(self, file: File) -> None:
        if file.handles:
            return
        hold, file.hold = file.hold, b""
        node = file.node
        node.file = None
        self.fs.storage.unsynced.close(file.unsynced)
        self.writing.discard(file)
        report(self, file)
        file.back.close()
        if node.removed:
            self.cache.forget(file.inode)
        else:
            self.cache.closed(file.inode)
        if hold:
            await self.end_unused_session(file.inode, hold)
        if not node.lookups:
            self.nodes.forget(file.inode, 0, self.now())

    async def end_unused_session(self, inode: int, session: bytes) -> None:
        """End a session that nothing was written under."""
        try:
            await self.call(methods.CLOSE, meta.Close(inode, session, self.request_id(), relaxed=True))
        except EmberError as error:
            logger.warning("giving up removed inode %d: %s", inode, error)

    async def hold(self, inode: int, besides: Handle | None = None) -> None:
        """Before this mount takes a name from `inode`, or ends the session of `besides`: if it is open here without
        a session (any other), keep its contents."""
        node = self.nodes.by_inode.get(inode)
        file = None if node is None else node.file
        if file is None or file.hold or not file.handles - {besides}:
            return
        if any(handle.session for handle in file.handles if handle is not besides):
            return
        request = meta.Open(
            inode, b"", client=self.client, request=self.request_id(), user=User(), hold=True, relaxed=True
        )
        try:
            reply: meta.OpenReply = await self.call(methods.OPEN, request)
        except EmberError as error:
            if error.code not in (Code.STALE, Code.NOT_FOUND):
                raise
            return
        if file.handles and not file.hold:
            file.hold = reply.session
        else:
            close = meta.Close(inode, reply.session, self.request_id(), relaxed=True)
            await self.call(methods.CLOSE, close)

    # The background

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run in the background; `close` waits for it. The coroutine handles its own errors."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def begin(self) -> None:
        self._ticking = self.loop.call_later(TICK_S, self._tick)
        self._kept = [
            keep(self._stay_known, "staying known", end_on=()),
            keep(UnsyncedGuard(self.fs.storage).run, "syncing what is unsynced", end_on=()),
        ]
        self.following.begin()
        self.lock_questions.begin()

    async def _stay_known(self) -> None:
        """Have a connection to the metadata service at all times: it gives up what belongs to a client that has none,
        and a mount that nobody uses for a while makes no calls."""
        while True:
            await asyncio.sleep(STAY_KNOWN_S)
            try:
                await self.fs.metadata.call(methods.PING, Ping(b""), timeout_s=STAY_KNOWN_S)
                self.heard_at = self.loop.time()
            except EmberError as error:
                logger.warning("the metadata service does not answer: %s", error)

    def _tick(self) -> None:
        """Send off what was written long ago, settle files that stay open, drop what is old."""
        tracing.enter(0)
        self._ticking = self.loop.call_later(TICK_S, self._tick)
        now = self.now()
        self.dirty.push_old(now)
        for file in list(self.writing):
            if not file.dirty:
                self.writing.discard(file)
                file.settle_due = 0.0
            elif file.refused_at_ns == file.mtime_ns:
                pass  # nobody wrote since: who closes or syncs it is told
            elif not file.settle_due:
                file.settle_due = now + SETTLE_AGE_S
            elif file.settle_due <= now:
                file.settle_due = FOREVER
                self.spawn(self._settle(file))
        self._bound.look()
        self.nodes.sweep(now)
        if self._known_nodes.passed(len(self.nodes.by_inode)):
            self.nodes.compact()
            heap.give_back()

    async def _settle(self, file: File) -> None:
        """In the background. What is refused for good is tried again when it is written again, closed or synced: then
        somebody is there to be told. Of a file that nobody has open nothing is left to do."""
        newest_ns = file.mtime_ns
        try:
            await file.settle(timeout_s=BACKGROUND_S)
        except EmberError as error:
            if error.retry is not Retry.FINAL:
                logger.warning("settling inode %d: %s; it is tried again", file.inode, error)
                return
            logger.warning("settling inode %d: %s", file.inode, error)
            file.refused_at_ns = newest_ns
            if not file.handles:
                self.writing.discard(file)
        finally:
            file.settle_due = 0.0

    def push_all(self) -> None:
        """Send off everything that is gathered."""
        for back in list(self.dirty.gathering):
            back.push()

    async def quiet(self) -> None:
        """Wait until nothing goes on in the background, for a while: files that are being closed, say."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=QUIET_S)

    async def flush_all(self) -> list[EmberError]:
        """Everything that programs have written is stored and settled. Returns what went wrong."""
        errors: list[EmberError] = []
        turns = asyncio.Semaphore(SETTLING_MAX)

        async def settle(file: File) -> None:
            async with turns:
                try:
                    await file.settle()
                except EmberError as error:
                    errors.append(error)

        self.push_all()
        await run_all([settle(file) for file in self.writing])
        for handle in list(self.handles.files.values()):
            await release_kept(self, handle.file)
        return errors

    def longest_write(self) -> int:
        """Bytes of the longest WRITE."""
        negotiated = self.channel.negotiated
        return 0 if negotiated is None else negotiated.max_write

    async def leave(self) -> None:
        """Another daemon has everything that is open: nothing of it ends here."""
        self.closing = True
        if self._ticking is not None:
            self._ticking.cancel()
        for task in self._kept:
            task.cancel()
        await ended(self._kept)
        await self.following.close()
        await self.lock_questions.close()
        await self.reads.close()
        await ended(list(self._tasks))
        await self.fs.close()

    async def close(self) -> None:
        """Store and settle everything, give up all sessions. The channel has ended before."""
        self.closing = True
        if self._ticking is not None:
            self._ticking.cancel()
        for task in self._kept:
            task.cancel()
        await ended(self._kept)
        await self.following.close()
        await self.lock_questions.close()
        for handle in list(self.handles.files.values()):
            await self.close_handle(handle)
        await self.reads.close()
        await ended(list(self._tasks))
