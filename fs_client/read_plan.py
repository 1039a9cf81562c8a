"""Which server is asked for which piece of which range.

Ranges are cut at chunk borders. Each piece goes to the replica that its file's plan names, unless that server has much
more to do than another replica, or a frame with few small pieces goes to another replica anyway: one of its own would
cost more than the piece. Pieces for one server are collected in frames.

Nothing here sends anything. `plan_ranges` runs once for each small read, so it is flat: it costs 0.55 us a range.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fs_client.file_ref import FileRef
from fs_client.flights import Flight
from fs_client.memory import allocate
from fs_client.routing_cache import RoutingCache, Server
from fs_common.errors import Code, EmberError
from fs_common.limits import KIB, MIB, READ_ITEMS_MAX
from fs_common.records.storage import ReadItem

FRAME_BYTES = 2 * MIB
"""A frame takes no further piece once it has this much, so that server, network and verification work side by side."""
IMBALANCE_BYTES = 16 * MIB
"""How much more than the least loaded server the planned replica of a chunk may have to do."""

FEW_ITEMS = 8
FEW_BYTES = 64 * KIB
"""Up to here a frame takes pieces that another server would be asked for."""

QUIET_LOOKS = 5
"""A replica of which nothing has come for so many looks (`flights.LOOK_S`) is not waited for alone."""
QUIET_LOOKS_MAX = 15
"""The same for one that is slow as a rule: four times what it takes, but no more than this."""
LATE_LOOKS = 20
"""A replica that answers others meanwhile is not waited for alone longer than this,"""
LATE_LOOK_BYTES = MIB
"""and a look more for so many bytes that it has to send to this client."""

RefRange = tuple[FileRef, int, int]
"""File, offset, length."""


class Elsewhere(NamedTuple):
    """What other replicas have answered to a frame's pieces, in memory of its own."""

    views: list[memoryview]
    """One for each piece."""
    missing: dict[int, EmberError]
    """By place: pieces of which there is no chunk."""


class Piece:
    """A piece that has failed at least once, with what was tried."""

    __slots__ = ("damaged", "damaged_at", "error", "file", "item", "number", "tried", "view")

    def __init__(self, number: int, file: FileRef, item: ReadItem, view: memoryview, error: EmberError) -> None:
        self.number = number
        """Which range it is of."""
        self.file = file
        self.item = item
        self.view = view
        """Its place in the caller's buffer."""
        self.error = error
        """Of the last try."""
        self.tried: set[Server] = set()
        """Replicas asked since all of them had been."""
        self.damaged = 0
        """Tries that the replica itself failed: bytes that do not match their checksums, a broken disk, a bug."""
        self.damaged_at: Server | None = None
        """Who has sent bytes that do not match their checksums, and has not been told yet."""


class Frame(Flight):
    """Pieces for one server, column by column; and the call with which they are asked for."""

    __slots__ = ("hedge", "items", "numbers", "pieces", "quiet_max", "size", "stalled", "views")

    def __init__(self, server: Server) -> None:
        self.abandoned = None
        self.waits_for = None
        self.server = server
        self.looks = 0
        self.quiet = 0
        self.quiet_max = QUIET_LOOKS
        """So many looks without a sign of life are too many."""
        self.stalled: Callable[[Frame], None] | None = None
        """Called when its answer is overdue, at each look, until there is a hedge."""
        self.hedge: asyncio.Task[Elsewhere | None] | None = None
        """Asks other replicas for the same."""
        self.items: list[ReadItem] = []
        self.views: list[memoryview] = []
        self.numbers: list[int] = []
        """Which range each piece is of."""
        self.pieces: list[Piece] = []
        """The same pieces, in a frame of a later try; empty in one of the first."""
        self.size = 0
        """Bytes wanted, of all pieces."""

    def looked_at(self) -> None:
        if self.hedge is not None or self.stalled is None:
            return
        late = self.looks >= LATE_LOOKS and self.looks >= LATE_LOOKS + self.server.outstanding // LATE_LOOK_BYTES
        if late or self.quiet >= self.quiet_max:
            self.stalled(self)

    @property
    def full(self) -> bool:
        return self.size >= FRAME_BYTES or len(self.items) >= READ_ITEMS_MAX


def plan_ranges(
    routing: RoutingCache,
    ranges: Sequence[RefRange],
    into: memoryview,
    places: Sequence[memoryview] | None = None,
) -> tuple[list[Frame], list[Piece], list[memoryview]]:
    """Frames to send; pieces that no server can be asked for; the view of each range, cut to its real length.

    The ranges lie one after another in `into`, or, with `places`, each in a place of its own of at least its length.
    Raises ValueError for a range that is negative or does not fit `into`; CHAIN_UNKNOWN if routing is too old.
    """
    routing.expire_suspects()
    generation = routing.generation
    servers = routing.servers.values()
    ceiling = min((server.outstanding for server in servers), default=0) + IMBALANCE_BYTES
    results: list[memoryview] = []
    frames: list[Frame] = []
    unserved: list[Piece] = []
    filling: dict[Server, Frame] = {}
    planned: dict[Server, int] = dict.fromkeys(servers, 0)
    """Bytes of the frames of this plan that are full."""
    few: Frame | None = None
    """A frame with room for pieces that it is not planned for."""
    position = 0
    room = len(into)
    for number, (file, offset, length) in enumerate(ranges):
        start = position
        if places is None:
            position += length
        if offset < 0 or length < 0 or position > room:
            raise _bad_range(number, offset, length, position, room)
        if length > file.length - offset:
            length = max(file.length - offset, 0)
        view = into[start : start + length] if places is None else places[number][:length]
        results.append(view)
        plan = file.plan
        if plan is None or plan.generation != generation:
            plan = routing.plan(file)
        chunk_size = plan.chunk_size
        inode = file.inode
        routes = plan.routes
        index = offset // chunk_size
        within = offset - index * chunk_size
        done = 0
        while done < length:
            take = chunk_size - within
            if take > length - done:
                take = length - done
            piece = view if take == length else view[done : done + take]
            route = routes[(index + inode * plan.stripe) % len(routes)]
            item = ReadItem(route.chain, route.version, inode, index, within, take, chunk_size)
            server = route.server
            if server is None:
                unserved.append(Piece(number, file, item, piece, routing.lost(route.chain)))
            else:
                if few is not None and few.size + take <= FEW_BYTES and few.server in route.replicas:
                    frame = few
                    server = frame.server
                else:
                    if server.outstanding + planned[server] > ceiling:
                        server = min(route.replicas, key=lambda s: s.outstanding + planned[s])
                    found = filling.get(server)
                    if found is None:
                        frame = few = filling[server] = Frame(server)
                        frames.append(frame)
                    else:
                        frame = found
                frame.items.append(item)
                frame.views.append(piece)
                frame.numbers.append(number)
                frame.size += take
                if frame is few and len(frame.items) >= FEW_ITEMS:
                    few = None
                if frame.size >= FRAME_BYTES or len(frame.items) >= READ_ITEMS_MAX:
                    del filling[server]
                    planned[server] += frame.size
                    ceiling = min(s.outstanding + planned[s] for s in servers) + IMBALANCE_BYTES
            done += take
            index += 1
            within = 0
    return frames, unserved, results


def plan_again(routing: RoutingCache, pieces: Sequence[Piece]) -> tuple[list[Frame], list[Piece]]:
    """Frames for another try of failed pieces, each at a replica it was not asked of; and those with nobody to ask."""
    routing.expire_suspects()
    frames: list[Frame] = []
    unserved: list[Piece] = []
    filling: dict[Server, Frame] = {}
    for piece in pieces:
        item = piece.item
        try:
            route = routing.plan(piece.file).route(item.inode, item.index)
        except EmberError as error:
            piece.error = error
            unserved.append(piece)
            continue
        if not route.replicas:
            piece.error = routing.lost(route.chain)
            unserved.append(piece)
            continue
        untried = [server for server in route.replicas if server not in piece.tried]
        if not untried:
            piece.tried.clear()
            untried = list(route.replicas)
        server = untried[0]
        piece.tried.add(server)
        piece.item = ReadItem(
            route.chain, route.version, item.inode, item.index, item.offset, item.length, item.chunk_size
        )
        frame = filling.get(server)
        if frame is None or frame.full:
            frame = filling[server] = Frame(server)
            frames.append(frame)
        frame.items.append(piece.item)
        frame.views.append(piece.view)
        frame.numbers.append(piece.number)
        frame.pieces.append(piece)
        frame.size += item.length
    return frames, unserved


def replicas_of(routing: RoutingCache, piece: Piece) -> tuple[Server, ...]:
    """All serving replicas of the chunk, as far as routing knows."""
    try:
        return routing.plan(piece.file).route(piece.item.inode, piece.item.index).replicas
    except EmberError:
        return ()


def _bad_range(number: int, offset: int, length: int, position: int, room: int) -> ValueError:
    if offset < 0 or length < 0:
        return ValueError(f"range {number} has a negative offset or length ({offset}, {length})")
    return ValueError(f"the buffer has {room} bytes, ranges up to number {number} need {position}")


def elsewhere(routing: RoutingCache, frame: Frame, ranges: Sequence[RefRange], now: float) -> list[Piece] | None:
    """The pieces of a frame whose answer is overdue, to be read from other replicas into memory of their own. None:
    some have no other replica that is well; asking one that is not would only be more to do for all."""
    pieces = []
    memory: memoryview | None = None
    start = 0
    for place, item in enumerate(frame.items):
        before = frame.pieces[place] if frame.pieces else None
        file = ranges[frame.numbers[place]][0] if before is None else before.file
        try:
            replicas = routing.plan(file).route(item.inode, item.index).replicas
        except EmberError:
            return None
        tried = {frame.server} if before is None else before.tried | {frame.server}
        if not any(server.is_well(now) and server not in tried for server in replicas):
            return None
        if memory is None:
            memory = allocate(frame.size)
        view = memory[start : start + item.length]
        start += item.length
        piece = Piece(frame.numbers[place], file, item, view, overdue(frame.server))
        piece.tried = tried
        pieces.append(piece)
    return pieces


def overdue(server: Server) -> EmberError:
    return EmberError(Code.TIMED_OUT, f"{server} does not answer; another replica was asked")
