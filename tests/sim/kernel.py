"""Time, tasks and processes of the simulation: one schedule, filled from one seed.

A task is a coroutine that belongs to a process. A process that is killed never takes another step; one that is stopped
takes none until it goes on, while its machine's clock runs. Nothing here knows what is simulated.
"""

import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import Any


class Machine:
    """Has a clock of its own, and power."""

    def __init__(self, name: str, drift: float, offset_ms: float) -> None:
        self.name = name
        self._drift = drift
        self._offset_ms = offset_ms
        self.boots = 1

    def clock_ms(self, now_ms: float) -> float:
        """Monotonic; counts while processes are stopped."""
        return self._offset_ms + now_ms * (1.0 + self._drift)


class Process:
    """One life of a program."""

    def __init__(self, kernel: "Kernel", name: str, machine: Machine) -> None:
        self.kernel = kernel
        self.name = name
        self.machine = machine
        self.alive = True
        self.stopped_until = 0.0
        self.lost_power_ms: float | None = None

    def clock_ms(self) -> float:
        return self.machine.clock_ms(self.kernel.now)

    async def handle(self, method: str, *arguments: Any) -> Any:
        """What a request of another process gets for an answer."""
        raise NotImplementedError


class Future:
    """Done once, with a value or an error."""

    __slots__ = ("_waiters", "done", "error", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.error: Exception | None = None
        self._waiters: list[Task] = []

    def set(self, value: Any = None) -> None:
        if not self.done:
            self.done = True
            self.value = value
            self._wake()

    def fail(self, error: Exception) -> None:
        if not self.done:
            self.done = True
            self.error = error
            self._wake()

    def add(self, task: "Task") -> None:
        self._waiters.append(task)

    @property
    def awaited(self) -> bool:
        return bool(self._waiters)

    def _wake(self) -> None:
        for task in self._waiters:
            task.kernel.ready.append(task)

    def __await__(self) -> Generator["Future", None, Any]:
        if not self.done:
            yield self
        if self.error is not None:
            raise self.error
        return self.value


class Task(Future):
    """A coroutine on its way. An error that nobody waits for ends the simulation."""

    __slots__ = ("coroutine", "kernel", "owner")

    def __init__(self, kernel: "Kernel", owner: Process, coroutine: Coroutine[Any, Any, Any]) -> None:
        super().__init__()
        self.kernel = kernel
        self.owner = owner
        self.coroutine = coroutine

    def step(self) -> None:
        owner = self.owner
        if not owner.alive:
            self.coroutine.close()
            return
        if owner.stopped_until > self.kernel.now:
            self.kernel.at(owner.stopped_until, self.step, None)
            return
        try:
            waits_for: Future = self.coroutine.send(None)
        except StopIteration as end:
            self.set(end.value)
        except Exception as error:
            if not self.awaited:
                raise
            self.fail(error)
        else:
            waits_for.add(self)


class Gate:
    """Something that changes; who waits looks again."""

    def __init__(self) -> None:
        self._future = Future()

    def open(self) -> None:
        future, self._future = self._future, Future()
        future.set()

    @property
    def next(self) -> Future:
        return self._future


class Kernel:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        """Milliseconds."""
        self.steps = 0
        self.ready: deque[Task] = deque()
        self._heap: list[tuple[float, int, Callable[[], object], Process | None]] = []
        self._count = 0

    def at(self, time_ms: float, action: Callable[[], object], owner: Process | None) -> None:
        self._count += 1
        heapq.heappush(self._heap, (time_ms, self._count, action, owner))

    def after(self, delay_ms: float, action: Callable[[], object], owner: Process | None = None) -> None:
        """Do it then, unless `owner` is dead by then; later if that is stopped."""
        self.at(self.now + delay_ms, action, owner)

    def spawn(self, owner: Process, coroutine: Coroutine[Any, Any, Any]) -> Task:
        task = Task(self, owner, coroutine)
        self.ready.append(task)
        return task

    def sleep(self, owner: Process, delay_ms: float) -> Future:
        future = Future()
        self.after(delay_ms, future.set, owner)
        return future

    def either(self, owner: Process, future: Future, timeout_ms: float) -> Future:
        """Done when `future` is, or after that time."""
        first = Future()
        if future.done:
            first.set()
            return first
        self.after(timeout_ms, first.set, owner)
        self.spawn(owner, _pass_on(future, first))
        return first

    def run(self, until_ms: float, enough: Callable[[], bool] | None = None) -> None:
        heap, ready = self._heap, self.ready
        while True:
            while ready:
                self.steps += 1
                ready.popleft().step()
            if enough is not None and enough():
                return
            if not heap or heap[0][0] > until_ms:
                self.now = max(self.now, until_ms)
                return
            time_ms, count, action, owner = heapq.heappop(heap)
            if owner is not None:
                if not owner.alive:
                    continue
                if owner.stopped_until > time_ms:
                    heapq.heappush(heap, (owner.stopped_until, count, action, owner))
                    continue
            self.now = time_ms
            self.steps += 1
            action()


async def _pass_on(future: Future, to: Future) -> None:
    try:
        await future
    finally:
        to.set()
