"""What processes send each other, and what becomes of it.

Connections are TCP's: one attempt arrives at most once, however late, at the very process it was sent to; who was sent
something by a process that dies may get it still. Requests of clients may arrive twice. Links are cut one way or both,
for a time: what is sent then is lost, or arrives when the link is back.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from fs_common.errors import Code, EmberError
from tests.sim.kernel import Future, Kernel, Process

LATE_MAX_MS = 30_000.0
"""No message is later than this: a connection's life."""


class Letter(NamedTuple):
    """A message, as a directed run sees it."""

    source: str
    destination: str
    method: str
    answers: bool
    """It is the answer to such a request."""
    arguments: tuple[Any, ...]
    """Of the request; of an answer none."""


class Network:
    def __init__(
        self, kernel: Kernel, *, loss: float, slow: float, duplication: float, pace_ms: float, late_news: float
    ) -> None:
        self._kernel = kernel
        self.loss = loss
        self.slow = slow
        """Share of messages that take seconds."""
        self.duplication = duplication
        self.pace_ms = pace_ms
        self.late_news = late_news
        """Share of routings that reach a node late."""
        self.processes: dict[str, Process] = {}
        """Those that live, by name."""
        self._cuts: dict[tuple[str, str], float] = {}
        """(from, to): until when nothing arrives."""
        self.calm = False
        self.holds: Callable[[Letter], bool] | None = None
        """Of a directed run (`script`): whether this one is kept, until `let_go`."""
        self.kept: list[tuple[Letter, Callable[[], None]]] = []

    def let_go(self, those: Callable[[Letter], bool] = lambda letter: True) -> None:
        """They arrive, and nothing like them is kept any more."""
        kept, self.kept, holds = self.kept, [], self.holds
        self.holds = None if holds is None else lambda letter: holds(letter) and not those(letter)
        for letter, send in kept:
            if those(letter):
                send()
            else:
                self.kept.append((letter, send))

    def cut(self, source: str, destination: str, duration_ms: float) -> None:
        until = self._kernel.now + duration_ms
        self._cuts[source, destination] = max(until, self._cuts.get((source, destination), 0.0))

    def is_cut(self, source: str, destination: str) -> bool:
        return self._cuts.get((source, destination), 0.0) > self._kernel.now

    def heal_links(self) -> None:
        self._cuts.clear()

    def heal(self) -> None:
        """From now on everything arrives, and soon."""
        self.heal_links()
        self.calm = True

    def _delay_ms(self) -> float:
        random = self._kernel.random
        if not self.calm and self.slow and random.random() < self.slow:
            return min(random.expovariate(1 / 1500.0), LATE_MAX_MS)
        return random.expovariate(1 / self.pace_ms)

    def _carry(
        self,
        sender: Process,
        process: Process,
        arrive: Callable[[], None],
        method: str,
        arguments: tuple[Any, ...] | None = None,
    ) -> None:
        """One message from one life of a process to one of another; it may be lost. Without `arguments`: an answer."""
        source, destination = sender.name, process.name
        if self.holds is not None:
            letter = Letter(source, destination, method, arguments is None, arguments or ())
            if self.holds(letter):
                self.kept.append((letter, lambda: self._carry(sender, process, arrive, method, arguments)))
                return
        random = self._kernel.random
        delay_ms = self._delay_ms()
        left_ms = self._cuts.get((source, destination), 0.0) - self._kernel.now
        if left_ms > 0:
            if random.random() < 0.5 or left_ms > LATE_MAX_MS / 2:
                return
            delay_ms += left_ms  # sent again until it arrives
        elif not self.calm and random.random() < self.loss:
            return
        soon = delay_ms < 100.0

        def on_arrival() -> None:
            # A machine without power sends nothing again.
            if soon or sender.lost_power_ms is None:
                arrive()

        self._kernel.after(min(delay_ms, LATE_MAX_MS), on_arrival, process)

    def tell(self, source: Process, name: str, method: str, *arguments: Any) -> None:
        """Without an answer."""
        process = self.processes.get(name)
        if process is None:
            return
        kernel = self._kernel
        random = kernel.random
        late_ms = random.expovariate(1 / 2_000.0) if not self.calm and random.random() < self.late_news else 0.0

        def arrive() -> None:
            kernel.after(late_ms, lambda: _spawn(kernel, process, method, arguments), process)

        self._carry(source, process, arrive, method, arguments)

    async def call(
        self, source: Process, name: str, method: str, *arguments: Any, timeout_ms: float, twice: bool = False
    ) -> Any:
        """The answer of `name`. Raises what it raises, UNREACHABLE (never sent), PEER_GONE and TIMED_OUT."""
        kernel, random = self._kernel, self._kernel.random
        process = self.processes.get(name)
        answer = Future()
        kernel.after(timeout_ms, lambda: answer.fail(EmberError(Code.TIMED_OUT, f"{name}: no answer")), source)
        unconnected = self.is_cut(source.name, name) or self.is_cut(name, source.name)
        if process is None or (unconnected and random.random() < 0.5):
            # A connection that cannot be made: refused by a machine that runs, otherwise nobody says anything.
            if process is None or random.random() < 0.5:
                refused = EmberError(Code.UNREACHABLE, f"{name} cannot be reached")
                kernel.after(1.0 + self._delay_ms(), lambda: answer.fail(refused), source)
            return await answer
        life = process

        def arrive() -> None:
            kernel.spawn(life, self._serve(life, source, method, arguments, answer))

        for _ in range(2 if twice and not self.calm and random.random() < self.duplication else 1):
            self._carry(source, life, arrive, method, arguments)
        if random.random() < 0.5:
            self._watch(source, life, answer)
        return await answer

    def _watch(self, source: Process, process: Process, answer: Future) -> None:
        """A connection to a process that dies is closed, and its other end hears of it."""

        def look() -> None:
            if answer.done:
                return
            if not process.alive:
                if not self.is_cut(process.name, source.name):
                    answer.fail(EmberError(Code.PEER_GONE, f"{process.name} is gone"))
                return
            self._kernel.after(250.0, look, source)

        self._kernel.after(250.0, look, source)

    async def _serve(
        self, process: Process, source: Process, method: str, arguments: tuple[Any, ...], answer: Future
    ) -> None:
        try:
            value = await process.handle(method, *arguments)
        except EmberError as error:
            failure = error
            self._carry(process, source, lambda: answer.fail(failure), method)
        else:
            self._carry(process, source, lambda: answer.set(value), method)


def _spawn(kernel: Kernel, process: Process, method: str, arguments: tuple[Any, ...]) -> None:
    kernel.spawn(process, process.handle(method, *arguments))
