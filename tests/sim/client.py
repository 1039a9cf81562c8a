"""A client: one thing after another; updates are tried again under their identity, reads at another replica.

The rules of `fs_client` in short: a refusal that promises "not applied" is followed by routing that is asked anew; a
channel on which a copy of an update may still be on its way stays with its chunk, and the next update of that takes it.
"""

from collections.abc import Callable
from typing import Any

from fs_common.errors import Code, EmberError, Retry
from fs_common.records.routing import ChainTarget, PublicState
from fs_common.records.storage import UpdateKind
from tests.sim.checks import Acknowledged, Checks, Violation
from tests.sim.kernel import Kernel, Machine, Process
from tests.sim.manager import Manager, Table
from tests.sim.network import Network
from tests.sim.updates import Message
from tests.storage.craq.linearizable import FOREVER, Event

CHAIN = 1
PATIENCE_MS = 30_000.0
"""Of one call."""
ATTEMPT_MS = 10_000.0
BACKOFF_MS = 100.0


class Client(Process):
    def __init__(
        self, kernel: Kernel, machine: Machine, network: Network, number: int, checks: Checks, table: Table, steps: int
    ) -> None:
        super().__init__(kernel, f"c{number}", machine)
        self._network = network
        self._checks = checks
        self._table = table
        self._identity = b"client-%d" % number
        self._number = number
        self._steps = steps
        self._written = 0
        self._sequences: dict[int, int] = {}
        """By channel."""
        self._free: list[int] = []
        self._kept: dict[bytes, int] = {}
        """Channels on which a copy of an update of that chunk may be on its way."""
        self.done = False
        self.gap_ms = 1_500.0
        self.busy = 0.0
        self.manager: Callable[[], Manager | None] = lambda: None

    def start(self) -> None:
        self.kernel.spawn(self, self._run())

    async def handle(self, method: str, *arguments: Any) -> Any:
        raise AssertionError(method)

    async def _run(self) -> None:
        random = self.kernel.random
        chunks = list(self._checks.history)
        for _ in range(self._steps):
            await self._pause()
            chunk = random.choice(chunks)
            if random.random() < 0.45:
                await self._read(chunk)
            else:
                await self._update(chunk)
        self.done = True

    async def _pause(self) -> None:
        """Sometimes it begins just when a chain has changed, or is about to know of it."""
        random, manager = self.kernel.random, self.manager()
        gap_ms = random.expovariate(1 / self.gap_ms)
        if manager is None or random.random() >= self.busy:
            await self.kernel.sleep(self, gap_ms)
            return
        await self.kernel.either(self, manager.published.next, gap_ms * 2)
        await self.kernel.sleep(self, random.choice((0.0, random.expovariate(1 / 30.0))))
        if random.random() < 0.7 and self.manager() is manager:
            self._table = manager.table

    # -- updates -----------------------------------------------------------------------------------------------

    async def _update(self, chunk: bytes) -> None:
        random = self.kernel.random
        kind = random.choice(
            (
                UpdateKind.WRITE,
                UpdateKind.WRITE,
                UpdateKind.WRITE,
                UpdateKind.WRITE,
                UpdateKind.TRUNCATE,
                UpdateKind.REMOVE,
            )
        )
        argument: object = None
        if kind is UpdateKind.WRITE:
            self._written += 1
            argument = f"{self._number}.{self._written}"
        elif kind is UpdateKind.TRUNCATE:
            argument = random.randrange(3)
        await self.update(chunk, kind, argument)

    async def update(self, chunk: bytes, kind: UpdateKind, argument: object) -> None:
        """Tried until it is stored, or its time is over."""
        random, kernel = self.kernel.random, self.kernel
        channel = self._kept.pop(chunk, 0) or (self._free.pop() if self._free else len(self._sequences) + 1)
        sequence = self._sequences[channel] = self._sequences.get(channel, 0) + 1
        identity = (self._identity, channel, sequence)
        event = Event(kernel.now, FOREVER, kind, argument)
        self._checks.history[chunk].append(event)
        self._checks.trace(self.name, f"begins {kind.name} {chunk.decode()} {argument} as {channel}/{sequence}")
        deadline_ms = kernel.now + PATIENCE_MS
        maybe = False
        backoff_ms = BACKOFF_MS
        while True:
            twice = random.random() < 0.5
            try:
                version, _ = await self._to_head(Message(chunk, kind, argument, identity), deadline_ms, twice=twice)
            except EmberError as error:
                retry = error.retry
                maybe = maybe or retry is Retry.MAYBE_APPLIED or twice
                if error.code is Code.UPDATE_STALE and not maybe:
                    raise Violation(f"an update that was sent once is stale: {error}") from error
                if retry is Retry.FINAL or kernel.now + backoff_ms > deadline_ms:
                    self._checks.trace(self.name, f"gives up {channel}/{sequence}: {error}")
                    break
                await kernel.sleep(self, random.uniform(0.5, 1.0) * backoff_ms)
                backoff_ms = min(backoff_ms * 2, 2_000.0)
                if retry is Retry.AFTER_REFRESH or maybe or error.code in (Code.UNREACHABLE, Code.TIMED_OUT):
                    await self._refresh()
                continue
            event.end = kernel.now
            self._free.append(channel)
            self._checks.count("acknowledged")
            self._checks.trace(self.name, f"has {channel}/{sequence} stored as v{version}")
            self._checks.client_has(chunk, Acknowledged(event.start, kernel.now, version, identity))
            return
        self._checks.count("failed")
        if maybe:
            self._kept[chunk] = channel
        else:
            self._free.append(channel)
            self._checks.history[chunk].remove(event)

    async def _to_head(self, message: Message, deadline_ms: float, *, twice: bool) -> tuple[int, int]:
        serving = self._serving()
        time_ms = min(ATTEMPT_MS, max(deadline_ms - self.kernel.now, 1.0))
        answer: tuple[int, int] = await self._network.call(
            self,
            f"n{serving[0].node}",
            "update",
            CHAIN,
            self._table.chains[CHAIN].version,
            message,
            time_ms,
            timeout_ms=time_ms,
            twice=twice,
        )
        return answer

    def _serving(self) -> list[ChainTarget]:
        serving = [one for one in self._table.chains[CHAIN].targets if one.state is PublicState.SERVING]
        if not serving:
            raise EmberError(Code.CHAIN_LOST, "nobody serves")
        return serving

    # -- reads -------------------------------------------------------------------------------------------------

    async def _read(self, chunk: bytes) -> None:
        random, kernel = self.kernel.random, self.kernel
        deadline_ms = kernel.now + PATIENCE_MS
        while kernel.now < deadline_ms:
            event = Event(kernel.now, FOREVER, None)
            try:
                one = random.choice(self._serving())
                version, content = await self._network.call(
                    self,
                    f"n{one.node}",
                    "read",
                    CHAIN,
                    self._table.chains[CHAIN].version,
                    chunk,
                    timeout_ms=3_000.0,
                )
            except EmberError as error:
                await kernel.sleep(self, random.uniform(20.0, 300.0))
                if error.retry is not Retry.SAFE or error.code is Code.UNREACHABLE:
                    await self._refresh()
                continue
            event.end = kernel.now
            event.result = content
            self._checks.history[chunk].append(event)
            self._checks.count("reads")
            if self._checks.traced:
                self._checks.trace(self.name, f"reads {chunk.decode()} at {one.target}: v{version} {content}")
            return

    async def _refresh(self) -> None:
        try:
            table: Table = await self._network.call(self, "manager", "routing", timeout_ms=1_000.0)
        except EmberError:
            return
        if table.version > self._table.version:
            self._table = table
