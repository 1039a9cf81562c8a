"""Writing: byte ranges of files, as updates to chunks, exactly once and in order.

A range is cut at chunk borders. Pieces whose chunks have the same head travel together in frames of about
`FRAME_BYTES`; all frames go side by side, within the client's budget of bytes in flight. The pieces are slices of the
caller's memory: nothing is copied. A small write of a single chunk may share its frame with others (`small_updates`).

Order: updates of one chunk are sent one after another, in the order in which `write` was called. Each piece waits for
the earlier one of its chunk, so waiting never goes in a circle; a frame takes its share of the budget only when none
of its pieces waits any more.

Exactly once: a piece has one update id for all of its tries. It is tried again while the error table allows and the
deadline is not over.

Concurrency: docs/concurrency/client.md. Source: DESIGN sections 7 and 8.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from crc32c import crc32c

from fs_client.backoff import INTERNAL_TRIES_MAX, Attempts
from fs_client.byte_budget import ByteBudget
from fs_client.channels import ChannelPool
from fs_client.file_ref import FileRef
from fs_client.read_plan import nobody_serves
from fs_client.routing_cache import Route, Server
from fs_client.settle import run_all
from fs_client.small_updates import SMALL_BYTES, SmallUpdates
from fs_client.storage_client import SERVER_GONE, StorageClient
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

Acknowledged = Callable[[int], None]
"""Told the end offset in the file of each piece that is stored."""


class _Piece:
    """One update of one chunk."""

    __slots__ = (
        "channel",
        "checksums",
        "data",
        "done",
        "end",
        "error",
        "index",
        "kind",
        "offset",
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
        self.channel = -1
        """-1: none is taken."""
        self.sequence = 0
        self.previous: asyncio.Future[None] | None = None
        """Ends with the earlier update of this chunk."""
        self.done: asyncio.Future[None] | None = None
        """Ends with this one."""
        self.error: EmberError | None = None
        """Of the last try; None: stored, or not tried yet."""


class Writer:
    """Writes for one client."""

    def __init__(self, storage: StorageClient, client: bytes, timeout_s: float) -> None:
        self._storage = storage
        self._routing = storage.routing
        self._client = client
        self._timeout_s = timeout_s
        self._channels = ChannelPool()
        self._small = SmallUpdates(storage, client)
        self._budget = ByteBudget(BYTES_IN_FLIGHT)
        self._last: dict[tuple[int, int], asyncio.Future[None]] = {}
        """By (inode, chunk index): the end of the newest update that is under way or waits."""

    async def write(self, file: FileRef, offset: int, data: memoryview, acknowledged: Acknowledged) -> None:
        """Store `data` at `offset` of `file`; on return it is stored as the file's durability says.

        `data` belongs to the call until it ends. Raises the first `EmberError`, after all pieces have ended; those
        that were acknowledged are stored, of the others some may be.
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
        await self._carry_out(file, pieces, acknowledged)

    async def write_pieces(
        self, file: FileRef, pieces: Sequence[tuple[int, memoryview]], acknowledged: Acknowledged
    ) -> None:
        """Store `pieces`, (offset in the file, bytes), of one chunk, ascending and without overlap, in one update:
        all of them change together. At most `scattered.PIECES_MAX`.

        Updates of the chunk by others may come between the pieces if the daemon refuses to take them together.
        Otherwise as `write`.
        """
        if len(pieces) == 1:
            await self.write(file, *pieces[0], acknowledged)
            return
        index, start = divmod(pieces[0][0], file.layout.chunk_size)
        base = index * file.layout.chunk_size
        payload = memoryview(scattered.pack([(offset - base, data) for offset, data in pieces]))
        end = pieces[-1][0] + len(pieces[-1][1])
        together = _Piece(index, start, payload, end, UpdateKind.SCATTER)
        together.span = max(end - pieces[0][0], len(payload))
        try:
            await self._carry_out(file, [together], acknowledged)
        except EmberError as error:
            if error.code not in _ONE_BY_ONE:
                raise
            logger.info("%d pieces are written one by one: %s", len(pieces), error)
            for offset, data in pieces:
                await self.write(file, offset, data, acknowledged)

    async def remove(self, file: FileRef, indexes: Iterable[int]) -> None:
        """Remove whole chunks, in order with the writes: within the file's length they read as zeros afterwards.

        Errors as `write`.
        """
        pieces = [_Piece(index, 0, _NOTHING, 0, UpdateKind.REMOVE) for index in indexes]
        for start in range(0, len(pieces), REMOVED_AT_ONCE):
            await self._carry_out(file, pieces[start : start + REMOVED_AT_ONCE], lambda _: None)

    async def _carry_out(self, file: FileRef, pieces: list[_Piece], acknowledged: Acknowledged) -> None:
        if not pieces:
            return
        frames = _frames(pieces, file.layout.stripe)
        self._line_up(file.inode, pieces)
        try:
            await run_all([self._store(file, frame, acknowledged) for frame in frames])
        finally:
            self._step_out(file.inode, pieces)

    def _line_up(self, inode: int, pieces: list[_Piece]) -> None:
        """Give every piece its place behind the earlier update of its chunk. No await: order is the order of calls."""
        loop = asyncio.get_running_loop()
        last = self._last
        for piece in pieces:
            key = (inode, piece.index)
            piece.previous = last.get(key)
            piece.done = last[key] = loop.create_future()

    def _step_out(self, inode: int, pieces: list[_Piece]) -> None:
        """Let the next updates of these chunks go on, whatever became of these."""
        for piece in pieces:
            done = piece.done
            assert done is not None
            if not done.done():
                done.set_result(None)
            key = (inode, piece.index)
            if self._last.get(key) is done:
                del self._last[key]
            if piece.channel >= 0:
                self._channels.give_back(piece.channel)
                piece.channel = -1

    async def _store(self, file: FileRef, pieces: list[_Piece], acknowledged: Acknowledged) -> None:
        """One frame's pieces, through all tries."""
        for piece in pieces:
            if piece.previous is not None and not piece.previous.done():
                await asyncio.wait([piece.previous])
        async with self._budget.share(sum(piece.span for piece in pieces)):
            # From here on: who waits for others that make progress has not begun to wait for the daemons.
            attempts = Attempts(self._timeout_s)
            chunk_size = file.layout.chunk_size
            for piece in pieces:
                if piece.kind is UpdateKind.SCATTER:
                    piece.checksums = crc32c(piece.data).to_bytes(4, "little")
                else:
                    piece.checksums = page_checksums(piece.data, piece.offset, chunk_size)
                piece.channel, piece.sequence = self._channels.take()
            while True:
                await self._try(file, pieces, attempts)
                for piece in pieces:
                    if piece.error is None:
                        acknowledged(piece.end)
                self._step_out(file.inode, [piece for piece in pieces if piece.error is None])
                pieces = [piece for piece in pieces if piece.error is not None]
                if not pieces:
                    return
                await self._prepare_retry(file, pieces, attempts)

    async def _prepare_retry(self, file: FileRef, pieces: list[_Piece], attempts: Attempts) -> None:
        """Wait and refresh as the errors ask for; raises the error for which there is no retry."""
        refresh = False
        for piece in pieces:
            error = piece.error
            assert error is not None
            hopeless = error.code is Code.INTERNAL and attempts.count + 1 >= INTERNAL_TRIES_MAX
            if error.retry is Retry.FINAL or hopeless:
                raise _write_error(file, piece, error)
            # A head that is gone may have a successor by now.
            refresh = refresh or error.retry is not Retry.SAFE or error.code in SERVER_GONE
        first = pieces[0].error
        assert first is not None
        known = self._routing.routing.version
        if not await attempts.again(first):
            raise _write_error(file, pieces[0], first)
        if refresh:
            await self._routing.refresh_if_possible(known, attempts.left_s())
        logger.debug("write of inode %d: %s; trying again", file.inode, first)

    async def _try(self, file: FileRef, pieces: list[_Piece], attempts: Attempts) -> None:
        """Send the pieces to their heads, one frame for each; set each piece's `error`."""
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
                piece.error = nobody_serves(route.chain)
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
        if len(items) == 1 and len(data[0]) <= SMALL_BYTES:
            outcomes = [await self._small.send(head, items[0], data[0], left_s)]
        else:
            outcomes = await self._storage.update(head, self._client, items, data, left_s)
        for (piece, _), outcome in zip(updates, outcomes, strict=True):
            piece.error = outcome


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


def _write_error(file: FileRef, piece: _Piece, error: EmberError) -> EmberError:
    text = f"chunk {piece.index} of inode {file.inode}, {len(piece.data)} bytes at {piece.offset}: {error.message}"
    return EmberError(error.code, text)
