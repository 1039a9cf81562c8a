"""What is promised, checked while it runs and at its end."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fs_common.records.routing import PublicState
from fs_common.records.storage import UpdateKind
from fs_storage.craq.apportion import Told
from fs_storage.craq.operation import Operation
from fs_storage.craq.position import Position
from fs_storage.target import Target
from tests.storage.craq.linearizable import Event, TooHard, linearizable
from tests.storage.craq.model_store import Content

if TYPE_CHECKING:
    from tests.sim.manager import MetadataStore
    from tests.sim.store import Store


class Violation(AssertionError):
    """A promise of the protocol is broken."""


class Acknowledged:
    """One update that its client was told is stored."""

    __slots__ = ("ended_ms", "identity", "started_ms", "version")

    def __init__(self, started_ms: float, ended_ms: float, version: int, identity: tuple[bytes, int, int]) -> None:
        self.started_ms = started_ms
        self.ended_ms = ended_ms
        self.version = version
        self.identity = identity


class Checks:
    def __init__(self, chunks: list[bytes], now: Callable[[], float], write: Callable[[str], None] | None) -> None:
        self._now = now
        self._write = write
        self.history: dict[bytes, list[Event]] = {chunk: [] for chunk in chunks}
        self.acknowledged: dict[bytes, list[Acknowledged]] = {chunk: [] for chunk in chunks}
        self.statistics: dict[str, int] = {}
        self.stored_metadata: MetadataStore | None = None
        self.stores: Callable[[int], Store | None] = lambda target: None
        self.newest: dict[bytes, tuple[int, Content]] = dict.fromkeys(chunks, (0, None))
        """The newest version that a client was told of, or would have been."""
        self.told = dict.fromkeys(chunks, False)
        """Whether its content is known."""
        self.look: Callable[[], None] = lambda: None
        """See what readers would be told: called when anything has changed."""
        self.forgiving = False
        """All that survived lost their power, and what they had in memory only."""

    def trace(self, who: str, what: str) -> None:
        if self._write is not None:
            self._write(f"{self._now():10.1f} {who:8} {what}")

    @property
    def traced(self) -> bool:
        return self._write is not None

    def count(self, what: str, number: int = 1) -> None:
        self.statistics[what] = self.statistics.get(what, 0) + number

    # -- while it runs -----------------------------------------------------------------------------------------

    def acts(self, target: Target, position: Position) -> None:
        """It answers for its chain: then it serves by what the manager has committed."""
        assert self.stored_metadata is not None
        chain = self.stored_metadata.table.chains[position.chain]
        for one in chain.targets:
            if one.target == target.id and one.state is PublicState.SERVING:
                return
        raise Violation(
            f"target {target.id} serves at v{position.version}, and is not SERVING any more at v{chain.version}"
        )

    def behind(self, target: Target, told: Told) -> None:
        if not self.forgiving:
            raise Violation(f"target {target.id} misses version {told.version}, which the tail has committed")

    def acknowledges(self, target: Target, operation: Operation) -> None:
        """A head tells a client that an update is stored."""
        position = target.position
        if position is not None and target.serves:
            self.acts(target, position)
        if operation.version > self.newest[operation.chunk][0] and not self.forgiving:
            self.newest[operation.chunk] = operation.version, None
            self.told[operation.chunk] = operation.kind is UpdateKind.REMOVE

    def seen(self, chunk: bytes, target: Target, version: int, content: Content) -> None:
        """A reader that came to `target` just now would be told this; readers see versions grow."""
        newest, what = self.newest[chunk]
        if version >= newest:
            if version == newest and content != what and self.told[chunk]:
                raise Violation(f"{chunk!r}: version {version} is {what}, and {content} at target {target.id}")
            self.newest[chunk] = version, content
            self.told[chunk] = True
        elif content is not None or what is not None or not self.told[chunk]:
            # Of a removal that another one follows, a replica may say either.
            raise Violation(
                f"{chunk!r}: target {target.id} would answer with version {version} {content}, {newest} {what} was seen"
            )

    def client_has(self, chunk: bytes, told: Acknowledged) -> None:
        """A client was told: versions grow with the time of updates."""
        if not self.forgiving:
            for before in self.acknowledged[chunk]:
                if before.ended_ms < told.started_ms and before.version >= told.version:
                    raise Violation(
                        f"{chunk!r}: version {told.version} of {told.identity} began after version {before.version} of"
                        f" {before.identity} was acknowledged"
                    )
                if before.version == told.version and before.identity != told.identity:
                    raise Violation(f"{chunk!r}: version {told.version} was given to two updates")
        self.acknowledged[chunk].append(told)

    # -- at the end --------------------------------------------------------------------------------------------

    def end(self, chunk: bytes, stores: dict[int, Any]) -> None:
        """Faults are over, and everything rests: what the replicas that serve have of a chunk."""
        found = {}
        for target, store in stores.items():
            entry = store.chunks.get(chunk)
            committed = entry.committed if entry is not None else None
            content = committed.content if committed is not None else None
            found[target] = (committed.number if committed is not None and content is not None else 0, content)
        if len(set(found.values())) != 1:
            raise Violation(f"{chunk!r}: replicas differ in the end: {found}")
        (_, content) = next(iter(found.values()))
        if content is not None and len(set(content)) != len(content):
            raise Violation(f"{chunk!r}: an update was applied twice: {content}")
        if self.forgiving:
            return
        history = self.history[chunk]
        now = self._now()
        history.append(Event(now + 1, now + 2, None, result=content))
        try:
            if linearizable(history):
                return
        except TooHard:
            self.count("undecided")
            return
        lines = "\n".join(
            f"  {event.start:10.1f} {event.end:10.1f} "
            + (f"read {event.result}" if event.kind is None else f"{event.kind.name} {event.argument}")
            for event in sorted(history, key=lambda event: event.start)
        )
        raise Violation(f"{chunk!r}: not linearizable:\n{lines}")
