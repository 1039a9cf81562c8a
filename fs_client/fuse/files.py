"""A file that is open here: what all of its handles share.

Owns the file's length as this mount sees it, its bytes in write-back, what the metadata service is not told yet, and
the errors of background writes.

Length: `ref.length` is the service's, or the end of what was written here, whichever is further; reads end there.

Sessions: a handle opened for writing has one. A flush ends it together with settling the file's length, in one call;
whoever writes again opens another. While any handle has one the file's chunks outlive its last name; a file that is
open without one is given a hold before this mount takes its last name.

Locks: `changing` is held by what must not meet writes on their way: truncate, holes, settling. Who holds it waits for
write-back and the service, never for another file.

Errors of write-back: counted; each handle knows up to which count it was told, so every writer is told once.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fs_client.file_ref import FileRef
from fs_client.fuse.append import Held
from fs_client.fuse.losses import report
from fs_client.fuse.nodes import NEVER, NOT_PROMISED, UNMEASURED, Node
from fs_client.fuse.write_back import Owned, WriteBack
from fs_client.joined_writes import Piece
from fs_client.sync_chains import lost
from fs_client.unsettled import Hint, Unsettled
from fs_client.write_path import LeaseLeft
from fs_common import methods
from fs_common.errors import Code, EmberError, Retry
from fs_common.layout import Durability, Layout
from fs_common.limits import MIB
from fs_common.records import meta

if TYPE_CHECKING:
    from fs_client.fuse.handles import Handle
    from fs_client.fuse.mount import Mount

logger = logging.getLogger(__name__)

BACKGROUND_S = 2.0
"""How long a report in the background may hold `changing`, which programs wait for: where the service cannot take it,
as the file's chain stands still, it would hold them up each time. Much longer than one takes; another try follows."""
SETTLE_AGE_S = 2.0
"""What a file that stays open was written is known to others after about so long."""
KEPT_END = 1 * MIB
"""What is written past the kernel's page cache is kept by the daemon up to here, for who reads a file that was just
made. Copying more would hold up long writes."""
_OWN = meta.User(0, 0, [])
"""Who a session is reopened as: the right to write was checked when the program opened the file."""


class File:
    def __init__(self, mount: "Mount", node: Node, attributes: meta.Attributes, layout: Layout) -> None:
        self._mount = mount
        self.node = node
        self.inode = node.inode
        self.ref = FileRef(self.inode, attributes.length, in_memory(layout))
        self.handles: set[Handle] = set()
        self.unsettled = Unsettled(attributes.truncate_version)
        self.telling: Hint | None = None
        """What the service is being told; until it answers, what it says of the length may be from before."""
        self.version = attributes.version
        """Of the contents, as the service said last."""
        self.back = WriteBack(layout.chunk_size, mount.dirty, mount.pool, self._store, mount.spawn)
        self.mtime_ns = 0
        """Of the newest write that is not settled; 0: none."""
        self.changing = asyncio.Lock()
        self.cuts = 0
        """Truncates and the like that hold `changing` or wait for it: writes and reads go behind them."""
        self.appending = asyncio.Lock()
        """Held by one append at a time, around its lock at the service; `changing` is taken inside it."""
        self.append_lock = Held()
        self.range_owners: set[int] = set()
        """Owners of range locks that were taken here, through any handle."""
        self.ending: set[asyncio.Task[None]] = set()
        """Ends of handles that have locks."""
        self.hold = b""
        """A session that keeps the contents for readers; empty: none."""
        self.error: EmberError | None = None
        """The last error of write-back."""
        self.error_count = 0
        self.lost_bytes = 0
        """Of write-back, that could not be stored and were not reported yet."""
        self.unsynced = mount.fs.storage.unsynced.open(self.inode)
        """What was stored since it was last synced to the daemons' disks; closed with the last handle."""
        self._losses = self.unsynced.losses
        """Those of it that have become errors here."""
        self.names_unsynced = True
        """The file's own record may not be durable: it was made or changed by a relaxed call."""
        self.sparse = False
        """This mount made holes in it."""
        self.settle_due = 0.0
        """Monotonic time at which a background settlement is due; 0: none is."""
        self.refused_at_ns = -1
        """`mtime_ns` when the service refused one for good; -1: it has not."""

    @property
    def length(self) -> int:
        return self.ref.length

    @property
    def chunk_size(self) -> int:
        return self.ref.layout.chunk_size

    @property
    def dirty(self) -> bool:
        """Something was written here that the service does not know, or has not said so."""
        return not self.back.empty or bool(self.unsettled) or self.telling is not None

    def session(self) -> bytes:
        """One of its write sessions; empty: there is none."""
        for handle in self.handles:
            if handle.session:
                return handle.session
        return b""

    async def have_session(self) -> bytes:
        """A write session: another, if a flush has ended the last one. BAD_SESSION: nobody has it open for writing."""
        if not self.session():
            await self._reopen()
        return self.session()

    # Changes that must not meet writes

    @asynccontextmanager
    async def cutting(self) -> AsyncIterator[None]:
        """Holds `changing`, and new reads and writes wait until it is over (`uncut`)."""
        self.cuts += 1
        try:
            async with self.changing:
                yield
        finally:
            self.cuts -= 1

    async def uncut(self) -> None:
        """Wait until no truncate or the like is under way."""
        while self.cuts:
            async with self.changing:
                pass

    # Writing

    def wrote(self, end: int, begin: int = 0) -> None:
        """Bytes up to `end` were taken over. `begin`: where they begin; beyond the length a hole lies before it."""
        self.mtime_ns = time.time_ns()
        self.node.stored_version = UNMEASURED
        if begin - self.ref.length >= self.chunk_size:
            self.has_holes()
        if end > self.ref.length:
            self.ref.length = end
        self._mount.writing.add(self)

    def has_holes(self) -> None:
        self.sparse = True
        self.unsettled.holes()

    async def store_under(self, offset: int, data: Owned, lease_left_s: LeaseLeft) -> None:
        """Store bytes at once, past write-back, and release them; nothing is sent when the lease is over. Errors are
        the handles', as those of write-back."""
        try:
            await self._store([(offset, data.view)], lease_left_s)
        finally:
            data.release()

    async def _store(self, pieces: Sequence[Piece], lease_left_s: LeaseLeft | None = None) -> None:
        """Bytes of write-back, to the daemons."""
        start, end = pieces[0][0], pieces[-1][0] + len(pieces[-1][1])
        stored = False
        try:
            if not self.session():
                await self._reopen()
            writer = self._mount.fs.writer
            if len(pieces) == 1:
                await writer.write(
                    self.ref, start, pieces[0][1], self._acknowledged, patient=True, lease_left_s=lease_left_s
                )
            else:
                await writer.write_pieces(self.ref, pieces, self._acknowledged, patient=True)
            self._mount.progressed()
            stored = True
        except EmberError as error:
            self._failed(error, sum(len(data) for _, data in pieces))
            if error.retry is not Retry.FINAL:
                self._give_up_behind(start)
        except Exception as error:
            logger.exception("storing bytes %d to %d of inode %d", start, end, self.inode)
            self._failed(
                EmberError(Code.INTERNAL, f"{type(error).__name__}: {error}"), sum(len(data) for _, data in pieces)
            )
        except BaseException:
            self._failed(
                EmberError(Code.CANCELLED, "the mount ended before the bytes were stored"),
                sum(len(data) for _, data in pieces),
            )
            raise
        finally:
            # A read that was under way while the bytes were stored may have got those before them.
            self._mount.cache.invalidate(self.inode, self.chunk_size, start, end)
        if stored and end <= KEPT_END:
            self._keep(pieces)

    def _keep(self, pieces: Sequence[Piece]) -> None:
        """What is stored by now stays for who reads it soon, if the kernel has not kept it."""
        if self._mount.policy.strict or not any(handle.direct for handle in self.handles):
            return
        for offset, data in pieces:
            view = memoryview(data)
            while view:
                index, within = divmod(offset, self.chunk_size)
                part = view[: self.chunk_size - within]
                offset += len(part)
                last = offset == self.ref.length
                self._mount.cache.keep(self.inode, index, self.chunk_size, within, part, last=last)
                view = view[len(part) :]

    def _acknowledged(self, end: int) -> None:
        self.unsettled.acknowledged(end, self.mtime_ns or time.time_ns())

    def _give_up_behind(self, offset: int) -> None:
        """A store was tried for as long as one may be. What waits for the same chain would fare no better, each after
        as long again."""
        back = self.back
        stripe = self.ref.layout.stripe
        pieces_of_chunk = self.chunk_size // back.piece_size
        chain = offset // self.chunk_size % stripe
        size, count = back.drop(lambda index: index // pieces_of_chunk % stripe == chain)
        if count:
            self.lost_bytes += size
            logger.debug("inode %d: with it %d writes that waited behind it", self.inode, count)

    def _failed(self, error: EmberError, size: int) -> None:
        if not self.lost_bytes and error.code is not Code.CANCELLED:
            logger.warning("inode %d: what was written cannot be stored: %s", self.inode, error)
        self.lost_bytes += size
        self.unsettled.failed()
        self.error = error
        self.error_count += 1

    def look_for_losses(self) -> None:
        """What daemons are known to have lost before it was synced is an error of write-back like any other."""
        self._mount.fs.storage.unsynced.look(self.unsynced)
        if self._losses != self.unsynced.losses:
            self._losses = self.unsynced.losses
            self.error = lost(f"inode {self.inode}")
            self.error_count += 1
            logger.warning("%s", self.error)

    def lost_before(self, handle: "Handle") -> None:
        """A write was lost under an earlier daemon, and this handle was not told."""
        if not self.error_count:
            self.error = lost(f"inode {self.inode}")
            self.error_count = 1
            for other in self.handles:
                other.error_seen = 1
        handle.error_seen = 0

    def raise_error(self, handle: "Handle") -> None:
        """Tell the handle of errors it was not told of. Raises the last."""
        if handle.error_seen != self.error_count:
            handle.error_seen = self.error_count
            assert self.error is not None
            report(self._mount, self)
            raise EmberError(self.error.code, self.error.message)

    async def _reopen(self) -> None:
        """A session for somebody who writes after a flush ended the last one."""
        async with self._mount.reopening:
            if self.session():
                return
            writer = next((handle for handle in self.handles if handle.writable), None)
            if writer is None:
                # The kernel's last pages come while the last handle is being released.
                raise EmberError(Code.BAD_SESSION, f"inode {self.inode} is not open for writing any more")
            request = meta.Open(
                self.inode,
                b"",
                True,
                self._mount.client,
                self._mount.request_id(),
                _OWN,
                append=writer.append,
                relaxed=True,
            )
            reply: meta.OpenReply = await self._mount.call(methods.OPEN, request)
            writer.session = reply.session

    # Settling

    async def settle(self, *, durable: bool = False, timeout_s: float | None = None) -> None:
        """Everything that was written before this call is stored, and its length and times are known to others.

        `durable`: the record is also on the service's disk. `timeout_s`: of the call. Raises what the service answered;
        errors of the writes are the handles' (`raise_error`).
        """
        await self.back.flush()
        async with self.changing:
            if not self.unsettled and not durable:
                return
            session = self.session()
            if not session:
                if self.unsettled:
                    await self._reopen()
                    session = self.session()
                else:
                    await self._mount.call(methods.SYNC, meta.Sync())
                    self.names_unsynced = False
                    return
            hint = self.telling = self.unsettled.take()
            version_before = self.version
            sent = self._mount.nodes.change(self.inode)
            try:
                request = hint.fsync(self.inode, session, self._mount.request_id(), relaxed=not durable)
                reply: meta.AttributesReply = await self._mount.call(methods.FSYNC, request, timeout_s)
            except BaseException:
                self.unsettled.give_back(hint)
                raise
            finally:
                self.telling = None
            self.adopt_own(reply.attributes, version_before + hint.changes, sent, reply.promised)
            self.names_unsynced = not durable

    async def end_session(self, handle: "Handle") -> None:
        """Settle, and end the handle's session, in one call."""
        await self.back.flush()
        async with self.changing:
            session, handle.session = handle.session, b""
            if not session:
                return
            hint = self.telling = self.unsettled.take()
            version_before = self.version
            sent = self._mount.nodes.change(self.inode)
            try:
                request = hint.close(self.inode, session, self._mount.request_id(), relaxed=True)
                reply: meta.AttributesReply = await self._mount.call(methods.CLOSE, request)
            except BaseException as error:
                self.unsettled.give_back(hint)
                if not (isinstance(error, EmberError) and error.code in (Code.BAD_SESSION, Code.STALE)):
                    handle.session = session
                raise
            finally:
                self.telling = None
            self.adopt_own(reply.attributes, version_before + hint.changes, sent, reply.promised)
            self.names_unsynced = True

    def adopt_own(
        self, attributes: meta.Attributes, own_version: int | None, sent: int | None = None, promised: int = 0
    ) -> None:
        """The service's answer to a change of this mount. `own_version`: of the contents, if nobody else has changed
        them since what was known before; None: not known. `sent`, `promised`: see `Nodes.learn`."""
        self.ref.length = max(self.unsettled.settled(attributes), self._gathered_end())
        if not self.dirty:
            self.mtime_ns = 0
        node = self._mount.nodes.learn(attributes, self._mount.now(), sent, promised=promised)
        if attributes.version == own_version:
            # What is cached of the contents is what they are.
            if node.cached_version == self.version:
                node.cached_version = own_version
            if node.told_version == self.version:
                node.told_version = own_version
            if node.stored_version == self.version:
                node.stored_version = own_version
            self._mount.cache.follow(self.inode, own_version, self.ref.length)
        else:
            # Others' changes are among it. Later opens find this version known, and would drop nothing.
            self._mount.cache.invalidate(self.inode)
        self.version = attributes.version

    def refresh(self, attributes: meta.Attributes) -> None:
        """The service's answer to a question: others may have changed the file."""
        telling = 0 if self.telling is None else self.telling.written_end
        length = max(attributes.length, telling, self.unsettled.written_end, self._gathered_end())
        if length != self.ref.length or attributes.version != self.version:
            self._mount.cache.agree(self.inode, attributes.version, length)
        self.ref.length = length
        self.version = attributes.version

    async def ask(self) -> None:
        """Learn length and version as the service has them now: asked while nothing that changes them is under way
        here, so that no answer of a change can be taken for newer than this one."""
        async with self.changing:
            await self.ask_alone()

    async def ask_alone(self) -> None:
        """`ask` of who holds `changing`."""
        nodes = self._mount.nodes
        stamp = nodes.stamp()
        try:
            reply: meta.AttributesReply = await self._mount.call(methods.STAT, meta.Stat(self.inode, b"", False))
        except EmberError as error:
            if error.code is Code.STALE and self.node.removed:
                return  # nobody else reaches it any more
            raise
        self.refresh(reply.attributes)
        nodes.adopt(reply.attributes, stamp, self._mount.now(), reply.promised)
        if stamp < self.node.changed:
            # Its mode or the like was changed here meanwhile.
            self.node.expires = NEVER
            self.node.promised = NOT_PROMISED

    def _gathered_end(self) -> int:
        return self.back.end

    def shown(self, attributes: meta.Attributes) -> tuple[int, int]:
        """(length, mtime_ns) that programs see."""
        if not self.mtime_ns:
            return attributes.length, attributes.mtime_ns
        return max(attributes.length, self.ref.length), self.mtime_ns


def in_memory(layout: Layout) -> Layout:
    """The layout with the durability of a mount's writes: fsync makes them durable."""
    if layout.durability == Durability.MEMORY:
        return layout
    return Layout(
        layout.chunk_size,
        layout.stripe,
        layout.table,
        layout.table_version,
        layout.first,
        layout.seed,
        Durability.MEMORY,
    )
