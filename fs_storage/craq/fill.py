"""Which chunks of a syncing replica are not what its predecessor, the tail, has: a walk over two lists. Pure.

Both lists are in the order of chunk ids, removals included, and come in pages, which may be read at any time after the
round began. A chunk is *equal* if nothing is pending at the syncing replica, and what it has committed is what the
predecessor has committed, or has pending; it is skipped. Any other is to be pushed: what is committed goes whole, a
removal with its version, and where the predecessor knows nothing, the successor is to forget.

Why an equal one stays so: the syncing replica changes a chunk only by what the tail sends it (what an older chain
version began there has ended before its list is read), and each version that the tail makes while the round lasts is
there before it is committed at the tail. What is pending at the tail is of the present chain version, so it is on its
way there.

Called by: `resync`, and by simulators.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fs_common.checks import check

if TYPE_CHECKING:
    from fs_storage.engine.interface import Remembered


class HasHeld(Protocol):
    """`interface.Held`, or the record that brings it from elsewhere."""

    @property
    def chunk(self) -> bytes: ...
    @property
    def version(self) -> int: ...
    @property
    def digest(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def pending_version(self) -> int: ...
    @property
    def pending_digest(self) -> int: ...


class Push(NamedTuple):
    """A chunk that is not equal."""

    chunk: bytes
    length: int
    """Bytes committed at the predecessor: about what the push sends."""


class Walk:
    """One of the lists."""

    def __init__(self) -> None:
        self.page: Sequence[HasHeld] = ()
        self.next = 0
        """The first of the page that is not compared."""
        self.after = b""
        """The last chunk of the page: where the next one begins."""
        self.ended = False
        """There are no more pages."""

    @property
    def wanting(self) -> bool:
        """The page is used up, and there may be another."""
        return self.next == len(self.page) and not self.ended

    def give(self, page: Sequence[HasHeld], limit: int) -> None:
        """The page after `after`, of at most `limit` chunks."""
        check(self.wanting, "a page is given when one is wanted", self.after.hex())
        last = self.after
        for item in page:
            # Out of order, a chunk would look as if the other had nothing of it, and be forgotten.
            check(item.chunk > last, "a list is in order", item.chunk.hex(), last.hex())
            last = item.chunk
        self.page = page
        self.next = 0
        self.after = last
        self.ended = len(page) < limit


class Fill:
    """The walk of one round. While not `done`: give `mine` and `theirs` a page when it is `wanting`, then `compare`."""

    def __init__(self) -> None:
        self.mine = Walk()
        self.theirs = Walk()
        self.compared = 0
        """Chunks of the predecessor."""

    @property
    def done(self) -> bool:
        return all(walk.ended and walk.next == len(walk.page) for walk in (self.mine, self.theirs))

    def compare(self) -> list[Push]:
        """Go on until a page is wanted, or the end. What is to be pushed, in order."""
        mine, theirs = self.mine, self.theirs
        pushes: list[Push] = []
        my_page, my_next = mine.page, mine.next
        their_page, their_next = theirs.page, theirs.next
        my_end, their_end = len(my_page), len(their_page)
        while True:
            if my_next < my_end and their_next < their_end:
                here, there = my_page[my_next], their_page[their_next]
                if here.chunk == there.chunk:
                    my_next += 1
                    their_next += 1
                    if not equal(here, there):
                        pushes.append(Push(here.chunk, here.length))
                    continue
                first = here.chunk < there.chunk
            elif my_next < my_end and theirs.ended:
                first = True
            elif their_next < their_end and mine.ended:
                first = False
            else:
                break
            if first:
                here = my_page[my_next]
                my_next += 1
                if here.version:
                    pushes.append(Push(here.chunk, here.length))
            else:
                pushes.append(Push(their_page[their_next].chunk, 0))
                their_next += 1
        self.compared += my_next - mine.next
        mine.next, theirs.next = my_next, their_next
        return pushes


def equal(mine: HasHeld, theirs: HasHeld) -> bool:
    if theirs.pending_version:
        return False
    if mine.version == theirs.version and (mine.digest == theirs.digest or not mine.version):
        return True
    return mine.pending_version == theirs.version and theirs.version != 0 and mine.pending_digest == theirs.digest


def disowned(mine: "Sequence[Remembered]", theirs: "Mapping[tuple[bytes, int], Remembered]") -> "list[Remembered]":
    """Which of a syncing replica's answers tell of updates that the chain does not have.

    `mine`: answers to committed updates. `theirs`: by client and channel, what the predecessor remembers, committed or
    not, read after `mine`. An update that the predecessor sent has an answer there before it has one here, and a
    channel never goes back; so whatever the predecessor does not know of by then it never had.
    """
    found = []
    for answer in mine:
        known = theirs.get((answer.client, answer.channel))
        if known is not None and known.sequence > answer.sequence:
            continue
        if known is None or (known.sequence, known.chunk, known.version) != answer[2:5]:
            found.append(answer)
    return found
