"""Which READs and WRITEs move a payload, which of them are signalled, and how many may be outstanding.

`moves` lays the pieces of one side against those of the other: neighbours, local and remote, become one piece of work.

`WorkLedger` numbers what is posted. Work completes in the order in which it was posted, so the completion of a number
says that all before it are complete as well: of many only one is signalled. What is to be done when some work is
complete (memory that is free then, a slot) waits under its number.

Invariants of the ledger:

* No more than `depth` works are outstanding: each takes its place in the send queue until a signalled one behind it, or
  itself, has completed.
* Of `SIGNAL_EVERY` works in a row one is signalled.

Pure. Called by `link.RdmaLink`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, repeat
from operator import add, eq
from typing import NamedTuple

from fs_common.checks import check, violated
from fs_common.limits import MIB

WORK_BYTES_MAX = 1 * MIB
"""Of one READ or WRITE. Devices take at least 8 MiB; a longer one would cost next to nothing less."""
SIGNAL_EVERY = 32
"""Works from one signalled to the next: a completion costs about as much as posting one."""
CHAIN_MAX = 32
"""Works posted together."""


class Move(NamedTuple):
    """One piece of work: `length` bytes between local and remote memory."""

    address: int
    length: int
    lkey: int
    remote_address: int
    rkey: int


_move: Callable[[tuple[int, int, int, int, int]], Move] = partial(tuple.__new__, Move)

Piece = tuple[int, int, int]
"""Memory: address, length, key."""


def moves(local: Sequence[Piece], remote: Sequence[Piece], bytes_max: int = WORK_BYTES_MAX) -> list[Move]:
    """The work that moves the bytes of `local`, in order, to or from those of `remote`. Both are equally long together;
    pieces may be empty."""
    local, remote = dense(local), dense(remote)
    if len(local) == 1:
        return _scattered(local[0], remote, bytes_max)
    remote = list(remote)
    found: list[Move] = []
    here = there = length = lkey = rkey = 0
    """The move that grows."""
    remote_at = 0
    remote_address, remote_left, remote_key = 0, 0, 0
    for address, left, key in local:
        while left:
            while not remote_left:
                remote_address, remote_left, remote_key = remote[remote_at]
                remote_at += 1
            size = left if left < remote_left else remote_left
            room = bytes_max - length
            if (
                length
                and room
                and here + length == address
                and there + length == remote_address
                and lkey == key
                and rkey == remote_key
            ):
                if size > room:
                    size = room
                length += size
            else:
                if length:
                    found.append(Move(here, length, lkey, there, rkey))
                if size > bytes_max:
                    size = bytes_max
                here, there, length, lkey, rkey = address, remote_address, size, key, remote_key
            address += size
            left -= size
            remote_address += size
            remote_left -= size
    if length:
        found.append(Move(here, length, lkey, there, rkey))
    check(not remote_left and not any(size for _, size, _ in remote[remote_at:]), "both sides are equally long")
    return found


def dense(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """One piece, where all follow one another without a gap; otherwise as they are. Runs no bytecode for each."""
    if len(pieces) < 2:
        return pieces
    addresses, lengths, keys = zip(*pieces, strict=True)
    ends = list(accumulate(lengths, initial=addresses[0]))
    if keys.count(keys[0]) != len(keys) or not all(map(eq, addresses, ends)):
        return pieces
    return [(addresses[0], ends[-1] - addresses[0], keys[0])]


def _scattered(piece: Piece, remote: Sequence[Piece], bytes_max: int) -> list[Move]:
    """`moves` of one local piece: a batch of reads is answered from one buffer."""
    here, left, lkey = piece
    if len(remote) == 1:
        there, length, rkey = remote[0]
        check(left == length, "both sides are equally long", left, length)
        if 0 < length <= bytes_max:
            return [Move(here, length, lkey, there, rkey)]
    addresses, lengths, keys = zip(*remote, strict=True)
    if min(lengths) > 0 and max(lengths) <= bytes_max and not any(map(eq, map(add, addresses, lengths), addresses[1:])):
        # Nothing is joined or cut: no bytecode runs for each.
        check(sum(lengths) == left, "both sides are equally long", left)
        heres = accumulate(lengths, initial=here)
        return list(map(_move, zip(heres, lengths, repeat(lkey), addresses, keys)))
    found: list[Move] = []
    end = here + left
    there = length = rkey = 0
    """The move that grows, from `here` on."""
    for address, size, key in remote:
        if address == there + length and key == rkey:
            length += size
            continue
        while length > bytes_max:
            found.append(Move(here, bytes_max, lkey, there, rkey))
            here, there, length = here + bytes_max, there + bytes_max, length - bytes_max
        if length:
            found.append(Move(here, length, lkey, there, rkey))
            here += length
        there, length, rkey = address, size, key
    while length > bytes_max:
        found.append(Move(here, bytes_max, lkey, there, rkey))
        here, there, length = here + bytes_max, there + bytes_max, length - bytes_max
    if length:
        found.append(Move(here, length, lkey, there, rkey))
    check(here + length == end, "both sides are equally long", left)
    return found


def take(pieces: deque[Piece], size: int) -> list[Piece]:
    """Take the first `size` bytes off `pieces`, which have them."""
    if len(pieces) == 1 and pieces[0][1] == size:
        return [pieces.popleft()]
    taken: list[Piece] = []
    while size:
        address, length, key = pieces.popleft()
        if length > size:
            pieces.appendleft((address + size, length - size, key))
            length = size
        taken.append((address, length, key))
        size -= length
    return taken


class WorkLedger:
    """What is posted to one send queue and not known to be complete."""

    def __init__(self, depth: int) -> None:
        check(depth > SIGNAL_EVERY, "a full send queue has a signalled work in it", depth)
        self._depth = depth
        self.full = depth
        """Number of the last work for which there is room."""
        self.posted = 0
        """Number of the last work."""
        self.complete = 0
        """All works up to this number are complete."""
        self.signalled = 0
        """Number of the last one that is."""
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    @property
    def room(self) -> int:
        """Works that may be posted now."""
        return self.full - self.posted

    @property
    def unsignalled(self) -> bool:
        """Of what is posted last no completion will tell."""
        return self.signalled != self.posted

    def post_many(self, count: int) -> list[bool]:
        """Number the next `count` works: the last is `posted` then. Returns which are signalled."""
        check(count <= self.room, "there is room in the send queue", count, self.posted)
        signalled = [False] * count
        first = SIGNAL_EVERY - (self.posted - self.signalled) - 1
        if first < count:
            places = range(first, count, SIGNAL_EVERY)
            for place in places:
                signalled[place] = True
            self.signalled = self.posted + 1 + places[-1]
        self.posted += count
        return signalled

    def post(self, signalled: bool = False) -> bool:
        """Number the next work: `posted`. Returns whether it is signalled; `signalled`: it has to be."""
        posted = self.posted = self.posted + 1
        if posted > self.full:
            violated("there is room in the send queue", posted)
        if signalled or posted - self.signalled >= SIGNAL_EVERY:
            self.signalled = posted
            return True
        return False

    def signal_last(self) -> None:
        """The last work, numbered and not yet given to the device, is signalled after all."""
        self.signalled = self.posted

    def when_complete(self, callback: Callable[[], None]) -> None:
        """Call it when the work numbered last is complete: by what is signalled, or at the end."""
        self._waiting.append((self.posted, callback))

    def completed(self, number: int) -> None:
        """The signalled work of this number is complete."""
        if not self.complete < number <= self.posted:
            violated("a work completes once", number)
        self.complete = number
        self.full = number + self._depth
        waiting = self._waiting
        while waiting and waiting[0][0] <= number:
            waiting.popleft()[1]()

    def end(self) -> None:
        """The queue pair is gone: nothing is outstanding any more."""
        self.complete = self.posted
        self.full = self.posted + self._depth
        waiting = self._waiting
        while waiting:
            waiting.popleft()[1]()
