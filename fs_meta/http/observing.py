"""What is known of the whole cluster, for the console: the samples of the last hour, and a look at everything now.

Runs on the metadata service's loop, and is careful with it: a round asks `ASKED_AT_ONCE` daemons at a time, a look at
many chains goes in slices, and what only somebody who looks needs (space, chains, clients) is not gathered while nobody
does. `Observation`s hold values that nobody changes any more, so that another thread may work with them.

Tasks: `run`, one round of questions every `INTERVAL_S`, owned by the server. Page: docs/concurrency/http.md.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from fs_common.errors import EmberError
from fs_common.methods import SLOW_OPERATIONS, SPACE_INFO, STATS, Method
from fs_common.peers import PeerPool
from fs_common.records.chains import ChainView, ListChainsReply
from fs_common.records.routing import NodeInfo, NodeState, Routing
from fs_common.records.session import Empty, Stats
from fs_common.records.slow import SlowOperation, SlowOperationsReply
from fs_common.records.storage import SpaceInfo, SpaceInfoReply
from fs_common.records.targets import ListTargetsReply
from fs_meta.clients import Connected
from fs_meta.http.history import META, History, Level, Mean, Piece, Rate, Source

if TYPE_CHECKING:
    from fs_meta.manager.growth import Growth
    from fs_meta.manager.manager import Manager

INTERVAL_S: Final = 3.0
"""Between two samples: a page that shows them moves, and what 200 daemons are asked is a hundredth of the loop."""
SPAN_S: Final = 3600.0
SAMPLES_MAX: Final = int(SPAN_S / INTERVAL_S)
SAMPLES_SHOWN: Final = 20
"""With a look: enough for those who are a little behind."""
ASKED_AT_ONCE: Final = 8
ASK_TIMEOUT_S: Final = 2.0
"""A daemon that says nothing for so long is left out of a sample."""
WATCHED_S: Final = 15.0
"""After a look somebody may look again for so long."""
CHAINS_IN_A_ROW: Final = 50
"""Looked at without a break: a millisecond and a half."""
SHARE: Final = 20
"""Of the loop's time, one in so many is for looking at how chains stand."""
LOOK_S: Final = 1.0
"""How long a look waits for news before it is taken all the same."""

LOOKING: Final = frozenset(
    ("stat", "batch_stat", "lookup", "statfs", "open", "readdir", "readlink", "real_path", "usage", "access")
) | {"get_xattr", "list_xattrs", "get_lock", "kept"}
"""Namespace calls that change nothing, or leave a session at most."""

WAITING: Final = frozenset(("lock",))
"""Those that wait for others: how long says nothing."""
SLOW_SHOWN: Final = 100
_MS: Final = 1e-6
"""Of a nanosecond."""


def series_of(operations: Iterable[Method]) -> dict[Source | None, dict[str, Rate | Mean | Level]]:
    """What is kept. `operations`: the namespace's."""
    names = sorted(method.name for method in operations)
    looking = [name for name in names if name in LOOKING]
    changing = [name for name in names if name not in LOOKING]
    return {
        None: {
            "read_bytes": Rate(("bytes_read",)),
            "write_bytes": Rate(("bytes_written",)),
            "reads": Rate(("reads",)),
            "writes": Rate(("updates_of_clients",)),
            "read_ms": Mean(("rpc_read_chunks_ns",), ("rpc_read_chunks_calls",), _MS),
            "write_ms": Mean(("rpc_update_chunks_ns",), ("rpc_update_chunks_calls",), _MS),
            "resync_bytes": Rate(("bytes_resynced", "bytes_mended")),
            "storage_errors": Rate(("rpc_read_chunks_errors", "rpc_update_chunks_errors", "updates_failed")),
        },
        META: {
            "looks": Rate(tuple(f"rpc_{name}_calls" for name in looking)),
            "changes": Rate(tuple(f"rpc_{name}_calls" for name in changing)),
            "refusals": Rate(tuple(f"rpc_{name}_errors" for name in names)),
            "metadata_ms": Mean(
                tuple(f"rpc_{name}_ns" for name in names if name not in WAITING),
                tuple(f"rpc_{name}_calls" for name in names if name not in WAITING),
                _MS,
            ),
            "used_bytes": Level(),
            "capacity_bytes": Level(),
            "inodes": Level(),
            "clients": Level(),
        },
    }


class Observation(NamedTuple):
    """The cluster as it is seen now."""

    now_s: float
    """On the clock of the samples."""
    routing: Routing
    spaces: list[SpaceInfoReply | None]
    """What each node of the routing said last; None: it is not up, or has not answered."""
    unheard: frozenset[int]
    """Nodes that are up and did not answer when they were asked last."""
    silent_ms: dict[int, int]
    """By node: since its last heartbeat. Of the manager alone; others know nothing of it."""
    chains: ListChainsReply | None
    """Those that are not as they should be. None: another server is the manager."""
    targets: ListTargetsReply | None
    """Nodes with their targets, and moves. None: the same."""
    clients: list[Connected]
    inodes: int
    samples: Piece
    """The newest ones. Who lacks more asks the history."""
    rates: Mapping[Source, Mapping[str, float]]
    """Of the last sample (`History.rates`)."""
    slow: list[tuple[Source, SlowOperation]]
    """Where it was, and what: the newest first."""


class Observer:
    """Of one metadata server."""

    def __init__(
        self,
        *,
        routing: Callable[[], Routing | None],
        pool: PeerPool,
        stats: Callable[[], dict[str, int]],
        slow: Callable[[], list[SlowOperation]],
        clients: Callable[[], list[Connected]],
        operations: Iterable[Method],
        clock: Callable[[], float],
    ) -> None:
        """`stats`, `slow`: this server's own counters, and slow operations."""
        self.history = History(series_of(operations), samples_max=SAMPLES_MAX, span_s=SPAN_S)
        self._routing = routing
        self._pool = pool
        self._stats = stats
        self._slow = slow
        self._clients = clients
        self._clock = clock
        self._manager: Manager | None = None
        self._growth: Growth | None = None
        self._spaces: dict[int, SpaceInfoReply] = {}
        """By node: of those that answered in the last round of a time in which somebody looked."""
        self._slow_there: dict[int, tuple[int, list[SlowOperation]]] = {}
        """By node: how many it had counted when it was asked, and the newest of them."""
        self._unheard: frozenset[int] = frozenset()
        self._managed_now: tuple[ListChainsReply | None, ListTargetsReply | None, dict[int, int]] = (None, None, {})
        self._managed_until_s = 0.0
        """Before that what the manager said last is said again: it took the loop's time."""
        self._watched_until_s = 0.0
        self._news = asyncio.Event()
        """Set, and replaced, by whatever a look should not wait for."""
        self._round = asyncio.Event()
        """Set by the first look after a while: the next round does not wait for its time."""

    def manage(self, manager: "Manager", growth: "Growth") -> None:
        """Whom to ask how chains stand, and what moves. Before, and without, nothing is said of that."""
        self._manager = manager
        self._growth = growth

    # -- samples ---------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """A round every `INTERVAL_S`, until `stop` is set."""
        stopping = asyncio.create_task(stop.wait())
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        try:
            while not stop.is_set():
                await self.round()
                now_s = loop.time()
                next_s = max(next_s + INTERVAL_S, now_s)
                early = asyncio.create_task(self._round.wait())
                try:
                    await asyncio.wait((stopping, early), timeout=next_s - now_s, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    early.cancel()
                self._round.clear()
        finally:
            stopping.cancel()

    async def round(self) -> None:
        """Ask all daemons, and take a sample."""
        watched = self._clock() < self._watched_until_s
        routing = self._routing()
        nodes = [] if routing is None else [node for node in routing.nodes if node.state is NodeState.UP]
        readings: dict[Source, Mapping[str, int]] = {}
        spaces: dict[int, SpaceInfoReply] = {}
        left = iter(nodes)

        async def ask() -> None:
            for node in left:
                counters = await self._ask(node, STATS, Empty())
                if isinstance(counters, Stats):
                    readings[node.node] = counters.counters
                    if not watched:
                        continue
                    space = await self._ask(node, SPACE_INFO, SpaceInfo())
                    if isinstance(space, SpaceInfoReply):
                        spaces[node.node] = space
                    await self._ask_slow(node, counters.counters.get("slow_operations", 0))

        await asyncio.gather(*(ask() for _ in range(min(ASKED_AT_ONCE, len(nodes)))))
        stats = self._stats()
        # The others are levels: they go down, too.
        readings[META] = {name: value for name, value in stats.items() if name.startswith("rpc_")}
        levels = {"inodes": float(stats.get("inodes_in_use", 0)), "clients": float(stats.get("clients", 0))}
        kept = [] if routing is None else [node for node in routing.nodes if node.state is not NodeState.LEFT]
        if kept:
            levels |= {
                "used_bytes": float(sum(node.used_bytes for node in kept)),
                "capacity_bytes": float(sum(node.capacity_bytes for node in kept)),
            }
        self.history.add(self._clock(), readings, levels, whole=(META,))
        self._spaces = spaces
        listed = () if routing is None else {node.node for node in routing.nodes}
        for gone in [node for node in self._slow_there if node not in listed]:
            del self._slow_there[gone]
        self._unheard = frozenset(node.node for node in nodes if node.node not in readings)
        if watched:
            self.tell()

    async def _ask_slow(self, node: NodeInfo, count: int) -> None:
        """What was slow there, if something was that is not known yet."""
        if count == self._slow_there.get(node.node, (0, []))[0]:
            return
        slow = await self._ask(node, SLOW_OPERATIONS, Empty())
        if isinstance(slow, SlowOperationsReply):
            self._slow_there[node.node] = (count, slow.operations[:SLOW_SHOWN])

    def _slowest(self, routing: Routing) -> list[tuple[Source, SlowOperation]]:
        listed = {node.node for node in routing.nodes}
        found = [(META, slow) for slow in self._slow()[:SLOW_SHOWN]]
        found += [(node, slow) for node, (_, some) in self._slow_there.items() if node in listed for slow in some]
        found.sort(key=lambda each: -each[1].ended_s)
        return found[:SLOW_SHOWN]

    async def _ask(self, node: NodeInfo, method: Method, request: Empty | SpaceInfo) -> object:
        try:
            return await self._pool.call((node.host, node.port), method, request, timeout=ASK_TIMEOUT_S)
        except EmberError:
            return None

    # -- looks -----------------------------------------------------------------------------------------------------

    def tell(self, _: object = None) -> None:
        """There is something new: looks that wait are taken."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def look(self, *, known_version: int = -1, known_taken: int = -1) -> Observation:
        """The cluster now. Waits up to `LOOK_S` while the routing is of `known_version` and no more samples than
        `known_taken` were taken."""
        now_s = self._clock()
        if now_s >= self._watched_until_s:
            self._round.set()
        self._watched_until_s = now_s + WATCHED_S
        routing = self._routing()
        if routing is not None and routing.version == known_version and self.history.taken == known_taken:
            news = self._news
            try:
                async with asyncio.timeout(LOOK_S):
                    await news.wait()
            except TimeoutError:
                pass
        chains, targets, silent_ms = await self._managed()
        routing = self._routing()
        if routing is None:
            routing = Routing(0, "", [], [], [])
        stats = self._stats()
        return Observation(
            self._clock(),
            routing,
            [self._spaces.get(node.node) if node.state is NodeState.UP else None for node in routing.nodes],
            self._unheard,
            silent_ms,
            chains,
            targets,
            self._clients(),
            stats.get("inodes_in_use", 0),
            self.history.since(self.history.taken - SAMPLES_SHOWN),
            self.history.rates,
            self._slowest(routing),
        )

    async def _managed(self) -> tuple[ListChainsReply | None, ListTargetsReply | None, dict[int, int]]:
        """What the manager alone knows. At most a `SHARE`th of the loop's time goes into it."""
        if self._clock() >= self._managed_until_s:
            try:
                self._managed_now, took_s = await self._ask_manager()
            except EmberError:
                self._managed_now, took_s = (None, None, {}), 0.0
            self._managed_until_s = self._clock() + took_s * SHARE
        return self._managed_now

    async def _ask_manager(
        self,
    ) -> tuple[tuple[ListChainsReply | None, ListTargetsReply | None, dict[int, int]], float]:
        """And the time that it took. Raises NOT_MANAGER, CLOSING."""
        manager, routing = self._manager, self._routing()
        if manager is None or routing is None:
            return (None, None, {}), 0.0
        ids = [chain.chain for chain in routing.chains]
        found: list[ChainView] = []
        began_s, took_s = self._clock(), 0.0
        reply = manager.list_chains([0], degraded=True)  # of no chain: whether the cluster rests
        for first in range(0, len(ids), CHAINS_IN_A_ROW):
            if first:
                took_s += self._clock() - began_s
                await asyncio.sleep(0)
                began_s = self._clock()
            reply = manager.list_chains(ids[first : first + CHAINS_IN_A_ROW], degraded=True)
            found += reply.chains
        targets = self._growth.listed() if self._growth is not None else None
        silent_ms = {member.identity.node: silent for member, silent in manager.nodes()}
        took_s += self._clock() - began_s
        return (ListChainsReply(reply.routing_version, found, reply.resting), targets, silent_ms), took_s
