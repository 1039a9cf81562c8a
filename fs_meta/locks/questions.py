"""Questions to those who hold locks: is it still held?

The close of a file that is locked returns before the mount has given the lock up: the kernel tells it behind the close,
and nobody waits for that. So before anybody is refused a lock, its holders are asked, and what they give up meanwhile
counts. A holder that has programs with locks keeps one call here (`LOCK_QUESTIONS`), as long as it has any; it comes
back with inodes, and is sent again when everything that programs had closed by then has been given up.

    A: close(f), returns                        B: LOCK f, without waiting: A has it
    A's call here returns: f?                   B waits
    A: hears of the close, RELEASE_LOCKS
    A's call: answered                          B looks again, and has it

A question is answered once its holder has had it after it was asked: one that was handed out before is no answer. Who
does not answer in time is believed to have the lock, and is asked nothing before it has answered. Who keeps no call (an
earlier version, a client that is not a mount) is not asked.

In memory, of one process: a holder that is connected to another server of the same store is not asked.

Called by: `fs_meta.ops.lock`, `fs_meta.ops.get_lock` (`ask`), the service (`listen`, `caller_lost`), the server
(`close`). Page: docs/concurrency/meta.md.
"""

import asyncio
import secrets
from collections.abc import Iterable
from typing import Final

from fs_common.records.locks import LockQuestionsReply

ANSWER_S: Final = 10.0
"""How long a holder is waited for: much longer than it takes to end what was closed, shorter than patience."""
HOLD_S: Final = 20.0
"""A call without questions comes back after so long."""


class _Holder:
    """A client that keeps a call here."""

    __slots__ = ("asked", "call", "caller", "first", "handed_out", "number", "overdue", "waiting")

    def __init__(self, first: int) -> None:
        self.caller: object = None
        """Whose loss ends it."""
        self.first = first
        """Numbers up to here are of questions that were asked before it was known: no answers to those here."""
        self.number = first
        """Of the last question; numbers ascend."""
        self.handed_out = first
        """Up to which they were."""
        self.asked: dict[int, int] = {}
        """Inode to the number of its last question, of those that are not answered."""
        self.waiting: dict[asyncio.Future[None], int] = {}
        """Who waits, for the answer to which."""
        self.call: asyncio.Future[None] | None = None
        """Set while its call waits for questions."""
        self.overdue = False
        """It has not answered in time."""

    def answered(self, number: int) -> None:
        self.asked = {inode: asked for inode, asked in self.asked.items() if asked > number}
        for future, asked in list(self.waiting.items()):
            if asked <= number:
                _wake(future)


class LockQuestions:
    """Of one process."""

    def __init__(self) -> None:
        self._holders: dict[bytes, _Holder] = {}
        self._number = secrets.randbits(48) << 12
        """Of the last question to anybody. It begins anywhere: numbers of another process are no answers here."""
        self._closing = False

    async def ask(self, clients: Iterable[bytes], inode: int) -> bool:
        """Return when each of these clients has given up what programs there had given up before, of the locks of this
        file. False: none of them can be asked."""
        found = [self._holders[client] for client in clients if client in self._holders]
        asked = [self._asked(holder, inode) for holder in found if not holder.overdue and not self._closing]
        if asked:
            await asyncio.wait(asked)
        return bool(asked)

    def _asked(self, holder: _Holder, inode: int) -> "asyncio.Future[None]":
        number = holder.asked.get(inode, 0)
        if number <= holder.handed_out:
            number = holder.number = self._number = self._number + 1
            holder.asked[inode] = number
            if holder.call is not None:
                _wake(holder.call)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()
        holder.waiting[answer] = number

        def late() -> None:
            holder.overdue = True
            _wake(answer)

        timer = loop.call_later(ANSWER_S, late)

        def ended(_: object) -> None:
            timer.cancel()
            holder.waiting.pop(answer, None)

        answer.add_done_callback(ended)
        return answer

    async def listen(self, client: bytes, answered: int, caller: object) -> LockQuestionsReply:
        """A holder's call: it has answered all up to `answered`. Returns when there are questions, or after a while."""
        holder = self._holders.get(client)
        if holder is None:
            holder = self._holders[client] = _Holder(self._number)
        holder.caller = caller
        if holder.first < answered <= holder.handed_out:
            holder.answered(answered)
            holder.overdue = holder.overdue and answered < holder.handed_out
        if not holder.asked and not self._closing:
            await self._hold(holder)
        holder.handed_out = holder.number
        return LockQuestionsReply(holder.number, list(holder.asked))

    @staticmethod
    async def _hold(holder: _Holder) -> None:
        if holder.call is not None:
            _wake(holder.call)  # its caller is not there any more, or does not mind
        loop = asyncio.get_running_loop()
        call = holder.call = loop.create_future()
        timer = loop.call_later(HOLD_S, _wake, call)
        try:
            await call
        finally:
            timer.cancel()
            if holder.call is call:
                holder.call = None

    def caller_lost(self, client: bytes, caller: object) -> None:
        """Nobody can be asked there, unless it has called by another way since."""
        holder = self._holders.get(client)
        if holder is not None and holder.caller is caller:
            del self._holders[client]
            for future in list(holder.waiting):
                _wake(future)
            if holder.call is not None:
                _wake(holder.call)

    def close(self) -> None:
        """Nobody is asked any more; calls return."""
        self._closing = True
        for holder in self._holders.values():
            for future in list(holder.waiting):
                _wake(future)
            if holder.call is not None:
                _wake(holder.call)


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
