"""Writing: byte ranges of files, as updates to chunks, exactly once and in order.

A range is cut at chunk borders. Pieces whose chunks have the same head travel together in frames of about
`FRAME_BYTES`; all frames go side by side, within the client's budget of bytes in flight. The pieces are slices of the
caller's memory: nothing is copied. A small write of a single chunk may share its frame with others (`small_updates`).

Order: updates of one chunk are sent one after another, in the order in which `write` was called. Each piece waits for
the earlier one of its chunk, so waiting never goes in a circle; a frame takes its share of the budget only when none
of its pieces waits any more.

Exactly once: a piece has one update id for all of its tries. It is tried again while the error table allows and the
deadline is not over. If it ends without an answer, what was sent of it may be applied until a later update of the chunk
is acknowledged, and not after that (`channels`).

Time: the deadline is the call's, whatever it waits for; a piece whose time is over before its turn has come is not
sent. What was given away, so that nobody waits for it (`patient`), waits for its turn as long as there is progress: the
time counts from the last update of this client that was stored, and anew from its turn on.

Concurrency: docs/concurrency/client.md.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from crc32c import crc32c

from fs_client.backoff import INTERNAL_TRIES_MAX, Attempts
from fs_client.byte_budget import ByteBudget, OutOfTime
from fs_client.file_ref import FileRef
from fs_client.routing_cache import Route, Server
from fs_client.settle import run_all
from fs_client.small_updates import SMALL_BYTES, NotSent, SmallUpdates
from fs_client.storage_client import SERVER_GONE, StorageClient
from fs_common import tracing
from fs_common.channels import ChannelPool
from fs_common.checksums import page_checksums
from fs_common.errors import Code, EmberError, Retry
from fs_common.layout import split
from fs_common.limits import MIB, UPDATE_ITEMS_MAX
from fs_common.records import scattered
from fs_common.records.storage import UpdateItem, UpdateKind

logger = logging.getLogger(__name__)

FRAME_BYTES = 8 * MIB
"""A frame takes no further piece once it has this much."""
BYTES_IN_FLIGHT = 32 * MIB
"""Of one client: what the daemons may have to hold for it."""

REMOVED_AT_ONCE = 4096
"""Chunks of one removal that are under way together."""
_NOTHING = memoryview(b"")
_ONE_BY_ONE = frozenset({Code.INVALID, Code.CHECKSUM, Code.DISK_FAILED})
"""Refusals of a scattered update that its pieces may not meet: the daemon is older than such updates, or what lies
between the pieces is damaged."""

_ANOTHER_MAY = SERVER_GONE | {Code.CHAIN_BROKEN, Code.REPLICAS_DIFFER, Code.DISK_FAILED}
"""Failures that a chain with other members, or another head, may not have."""

LeaseLeft = Callable[[], float]
"""Seconds of a lease that are left, by the clock of leases."""
Acknowledged = Callable[[int], None]
"""Told the end offset in the file of each piece that is stored."""


class _Piece:
    """One update of one chunk."""

    __slots__ = (
        "channel",
        "checksums",
        "chunk",
        "data",
        "done",
        "end",
        "error",
        "index",
        "kind",
        "left",
        "offset",
        "open_ended",
        "previous",
        "sequence",
        "span",
    )

    def __init__(
        self, index: int, offset: int, data: memoryview, end: int, kind: UpdateKind = UpdateKind.WRITE
    ) -> None:
        self.index = index
        self.kind = kind
        self.offset = offset
        """In the chunk."""
        self.data = data
        self.end = end
        """In the file."""
        self.span = len(data)
        """Bytes that the daemons have to hold for it."""
        self.checksums = b""
        self.chunk = (0, index)
        """Inode, index."""
        self.channel = -1
        """-1: none is taken; it is still waiting for its turn."""
        self.sequence = 0
        self.previous: asyncio.Future[None] | None = None
        """Ends with the earlier update of this chunk."""
        self.done: asyncio.Future[None] | None = None
        """Ends with this one."""
        self.error: EmberError | None = None
        """Of the last try; None: stored, or not tried yet."""
        self.open_ended = False
        """A copy of it, or of an earlier update on its channel, may be under way and be applied."""
        self.left = False
        """It has ended while it waited for an earlier one, and so does `done` when that one ends."""


class Writer:
    """Writes for one client."""

    def __init__(self, storage: StorageClient, client: bytes, timeout_s: float) -> None:
        self._storage = storage
        self._routing = storage.routing
        self._client = client
        self.timeout_s = timeout_s
        self._channels = ChannelPool()
        self._small = SmallUpdates(storage, client)
        self._budget = ByteBudget(BYTES_IN_FLIGHT)
        self.stored_s = 0.0
        """Monotonic time at which an update was acknowledged last."""
        self._last: dict[tuple[int, int], asyncio.Future[None]] = {}
        """By (inode, chunk index): the end of the newest update that is under way or waits."""

    async def write(
        self,
        file: FileRef,
        offset: int,
        data: memoryview,
        acknowledged: Acknowledged,
        *,
        patient: bool = False,
        lease_left_s: LeaseLeft | None = None,
    ) -> None:
        """Store `data` at `offset` of `file`; on return it is stored as the file's durability says.

        `data` belongs to the call until it ends. Raises the first `EmberError`, after all pieces have ended; those
        that were acknowledged are stored, of the others some may be, but for those that the message says were not sent.

        `patient`: its turn may come late, as long as updates of this client are stored. `lease_left_s`:
        nothing is sent any more when the lease under which it is written is over (TIMED_OUT).
        """
        chunk_size = file.layout.chunk_size
        pieces = [
            _Piece(extent.index, extent.offset, data[extent.position : extent.position + extent.length], 0)
            for extent in split(chunk_size, offset, len(data))
        ]
        end = offset
        for piece in pieces:
            end += len(piece.data)
            piece.end = end
        await self._carry_out(file, pieces, acknowledged, _Time(self, patient), lease_left_s)

    async def write_pieces(
        self,
        file: FileRef,
        pieces: Sequence[tuple[int, memoryview]],
        acknowledged: Acknowledged,
        *,
        patient: bool = False,
    ) -> None:
        """Store `pieces`, (offset in the file, bytes), of one chunk, ascending and without overlap, in one update:
        all of them change together. At most `scattered.PIECES_MAX`.

        Updates of the chunk by others may come between the pieces if the daemon refuses to take them together.
        Otherwise as `write`.
        """
        if len(pieces) == 1:
            await self.write(file, *pieces[0], acknowledged, patient=patient)
            return
        index, start = divmod(pieces[0][0], file.layout.chunk_size)
        base = index * file.layout.chunk_size
        payload = memoryview(scattered.pack([(offset - base, data) for offset, data in pieces]))
        end = pieces[-1][0] + len(pieces[-1][1])
        together = _Piece(index, start, payload, end, UpdateKind.SCATTER)
        together.span = max(end - pieces[0][0], len(payload))
        try:
            await self._carry_out(file, [together], acknowledged, _Time(self, patient))
        except EmberError as error:
            if error.code not in _ONE_BY_ONE:
                raise
            logger.info("%d pieces are written one by one: %s", len(pieces), error)
            for offset, data in pieces:
                await self.write(file, offset, data, acknowledged, patient=patient)

    async def remove(self, file: FileRef, indexes: Iterable[int]) -> None:
        """Remove whole chunks, in order with the writes: within the file's length they read as zeros afterwards.

        Errors as `write`.
        """
        pieces = [_Piece(index, 0, _NOTHING, 0, UpdateKind.REMOVE) for index in indexes]
        time_ = _Time(self)
        for start in range(0, len(pieces), REMOVED_AT_ONCE):
            await self._carry_out(file, pieces[start : start + REMOVED_AT_ONCE], lambda _: None, time_)

    async def _carry_out(
        self,
        file: FileRef,
        pieces: list[_Piece],
        acknowledged: Acknowledged,
        time_: "_Time",
        lease_left_s: LeaseLeft | None = None,
    ) -> None:
        if not pieces:
            return
        frames = _frames(pieces, file.layout.stripe)
        self._line_up(file.inode, pieces)
        mine = tracing.begin()
        try:
            await run_all([self._store(file, frame, acknowledged, time_, lease_left_s) for frame in frames])
        finally:
            self._step_out(pieces)
            if mine:
                tracing.end()

    def _line_up(self, inode: int, pieces: list[_Piece]) -> None:
        """Give every piece its place behind the earlier update of its chunk. No await: order is the order of calls."""
        loop = asyncio.get_running_loop()
        last = self._last
        for piece in pieces:
            key = piece.chunk = (inode, piece.index)
            piece.previous = last.get(key)
            piece.done = last[key] = loop.create_future()

    def _step_out(self, pieces: list[_Piece]) -> None:
        """Let the next updates of these chunks go on, whatever became of these; not before the earlier ones, though:
        who leaves while it waits makes its place over to the one before."""
        for piece in pieces:
            done, previous = piece.done, piece.previous
            assert done is not None
            if done.done() or piece.left:
                continue
            if piece.channel < 0 and previous is not None and not previous.done():
                piece.left = True
                previous.add_done_callback(partial(self._end, piece))
                continue
            if piece.channel >= 0:
                self._channels.give_back(piece.chunk, piece.channel, over=not piece.open_ended)
                piece.channel = -1
            self._end(piece)

    def _end(self, piece: _Piece, _: object = None) -> None:
        """The next update of the chunk may go on."""
        done = piece.done
        assert done is not None
        done.set_result(None)
        if self._last.get(piece.chunk) is done:
            del self._last[piece.chunk]

    async def _store(
        self,
        file: FileRef,
        pieces: list[_Piece],
        acknowledged: Acknowledged,
        time_: "_Time",
        lease_left_s: LeaseLeft | None,
    ) -> None:
        """One frame's pieces, through all tries."""
        for piece in pieces:
            previous = piece.previous
            while previous is not None and not previous.done():
                left_s = time_.left_s()
                if left_s > 0:
                    await asyncio.wait([previous], timeout=left_s)
                else:
                    raise self._too_late(file, piece, "an earlier update of the chunk has not ended")
        try:
            async with self._budget.share(sum(piece.span for piece in pieces), time_.left_s):
                attempts = Attempts(self.timeout_s, time_.deadline, lease_left_s)
                if attempts.left_s() <= 0:
                    raise self._too_late(file, pieces[0], "its turn came too late")
                await self._store_now(file, pieces, acknowledged, attempts)
        except OutOfTime:
            raise self._too_late(file, pieces[0], "other updates of this client have not ended") from None

    def _too_late(self, file: FileRef, piece: _Piece, reason: str) -> EmberError:
        text = f"not sent within {self.timeout_s:g} s, as {reason}"
        return _write_error(file, piece, EmberError(Code.TIMED_OUT, text))

    async def _store_now(
        self, file: FileRef, pieces: list[_Piece], acknowledged: Acknowledged, attempts: Attempts
    ) -> None:
        """It is their turn."""
        chunk_size = file.layout.chunk_size
        for piece in pieces:
            if piece.kind is UpdateKind.SCATTER:
                piece.checksums = crc32c(piece.data).to_bytes(4, "little")
            else:
                piece.checksums = page_checksums(piece.data, piece.offset, chunk_size)
            piece.channel, piece.sequence, piece.open_ended = self._channels.take(piece.chunk)
        while True:
            known = self._routing.routing.version
            await self._try(file, pieces, attempts)
            for piece in pieces:
                if piece.error is None:
                    self.stored_s = time.monotonic()
                    acknowledged(piece.end)
            self._step_out([piece for piece in pieces if piece.error is None])
            pieces = [piece for piece in pieces if piece.error is not None]
            if not pieces:
                return
            await self._prepare_retry(file, pieces, attempts, known)

    async def _prepare_retry(self, file: FileRef, pieces: list[_Piece], attempts: Attempts, known: int) -> None:
        """Wait as the errors ask for; raises the error for which there is no retry. `known`: the version of the routing
        with which they were sent."""
        changed = False
        for piece in pieces:
            error = piece.error
            assert error is not None
            hopeless = error.code is Code.INTERNAL and attempts.count + 1 >= INTERNAL_TRIES_MAX
            if error.retry is Retry.FINAL or hopeless:
                raise _write_error(file, piece, error)
            # Who is gone, or cannot reach its successor, is taken from the chain.
            changed = changed or error.retry is Retry.AFTER_REFRESH or error.code in _ANOTHER_MAY
        first = pieces[0].error
        assert first is not None
        again = attempts.after_change(first, self._routing, known) if changed else attempts.again(first)
        if not await again:
            raise _write_error(file, pieces[0], first)
        logger.debug("write of inode %d: %s; trying again", file.inode, first)

    async def _try(self, file: FileRef, pieces: list[_Piece], attempts: Attempts) -> None:
        """Send the pieces to their heads, one frame for each; set each piece's `error`."""
        if attempts.left_s() <= 0:
            for piece in pieces:
                piece.error = EmberError(Code.TIMED_OUT, "not sent again, as its time is over")
            return
        try:
            plan = self._routing.plan(file)
        except EmberError as error:
            for piece in pieces:
                piece.error = error
            return
        heads: dict[Server, list[tuple[_Piece, Route]]] = {}
        for piece in pieces:
            route = plan.route(file.inode, piece.index)
            if route.head is None:
                piece.error = self._routing.lost(route.chain)
            else:
                heads.setdefault(route.head, []).append((piece, route))
        if heads:
            await run_all([self._send(file, head, updates, attempts) for head, updates in heads.items()])

    async def _send(self, file: FileRef, head: Server, updates: list[tuple[_Piece, Route]], attempts: Attempts) -> None:
        layout = file.layout
        items = [
            UpdateItem(
                route.chain,
                route.version,
                file.inode,
                piece.index,
                piece.kind,
                piece.offset,
                len(piece.data),
                layout.chunk_size,
                piece.channel,
                piece.sequence,
                piece.checksums,
                layout.durability,
            )
            for piece, route in updates
        ]
        data = [piece.data for piece, _ in updates]
        left_s = attempts.left_s()
        before = [piece.open_ended for piece, _ in updates]
        for piece, _ in updates:
            piece.open_ended = True
        if len(items) == 1 and len(data[0]) <= SMALL_BYTES:
            try:
                outcomes = [await self._small.send(head, items[0], data[0], left_s)]
            except NotSent:
                updates[0][0].open_ended = before[0]
                reason = f"earlier updates for {head} have not ended"
                updates[0][0].error = EmberError(Code.TIMED_OUT, f"not sent within {self.timeout_s:g} s, as {reason}")
                return
        else:
            outcomes = await self._storage.update(head, self._client, items, data, left_s)
        for (piece, _), outcome, was in zip(updates, outcomes, before, strict=True):
            piece.error = outcome
            if outcome is None:
                piece.open_ended = False
            elif outcome.retry is not Retry.MAYBE_APPLIED:
                piece.open_ended = was


def _frames(pieces: list[_Piece], stripe: int) -> list[list[_Piece]]:
    """Pieces whose chunks are on the same chain, and so have the same head, in frames of a bounded size."""
    frames: list[list[_Piece]] = []
    filling: dict[int, list[_Piece]] = {}
    sizes: dict[int, int] = {}
    for piece in pieces:
        chain = piece.index % stripe
        frame = filling.get(chain)
        if frame is None:
            frame = filling[chain] = []
            frames.append(frame)
            sizes[chain] = 0
        frame.append(piece)
        sizes[chain] += len(piece.data)
        if sizes[chain] >= FRAME_BYTES or len(frame) >= UPDATE_ITEMS_MAX:
            del filling[chain]
    return frames


class _Time:
    """How long one call may wait."""

    __slots__ = ("_began", "_patient", "_writer")

    def __init__(self, writer: Writer, patient: bool = False) -> None:
        self._writer = writer
        self._patient = patient
        self._began = time.monotonic()

    def left_s(self) -> float:
        """For its turn."""
        writer = self._writer
        since = max(self._began, writer.stored_s) if self._patient else self._began
        return since + writer.timeout_s - time.monotonic()

    @property
    def deadline(self) -> float | None:
        """For the daemons; None: it is set when the turn comes."""
        return None if self._patient else self._began + self._writer.timeout_s


def _write_error(file: FileRef, piece: _Piece, error: EmberError) -> EmberError:
    text = f"chunk {piece.index} of inode {file.inode}, {len(piece.data)} bytes at {piece.offset}: {error.message}"
    return EmberError(error.code, text)
