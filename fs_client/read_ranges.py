"""Reading: many ranges of many files, in as few frames as there are servers.

The frames of a plan (`read_plan.py`) are sent side by side, a few at a time to each server. Bytes land in the caller's
buffer, and every byte is verified against the checksums that came with it. What fails is tried again in rounds: at
another replica first, after a routing refresh where the error asks for one, until the deadline. A replica that sent
damaged bytes is told, and repairs itself; a chunk that no replica gives undamaged is an error. One that is missing is a
hole if the file is known to be kept (`kept_files.py`), by what was known before or by one question for all that are
missing in a round; if it is not, the error is STALE.

Invariants: the buffer is touched only while `read` runs. `Server.outstanding` is the bytes of planned frames that are
not finished.

Concurrency: docs/concurrency/client.md.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from crc32c import crc32c

from fs_client.backoff import Attempts
from fs_client.flights import LOOK_S
from fs_client.kept_files import KeptFiles, removed
from fs_client.memory import allocate
from fs_client.read_plan import (
    QUIET_LOOKS,
    QUIET_LOOKS_MAX,
    Elsewhere,
    Frame,
    Piece,
    RefRange,
    elsewhere,
    overdue,
    plan_again,
    plan_ranges,
    replicas_of,
)
from fs_client.routing_cache import SLOW_S, Server
from fs_client.settle import ended, run_all
from fs_client.storage_client import READ_TRY_S, SERVER_GONE, StorageClient
from fs_common import checksums, tracing
from fs_common.errors import Code, EmberError, Retry, code_of
from fs_common.lasting import Lasting, anybody_keeps, passing
from fs_common.limits import MIB, READ_ITEMS_MAX
from fs_common.methods import READ_CHUNKS, SUSPECT_CHUNKS
from fs_common.records.scrubbing import SuspectChunk, SuspectChunks
from fs_common.records.storage import ItemError, ReadChunks, ReadChunksReply

FRAMES_IN_FLIGHT = 4
"""For each server and call: enough that it reads while we receive and verify."""
DAMAGED_TRIES = 2
"""How often each replica is read before a chunk counts as damaged. More than once, because a chunk that is changed in
place while it is sent shows as damaged too."""
NEWS_S = 0.02
"""How long newer routing is waited for where another replica may answer under the one that is known."""
_DAMAGED = frozenset({Code.CHECKSUM, Code.DISK_FAILED, Code.INTERNAL})
"""Failures of one replica's copy; time does not mend them."""
TELL_S = 1.0
"""For telling a replica of damage: it answers without looking."""
_ZEROS = bytes(MIB)


class RangeError(EmberError):
    """A range could not be read. `number`: which one of the call."""

    number: int = -1


RangeEnded = Callable[[int, EmberError | None], None]
"""Number of a range, and why it failed if it did."""
Spawn = Callable[[Coroutine[Any, Any, None]], object]
_NOWHERE = memoryview(b"")


class RangeReader:
    """Reads for one client. Stateless between calls but for its servers' load."""

    def __init__(self, storage: StorageClient, kept: KeptFiles, timeout_s: float) -> None:
        self._storage = storage
        self._kept = kept
        self._routing = storage.routing
        self._timeout_s = timeout_s

    async def read(self, ranges: Sequence[RefRange], into: memoryview | None = None) -> list[memoryview]:
        """Read ranges; `into`, if given, is a writable view of bytes. See `AsyncFileSystem.read_ranges`.

        Raises `RangeError` for the first range that cannot be read, after all others have ended; ValueError.
        """
        attempts = Attempts(self._timeout_s)
        if into is None:
            ranges = [(file, offset, min(length, max(file.length - offset, 0))) for file, offset, length in ranges]
            into = allocate(sum(max(length, 0) for _, _, length in ranges))
        mine = tracing.begin()
        lent: Lasting | None = None
        try:
            while True:
                known = self._routing.routing.version
                try:
                    frames, failed, results = plan_ranges(self._routing, ranges, into)
                    break
                except EmberError as error:
                    if not await attempts.after_change(error, self._routing, known):
                        raise
            if len(frames) > 1 and anybody_keeps():
                lent = passing(into[: sum(map(itemgetter(2), ranges))])
            await self._fetch_all(frames, failed, ranges, attempts)
            while failed:
                failed, known = await self._try_again(failed, ranges, attempts, known)
            return results
        finally:
            if lent is not None:
                lent.close()
            if mine:
                tracing.end()

    def start(self, ranges: Sequence[RefRange], places: Sequence[memoryview], ended: RangeEnded, spawn: Spawn) -> None:
        """Read ranges into places of their own, in as few frames as there are servers, and report each by itself.

        `ended(number, error)` is called for each range, once, as soon as all of it is there or there is no hope for
        it; until then its place belongs to the call. Ranges must not be empty and must end within their files. `spawn`
        makes tasks, which the caller waits for at the end. Raises what `plan_ranges` does; then nothing was begun.
        """
        frames, unserved, _ = plan_ranges(self._routing, ranges, _NOWHERE, places)
        _Batch(self, ranges, places, ended, spawn).start(frames, unserved)

    async def _try_again(
        self, failed: list[Piece], ranges: Sequence[RefRange], attempts: Attempts, known: int
    ) -> tuple[list[Piece], int]:
        """One more round. Returns what failed in it, and the version of the routing with which it was planned; `known`:
        that of the round before. Raises `RangeError` if there is no hope for a piece."""
        failed.sort(key=lambda piece: piece.number)
        if any(piece.error.code is Code.CHUNK_NOT_FOUND for piece in failed):
            failed = await self._tell_holes(failed, attempts)
            if not failed:
                return failed, known
        if any(piece.damaged_at is not None for piece in failed):
            await self._tell_damaged(failed, attempts)
        elsewhere = True
        refresh = False
        for piece in failed:
            replicas = replicas_of(self._routing, piece)
            if piece.error.retry is Retry.FINAL or piece.damaged >= DAMAGED_TRIES * max(len(replicas), 1):
                raise _range_error(piece)
            elsewhere = elsewhere and any(server not in piece.tried for server in replicas)
            refresh = refresh or piece.error.retry is Retry.AFTER_REFRESH
        first = failed[0].error
        if elsewhere:
            again = await attempts.again(first, at_once=True)
            if again and refresh:
                await self._routing.newer(known, min(NEWS_S, attempts.left_s()))
        else:
            again = await attempts.after_change(first, self._routing, known)
        if not again:
            raise _range_error(failed[0])
        known = self._routing.routing.version
        frames, unserved = plan_again(self._routing, failed)
        await self._fetch_all(frames, unserved, ranges, attempts)
        return unserved, known

    async def _tell_damaged(self, failed: list[Piece], attempts: Attempts) -> None:
        """Tell replicas of chunks whose bytes did not match, once each: they cannot know of pages that they send whole.
        Whether they heard it makes no difference here."""
        told: dict[Server, list[SuspectChunk]] = {}
        for piece in failed:
            if piece.damaged_at is not None:
                suspects = told.setdefault(piece.damaged_at, [])
                suspects.append(SuspectChunk(piece.item.chain, piece.item.inode, piece.item.index))
                piece.damaged_at = None
        left_s = min(attempts.left_s(), TELL_S)
        await run_all([self._tell(server, suspects, left_s) for server, suspects in told.items()])

    async def _tell(self, server: Server, suspects: list[SuspectChunk], left_s: float) -> None:
        request = SuspectChunks(suspects[:READ_ITEMS_MAX])
        # A daemon of an earlier release does not know the request.
        with contextlib.suppress(EmberError):
            await self._storage.call(server, SUSPECT_CHUNKS, request, size=0, try_s=left_s, left_s=left_s)

    async def _tell_holes(self, failed: list[Piece], attempts: Attempts) -> list[Piece]:
        """Make zeros of the missing pieces that are holes. Returns what is left; of files that are gone with STALE."""
        missing = [piece for piece in failed if piece.error.code is Code.CHUNK_NOT_FOUND]
        try:
            gone = await self._kept.ask((piece.item.inode for piece in missing), attempts.left_s())
        except EmberError as error:
            missing[0].error = error
            raise _range_error(missing[0]) from error
        left = []
        for piece in failed:
            if piece.error.code is Code.CHUNK_NOT_FOUND:
                if piece.item.inode in gone:
                    piece.error = removed()
                elif piece.file.holes:
                    _fill(piece.view, 0)
                    continue
            left.append(piece)
        return left

    async def _fetch_all(
        self, frames: list[Frame], failed: list[Piece], ranges: Sequence[RefRange], attempts: Attempts
    ) -> None:
        """Send all frames, a few at a time to each server; add what fails to `failed`."""
        lanes: list[list[Frame]] = []
        if len(frames) == 1:
            lanes.append(frames)
        else:
            of_servers: dict[Server, list[list[Frame]]] = {}
            for frame in frames:
                of_server = of_servers.setdefault(frame.server, [])
                if len(of_server) < FRAMES_IN_FLIGHT:
                    of_server.append([])
                    lanes.append(of_server[-1])
                lane = min(of_server, key=len)
                lane.append(frame)
        for frame in frames:
            frame.server.outstanding += frame.size
        try:
            await run_all([self._fetch(lane, failed, ranges, attempts) for lane in lanes])
        finally:
            for frame in frames:
                frame.server.outstanding -= frame.size

    async def _fetch(
        self, lane: list[Frame], failed: list[Piece], ranges: Sequence[RefRange], attempts: Attempts
    ) -> None:
        """Send frames to one server, one after another. After a sign that it is gone the rest fails unsent."""
        gone: EmberError | None = None
        stalled = partial(self._hedge, ranges, attempts)
        for frame in lane:
            if gone is not None:
                _add_all(failed, frame, ranges, gone)
            else:
                server = frame.server
                frame.stalled = stalled
                frame.quiet_max = QUIET_LOOKS if server.latency_s < SLOW_S else _quiet_looks(server)
                began = time.monotonic()
                try:
                    reply: ReadChunksReply = await self._storage.call(
                        server,
                        READ_CHUNKS,
                        ReadChunks(frame.items),
                        into=frame.views,
                        size=frame.size,
                        try_s=READ_TRY_S,
                        left_s=attempts.left_s(),
                        flight=frame,
                    )
                except EmberError as error:
                    if error.code in SERVER_GONE:
                        gone = error
                    answer = None if frame.hedge is None else await self._answer(frame)
                    if answer is None:
                        _add_all(failed, frame, ranges, error)
                    else:
                        _take(answer, frame, failed, ranges)
                except BaseException:
                    await self._let_go(frame)
                    raise
                else:
                    self._routing.answered(server, time.monotonic() - began)
                    if frame.hedge is not None:
                        await self._let_go(frame)
                    _verify(frame, reply, failed, ranges, self._kept)
            frame.server.outstanding -= frame.size
            frame.size = 0

    # Hedged reads: an answer that is overdue is asked for elsewhere as well. The second answer goes into memory of its
    # own, and only what has come first reaches the caller's: when the call to the first server is over.

    def _hedge(self, ranges: Sequence[RefRange], attempts: Attempts, frame: Frame) -> None:
        pieces = elsewhere(self._routing, frame, ranges, time.monotonic())
        if pieces is None:
            return
        self._routing.suspect(frame.server)
        frame.hedge = asyncio.get_running_loop().create_task(self._ask_elsewhere(pieces, ranges, attempts))
        frame.hedge.add_done_callback(partial(_hedge_ended, frame))

    async def _ask_elsewhere(
        self, pieces: list[Piece], ranges: Sequence[RefRange], attempts: Attempts
    ) -> Elsewhere | None:
        """None: others have no answer, either."""
        frames, failed = plan_again(self._routing, pieces)
        await self._fetch_all(frames, failed, ranges, attempts)
        missing = {}
        for piece in failed:
            if piece.error.code is not Code.CHUNK_NOT_FOUND:
                return None
            missing[pieces.index(piece)] = piece.error
        return Elsewhere([piece.view for piece in pieces], missing)

    @staticmethod
    async def _answer(frame: Frame) -> Elsewhere | None:
        """What others have answered, who were asked when the answer of the first was overdue, and that one failed."""
        hedge = frame.hedge
        assert hedge is not None
        try:
            await asyncio.wait([hedge])
        finally:
            if not hedge.done():
                hedge.cancel()
                await ended([hedge])
        return hedge.result()

    @staticmethod
    async def _let_go(frame: Frame) -> None:
        """Nobody wants the others' answer any more."""
        if frame.hedge is not None:
            frame.hedge.cancel()
            await ended([frame.hedge])


class _Batch:
    """Ranges of one `start`. A range is reported when the last frame with a piece of it has ended; one with a piece
    that failed is first read again by itself, with all the tries that `read` makes."""

    __slots__ = ("_ended", "_failed", "_left", "_places", "_ranges", "_reader", "_spawn")

    def __init__(
        self,
        reader: RangeReader,
        ranges: Sequence[RefRange],
        places: Sequence[memoryview],
        ended: RangeEnded,
        spawn: Spawn,
    ) -> None:
        self._reader = reader
        self._ranges = ranges
        self._places = places
        self._ended = ended
        self._spawn = spawn
        self._left = [0] * len(ranges)
        """Frames that still have a piece of this range."""
        self._failed: set[int] = set()

    def start(self, frames: list[Frame], unserved: list[Piece]) -> None:
        left = self._left
        for piece in unserved:
            self._failed.add(piece.number)
        for frame in frames:
            frame.server.outstanding += frame.size
            for number in set(frame.numbers):
                left[number] += 1
        for number in [number for number in self._failed if not left[number]]:
            self._spawn(self._again(number))
        for frame in frames:
            self._spawn(self._fetch(frame))

    async def _fetch(self, frame: Frame) -> None:
        failed: list[Piece] = []
        ranges = self._ranges
        try:
            await self._reader._fetch([frame], failed, ranges, Attempts(self._reader._timeout_s))
        except BaseException as error:
            # Nobody waits for the bytes any more, or a defect: no further try.
            given_up = EmberError(Code.CANCELLED, f"the read was given up: {error!r}")
            for number in self._finished(frame):
                self._ended(number, given_up)
            raise
        finally:
            frame.server.outstanding -= frame.size
        for piece in failed:
            self._failed.add(piece.number)
        for number in self._finished(frame):
            if number in self._failed:
                self._spawn(self._again(number))
            else:
                self._ended(number, None)

    def _finished(self, frame: Frame) -> list[int]:
        """The frame has ended: of which ranges was it the last?"""
        left = self._left
        numbers = frame.numbers if len(frame.numbers) == 1 else set(frame.numbers)
        finished = []
        for number in numbers:
            left[number] -= 1
            if not left[number]:
                finished.append(number)
        return finished

    async def _again(self, number: int) -> None:
        try:
            await self._reader.read([self._ranges[number]], self._places[number])
        except EmberError as error:
            self._ended(number, error)
        except BaseException as error:
            self._ended(number, EmberError(Code.CANCELLED, f"reading ended: {error!r}"))
            raise
        else:
            self._ended(number, None)


def _hedge_ended(frame: Frame, hedge: "asyncio.Task[Elsewhere | None]") -> None:
    """Others have answered: the first server is not waited for any more."""
    if not hedge.cancelled() and hedge.exception() is None and hedge.result() is not None:
        frame.abandon(overdue(frame.server))


def _take(answer: Elsewhere, frame: Frame, failed: list[Piece], ranges: Sequence[RefRange]) -> None:
    """Put what others have answered where the caller wants it. The bytes were verified when they came."""
    for place, (view, found) in enumerate(zip(frame.views, answer.views, strict=True)):
        error = answer.missing.get(place)
        if error is None:
            view[:] = found
        else:
            _add(failed, frame, place, ranges, error)


def _quiet_looks(server: Server) -> int:
    return min(max(QUIET_LOOKS, int(4 * server.latency_s / LOOK_S)), QUIET_LOOKS_MAX)


def _verify(
    frame: Frame, reply: ReadChunksReply, failed: list[Piece], ranges: Sequence[RefRange], kept: KeptFiles
) -> None:
    """Check every byte of an answer, make holes zero, add what is damaged or missing to `failed`."""
    if not len(frame.items) == len(reply.lengths) == len(reply.checksums):
        error = EmberError(Code.BAD_BODY, f"{frame.server} answered {len(reply.lengths)} of {len(frame.items)} reads")
        _add_all(failed, frame, ranges, error)
        return
    errors = {error.index: error for error in reply.errors}
    answers = zip(frame.views, reply.lengths, reply.checksums, strict=True)
    for place, (view, length, checksum) in enumerate(answers):
        if length != len(view) or len(checksum) != 4 or crc32c(view).to_bytes(4, "little") != checksum:
            file = frame.pieces[place].file if frame.pieces else ranges[frame.numbers[place]][0]
            problem = _settle_piece(frame, place, length, checksum, errors.get(place), file.holes, kept)
            if problem is not None:
                piece = _add(failed, frame, place, ranges, problem)
                if problem.code is Code.CHECKSUM and place not in errors:
                    piece.damaged_at = frame.server


def _settle_piece(
    frame: Frame, place: int, length: int, checksum: bytes, error: ItemError | None, holes: bool, kept: KeptFiles
) -> EmberError | None:
    """A piece that is not simply complete under one checksum: short, a hole, of several pages, or failed."""
    view = frame.views[place]
    item = frame.items[place]
    if error is not None:
        if error.code != Code.CHUNK_NOT_FOUND.value.number:
            return EmberError(code_of(error.code), f"{frame.server}: {error.message}")
        if holes and not kept.is_kept(item.inode):
            return EmberError(Code.CHUNK_NOT_FOUND, "a hole, unless the file was removed")
        length = 0
    elif length and not checksums.matches(view[:length], item.offset, item.chunk_size, checksum):
        return EmberError(Code.CHECKSUM, f"{frame.server} sent bytes that do not match their checksum")
    # Inside the length of a file that is kept a missing chunk is a hole, and so is the missing end of one that is
    # there: with their file chunks go as wholes.
    if length < len(view) and not holes:
        missing = (
            f"{len(view) - length} of {len(view)} bytes are missing: the file was cut, removed or never written there"
        )
        return EmberError(Code.CHUNK_NOT_FOUND, missing)
    _fill(view, length)
    return None


def _fill(view: memoryview, start: int) -> None:
    """Zeros from there on."""
    while start < len(view):
        end = min(len(view), start + len(_ZEROS))
        view[start:end] = _ZEROS[: end - start]
        start = end


def _add_all(failed: list[Piece], frame: Frame, ranges: Sequence[RefRange], error: EmberError) -> None:
    for place in range(len(frame.items)):
        _add(failed, frame, place, ranges, error)


def _add(failed: list[Piece], frame: Frame, place: int, ranges: Sequence[RefRange], error: EmberError) -> Piece:
    if frame.pieces:
        piece = frame.pieces[place]
        piece.error = error
    else:
        number = frame.numbers[place]
        piece = Piece(number, ranges[number][0], frame.items[place], frame.views[place], error)
        piece.tried.add(frame.server)
    if error.code in _DAMAGED:
        piece.damaged += 1
    failed.append(piece)
    return piece


def _range_error(piece: Piece) -> RangeError:
    item = piece.item
    where = f"chunk {item.index} of inode {item.inode}, {item.length} bytes from {item.offset}"
    error = RangeError(piece.error.code, f"range {piece.number} ({where}): {piece.error.message}")
    error.number = piece.number
    return error
