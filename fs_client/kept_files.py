"""Which files are certainly all there: what tells a hole from a chunk that was taken away with its file.

A daemon says of both that it has no such chunk. A file that has lost its last name is collected after a while, and who
reads it by reference (or holds it open, without a hold) must be told so; zeros would pass for its contents. So before a
missing chunk is taken for a hole the metadata service has said that the file is kept:

* after the chunk was found missing; or
* before, for a time that is not over when the chunk is found missing.

The second spares most questions: one for each file with holes in the time for which removed files are kept. A question
is of all inodes of a batch; while one is under way further ones gather for the next.

Inode numbers are never given out twice, so what is known of one stays true whatever names it has.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from fs_common.clocks import boottime_s
from fs_common.errors import Code, EmberError

FILES_MAX = 1 << 14
"""Remembered: about 100 bytes each. The oldest answers go first."""
BELIEVED = 15 / 16
"""Of the time that is promised: what is left is for clocks that do not run alike."""

Ask = Callable[[list[int], float], Awaitable[list[int]]]
"""Inodes and how many seconds the answer may take -> for how many ms each is kept, -1: it is not."""


def removed() -> EmberError:
    return EmberError(Code.STALE, "the file was removed; look its path up again")


class _Question:
    __slots__ = ("answer", "inodes")

    def __init__(self) -> None:
        self.inodes: set[int] = set()
        self.answer: dict[int, int] | None = None


class KeptFiles:
    """Of one client. `now` is the clock of leases."""

    def __init__(self, ask: Ask, now: Callable[[], float] = boottime_s) -> None:
        self._ask = ask
        self._now = now
        self._until: dict[int, float] = {}
        """Inode -> until when it is known to be all there; the latest answers last."""
        self._gathering: _Question | None = None
        """The next one to be sent."""
        self._asking = asyncio.Lock()

    def is_kept(self, inode: int) -> bool:
        """Whether what a daemon has just found missing of it is a hole. False: ask."""
        until = self._until.get(inode)
        return until is not None and self._now() < until

    async def ask(self, inodes: Iterable[int], left_s: float) -> set[int]:
        """Those of which chunks may have been taken away by now; of the others, what was found missing is a hole.

        Raises what the call raises, and TIMED_OUT after `left_s`.
        """
        question = self._gathering
        if question is None:
            question = self._gathering = _Question()
        wanted = set(inodes)
        question.inodes |= wanted
        try:
            async with asyncio.timeout(max(left_s, 0.001)), self._asking:
                # Whoever has the turn first asks for all; if that fails, the next one does.
                if question.answer is None:
                    if self._gathering is question:
                        self._gathering = None
                    question.answer = await self._send(sorted(question.inodes), left_s)
        except TimeoutError:
            raise EmberError(Code.TIMED_OUT, "whether the file still exists could not be asked in time") from None
        answer = question.answer
        return {inode for inode in wanted if answer[inode] < 0}

    async def check(self, inode: int, left_s: float) -> None:
        """Return if what was found missing of it is a hole. Raises STALE, and what `ask` does."""
        if not self.is_kept(inode) and await self.ask([inode], left_s):
            raise removed()

    async def _send(self, inodes: list[int], left_s: float) -> dict[int, int]:
        sent = self._now()
        answer = dict(zip(inodes, await self._ask(inodes, left_s), strict=True))
        until = self._until
        for inode, for_ms in answer.items():
            until.pop(inode, None)
            if for_ms > 0:
                until[inode] = sent + for_ms / 1000 * BELIEVED
        while len(until) > FILES_MAX:
            del until[next(iter(until))]
        return answer
