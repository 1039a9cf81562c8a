"""Requests that wait for something: their deadlines, and what interrupts do to them.

A request waits while there is progress: its time is over when the mount's cluster has stored nothing and answered no
call for so long. An interrupt gives it a moment to end by itself, or none if it waits for others. When the time is over
the owner is told to give the request up.

A change may have been sent: an error would be a lie if it is applied later. What a change waits for has deadlines of
its own (the retries of calls), so it gets the time for several of them one after another, and ends with their outcome.
The deadline here is for what should not be.

A change is given up at an interrupt only if its caller is about to end. A program that handles the signal would take
EINTR for "not done" and try again, and a name it made would be there already; from a close it would be an error.

Used from the thread of the event loop.
"""

import asyncio
import errno
import logging
from collections import deque
from collections.abc import Callable

from fs_client.fuse.abi import Opcode
from fs_client.fuse.callers import is_ending
from fs_client.fuse.kernel_request import CHANGING, Request

logger = logging.getLogger(__name__)

INTERRUPT_GRACE_S = 1.0
"""What an interrupted operation gets to end by itself."""
WITHDRAW_S = 1.0
"""What a wait that is withdrawn gets to undo itself."""
CHANGE_WAITS = 4
"""Times that a change may wait for as long as one call may last, without any progress: to store, to get a session, to
be made, and one to spare."""
SWEEP_INTERVAL_S = 0.1
SWEEP_LATE_S = 0.5
"""A sweep that comes so late says that the process stood still: answers may be waiting behind it."""


class InWork:
    """The requests of one channel that have no answer yet."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout_s: float,
        give_up: Callable[[Request, int], None],
        progress: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._loop = loop
        self.progress = progress
        """When there was progress last, on the loop's clock."""
        self._timeout_s = timeout_s
        self._give_up = give_up
        """Answers the request with an errno and removes it from here."""
        self._bounded: dict[int, Request] = {}
        """Those with a deadline, by `unique`, in the order in which they are looked at."""
        self._open_ended: dict[int, Request] = {}
        """Those without."""
        self._interrupted: deque[tuple[float, Request]] = deque()
        """(when its moment is over, request), in order."""
        self._insisted: list[Request] = []
        """Changes whose moment is over, and whose callers wait on."""
        self._sweep: asyncio.TimerHandle | None = None
        """Set while there are requests that may have to be ended."""
        self._sweep_due = 0.0
        self._swept_late = False
        self._bounded_ended: asyncio.Future[None] | None = None
        """Set while somebody waits for it."""
        self.catching_up: list[asyncio.Future[None]] = []
        """Who waits until the kernel has nothing more to say."""
        self._look_again: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._bounded) + len(self._open_ended)

    async def caught_up(self, look_again: Callable[[], None]) -> None:
        """Wait until the device was empty (`nothing_to_read`) with so few requests in work that the kernel keeps none
        back. `look_again` has the device read soon."""
        caught_up = self._loop.create_future()
        self.catching_up.append(caught_up)
        self._look_again = look_again
        look_again()
        await caught_up

    def nothing_to_read(self, max_background: int) -> None:
        if len(self._bounded) < max_background:
            self._tell_caught_up()

    def _tell_caught_up(self) -> None:
        for future in self.catching_up:
            if not future.done():
                future.set_result(None)
        self.catching_up.clear()

    def requests(self) -> list[Request]:
        return [*self._bounded.values(), *self._open_ended.values()]

    def add(self, request: Request) -> None:
        if request.opcode == Opcode.SETLKW:
            request.open_ended = True
        if request.open_ended:
            self._open_ended[request.unique] = request
        else:
            request.waits_since = self._loop.time()
            request.deadline = request.waits_since + self._timeout_s
            self._bounded[request.unique] = request
            if self._sweep is None:
                self._arm()

    def remove(self, request: Request) -> None:
        """It has its answer. It need not be here."""
        if self._bounded.pop(request.unique, None) is None:
            self._open_ended.pop(request.unique, None)
        self._tell_ended()
        if self.catching_up:
            self._look_again()

    def _tell_ended(self) -> None:
        if self._bounded_ended is not None and not self._bounded:
            self._bounded_ended.set_result(None)
            self._bounded_ended = None

    async def bounded_ended(self, timeout_s: float) -> None:
        """Wait until all have their answers but those that wait for others, at most so long."""
        if self._bounded:
            if self._bounded_ended is None:
                self._bounded_ended = self._loop.create_future()
            await asyncio.wait([self._bounded_ended], timeout=timeout_s)

    def clear(self) -> None:
        self._bounded.clear()
        self._open_ended.clear()
        self._interrupted.clear()
        self._insisted.clear()
        self._tell_ended()
        self._tell_caught_up()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def interrupt(self, unique: int) -> bool:
        """The caller of this request wants it to end. False: it has ended, or was told so before.

        The kernel sends an interrupt behind its request and there is one reader, so a request that is not here has its
        answer already.
        """
        request = self._bounded.get(unique) or self._open_ended.get(unique)
        if request is None or request.interrupted:
            return False
        request.interrupted = True
        if request.withdraw is not None:
            request.withdraw()
            self._end_at(WITHDRAW_S, request)
        elif request.open_ended:
            self._give_up(request, errno.EINTR)
        else:
            self._end_at(INTERRUPT_GRACE_S, request)
        return True

    def _end_at(self, grace_s: float, request: Request) -> None:
        self._interrupted.append((self._loop.time() + grace_s, request))
        if self._sweep is None:
            self._arm()

    def _arm(self) -> None:
        self._sweep_due = self._loop.time() + SWEEP_INTERVAL_S
        self._sweep = self._loop.call_later(SWEEP_INTERVAL_S, self._on_sweep)

    def _on_sweep(self) -> None:
        self._sweep = None
        now = self._loop.time()
        if now - self._sweep_due > SWEEP_LATE_S and not self._swept_late:
            # The process stood still, or was busy: what has arrived meanwhile is looked at first.
            self._swept_late = True
        else:
            self._swept_late = False
            self._end_overdue(now)
        if (self._bounded or self._interrupted) and self._sweep is None:
            self._arm()

    def _end_overdue(self, now: float) -> None:
        interrupted = self._interrupted
        while interrupted and interrupted[0][0] <= now:
            _, request = interrupted.popleft()
            if request.opcode in CHANGING and request.withdraw is None:
                self._insisted.append(request)
            elif not request.answered:
                self._give_up(request, errno.EINTR)
        if self._insisted:
            self._insisted = [request for request in self._insisted if not request.answered]
            for request in self._insisted:
                if is_ending(request.pid):
                    self._give_up(request, errno.EINTR)
        due = []
        for request in self._bounded.values():
            if request.deadline > now:
                break
            due.append(request)
        for request in due:
            waits = CHANGE_WAITS if request.opcode in CHANGING else 1
            end = max(self.progress(), request.waits_since) + waits * self._timeout_s
            if end > now:
                request.deadline = min(end, now + self._timeout_s)
                del self._bounded[request.unique]
                self._bounded[request.unique] = request
                continue
            logger.warning(
                "%s of node %d waits for %.0f s, without progress for %.0f s",
                request.name,
                request.node,
                now - request.waits_since,
                waits * self._timeout_s,
            )
            self._give_up(request, errno.ETIMEDOUT)
