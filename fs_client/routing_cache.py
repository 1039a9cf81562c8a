"""Who serves which chunk: the cluster's routing, and how this client's reads and updates use it.

Owns the newest routing it has seen, one `Server` for each storage node (load and suspicion, kept across routings), and
the plans made from them. A plan says for every chunk of a file which replica this client reads it from: a fixed one
for each chunk, so that the page caches of the replicas hold different chunks, spread so that consecutive chunks go to
different servers. Servers that failed lately (suspects), that answer much later than others (slow) and nodes that the
manager calls failed are left out while another replica is there.

Plans hold for one generation. Each change (new routing, a suspect comes or goes) begins another generation; a file
reference compares its plan's generation before it uses it.

Whoever waits for a change of a chain waits here (`newer`): the service is asked by one task, which is there while
somebody waits.

Used on the event loop only. Concurrency: docs/concurrency/client.md.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from math import lcm
from typing import Any, NamedTuple

from fs_client.file_ref import FileRef
from fs_client.options import Address
from fs_client.settle import ended
from fs_common import tracing
from fs_common.chain_lost import chain_lost
from fs_common.errors import Code, EmberError, Retry
from fs_common.layout import Layout, stripe_chains
from fs_common.records.routing import Chain, NodeState, PublicState, Routing

logger = logging.getLogger(__name__)

SUSPECT_FIRST_S = 1.0
"""How long a server that failed is left out of reads; doubles with each failure in a row."""
SUSPECT_MAX_S = 30.0
SLOW_S = 0.05
"""Answers that come sooner are fast enough."""
SLOW_FACTOR = 4.0
"""A server is slow if it takes so many times as long as the fastest of the others."""
SLOW_AVOIDED_S = 2.0
"""How long a slow server is left out of reads, before it is tried again."""
LATENCY_WEIGHT = 1 / 8
"""Of the last answer in the mean."""
PLANS_MAX = 4096
"""Files may have as many orders of chains as there are files."""
_PERIOD_MAX = 4096
"""Longest table of a plan; replicas beyond it are still found by failover."""

_generations = itertools.count(1)
"""Of all caches of this process, so that a file reference that two clients use, or that was inherited through fork, is
never read by another client's plan."""

FetchRouting = Callable[[int, float, float], Awaitable[Routing | None]]
"""Known version, time limit in seconds, and how long of that the service may wait for a newer one; to a newer routing,
or None if it is the current one."""
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
TRY_REFRESH_S = 2.0
"""What a refresh may cost that is only a hope."""
WATCH_S = 5.0
"""How long the service holds a question back while there is nothing new. Of each client that waits for a change one is
open: ten thousand clients that all wait cost the service 2,000 answers a second."""
WATCH_MARGIN_S = 2.0
"""How much later its answer may come."""
WATCH_PAUSE_S = 0.25
"""Before the next question, after one that failed, or that an older service has answered at once."""


@dataclass(slots=True, eq=False)
class Server:
    """A storage node as this client sees it."""

    node: int
    address: Address
    outstanding: int = 0
    """Payload bytes asked of it or sent to it and not answered; > 0 while calls are in flight."""
    failures: int = 0
    """In a row."""
    suspect_until: float = 0.0
    """Monotonic time; until then reads avoid it."""
    slow_until: float = 0.0
    """The same, because it answers, but much later than others."""
    latency_s: float = 0.0
    """Of its answers to reads: a mean in which the last ones count most."""
    up: bool = True
    """What the manager says."""

    def __str__(self) -> str:
        return f"node {self.node} ({self.address})"

    def is_well(self, now: float) -> bool:
        """Nothing speaks against reading from it."""
        return self.up and self.suspect_until <= now and self.slow_until <= now


class Route(NamedTuple):
    """One chunk's place."""

    chain: int
    version: int
    server: Server | None
    """The replica to read from; None: the chain has no serving replica."""
    replicas: tuple[Server, ...]
    """All serving replicas, those in good health first."""
    head: Server | None
    """Where updates enter; None: nobody serves."""


class Plan(NamedTuple):
    """Chunk `index` of file `inode` is on `routes[(index + inode * stripe) % len(routes)]`."""

    generation: int
    chunk_size: int
    stripe: int
    routes: tuple[Route, ...]

    def route(self, inode: int, index: int) -> Route:
        return self.routes[(index + inode * self.stripe) % len(self.routes)]


class RoutingCache:
    """See the module. `generation` is what a valid plan has."""

    def __init__(self, fetch: FetchRouting, spawn: Spawn | None = None) -> None:
        """`spawn` makes the task that watches; by default a task of the running loop is made."""
        self._fetch = fetch
        self._spawn = spawn
        self._watcher: asyncio.Task[None] | None = None
        """Asks for news while somebody waits for them; ends by itself, or with `close`."""
        self._watch_until = 0.0
        """Monotonic time until which news are wanted, though nobody waits."""
        self._news: asyncio.Future[None] | None = None
        """Of those who wait for another routing; replaced when it has come."""
        self._waiting = 0
        """How many those are."""
        self._refreshing = asyncio.Lock()
        """Held by the one fetch that runs; guards `_routing`."""
        self._routing = Routing(version=0, cluster="", nodes=[], chains=[], tables=[])
        self._servers: dict[int, Server] = {}
        self._chains: dict[int, Chain] = {}
        self._tables: dict[tuple[int, int], list[int]] = {}
        self._plans: dict[tuple[int, tuple[int, ...]], Plan] = {}
        """By chunk size and chains; of the current generation."""
        self.adopted: list[Callable[[], None]] = []
        """Called when there is another routing."""
        self._serving_targets: dict[int, frozenset[int]] = {}
        """By chain, as far as somebody has asked; of this routing."""
        self._suspects_change = float("inf")
        """Monotonic time at which the first suspicion ends."""
        self.generation = next(_generations)

    @property
    def routing(self) -> Routing:
        return self._routing

    @property
    def servers(self) -> dict[int, Server]:
        return self._servers

    async def refresh(self, known: int, timeout_s: float) -> None:
        """Fetch routing, unless a newer one than `known` is here already. Concurrent callers share one fetch."""
        async with self._refreshing:
            if self._routing.version > known:
                return
            had = self._routing.version
            routing = await self._fetch(had, timeout_s, 0.0)
            # A newer one may have come otherwise meanwhile. (An older one is the newest of a store that was restored.)
            if routing is not None and (routing.version > self._routing.version or had == self._routing.version):
                self.adopt(routing)

    async def refresh_if_possible(self, known: int, timeout_s: float) -> None:
        """Like `refresh`, but a metadata service that does not answer is no error: what is known is used on."""
        try:
            await self.refresh(known, max(min(timeout_s, TRY_REFRESH_S), 0.001))
        except EmberError as error:
            if error.retry is Retry.FINAL:
                raise
            logger.debug("routing is not refreshed: %s", error)

    async def newer(self, known: int, timeout_s: float) -> bool:
        """Wait until the routing is newer than version `known`, for `timeout_s` at most. Whether it is.

        The service is asked meanwhile, by one question of all who wait; one that does not answer is no error.
        """
        if self._routing.version > known:
            return True
        if timeout_s > 0:
            if self._news is None:
                self._news = asyncio.get_running_loop().create_future()
            news = self._news
            self._waiting += 1
            try:
                self._ask()
                await asyncio.wait([news], timeout=timeout_s)
            finally:
                if news is self._news:
                    self._waiting -= 1
        return self._routing.version > known

    def watch(self, time_s: float) -> None:
        """See to it that newer routing comes here as soon as there is one, for the next `time_s`."""
        self._watch_until = max(self._watch_until, time.monotonic() + time_s)
        self._ask()

    def _ask(self) -> None:
        if self._watcher is None or self._watcher.done():
            self._watcher = (self._spawn or asyncio.get_running_loop().create_task)(self._watch())

    async def _watch(self) -> None:
        tracing.enter(0)
        while (began := time.monotonic()) < self._watch_until or self._waiting:
            known = self._routing.version
            try:
                routing = await self._fetch(known, WATCH_S + WATCH_MARGIN_S, WATCH_S)
            except EmberError as error:
                logger.debug("no news of the routing: %s", error)
                routing = None
            if routing is not None and routing.version > self._routing.version:
                self.adopt(routing)
            elif time.monotonic() - began < WATCH_PAUSE_S:
                await asyncio.sleep(WATCH_PAUSE_S)

    async def close(self) -> None:
        """Ask for no more news."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await ended([watcher])

    def adopt(self, routing: Routing) -> None:
        """Use this routing from now on."""
        servers: dict[int, Server] = {}
        for node in routing.nodes:
            address = Address(node.host, node.port)
            server = self._servers.get(node.node)
            if server is None or server.address != address:
                server = Server(node.node, address)
            up = node.state == NodeState.UP
            if up and not server.up:
                server.failures, server.suspect_until = 0, 0.0  # it has come back: what was, was before
            server.up = up
            servers[node.node] = server
        self._servers = servers
        self._chains = {chain.chain: chain for chain in routing.chains}
        self._tables = {(table.table, table.version): table.chains for table in routing.tables}
        self._routing = routing
        self._change()
        logger.debug("routing version %d: %d nodes, %d chains", routing.version, len(servers), len(self._chains))
        self._serving_targets.clear()
        for adopted in self.adopted:
            adopted()
        news, self._news, self._waiting = self._news, None, 0
        if news is not None and not news.done():
            news.set_result(None)

    def _change(self) -> None:
        self.generation = next(_generations)
        self._plans.clear()

    def plan(self, file: FileRef) -> Plan:
        """The valid plan of a file, kept with it. Raises CHAIN_UNKNOWN if this routing lacks the file's chain table."""
        plan = file.plan
        if plan is None or plan.generation != self.generation:
            plan = file.plan = self._plan(file.layout)
        return plan

    def _plan(self, layout: Layout) -> Plan:
        table = self._tables.get((layout.table, layout.table_version))
        if not table:
            name = f"chain table {layout.table} version {layout.table_version}"
            raise EmberError(Code.CHAIN_UNKNOWN, f"{name} is not in routing version {self._routing.version}")
        chains = stripe_chains(layout, table)
        plan = self._plans.get((layout.chunk_size, chains))
        if plan is None:
            plan = self._make_plan(layout.chunk_size, chains)
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            self._plans[layout.chunk_size, chains] = plan
        return plan

    def _make_plan(self, chunk_size: int, chains: tuple[int, ...]) -> Plan:
        now = time.monotonic()
        stripe = len(chains)
        found = [self._serving(chain, now) for chain in chains]
        turns = lcm(*(healthy for _, _, _, healthy in found if healthy), 1)
        turns = max(1, min(turns, _PERIOD_MAX // stripe))
        routes = []
        for turn in range(turns):
            for chain, replicas, head, healthy in found:
                server = replicas[turn % healthy] if healthy else (replicas[0] if replicas else None)
                routes.append(Route(chain.chain, chain.version, server, replicas, head))
        return Plan(self.generation, chunk_size, stripe, tuple(routes))

    def _serving(self, chain_id: int, now: float) -> tuple[Chain, tuple[Server, ...], Server | None, int]:
        """A chain, its serving replicas (good ones first), its head, and how many to spread reads over."""
        chain = self._chains.get(chain_id)
        if chain is None:
            text = f"chain {chain_id} is not in routing version {self._routing.version}"
            raise EmberError(Code.CHAIN_UNKNOWN, text)
        serving = [
            self._servers[target.node]
            for target in chain.targets
            if target.state == PublicState.SERVING and target.node in self._servers
        ]
        healthy = [server for server in serving if server.is_well(now)]
        rest = [server for server in serving if server not in healthy]
        head = serving[0] if serving else None
        return chain, tuple(healthy + rest), head, len(healthy) or len(serving)

    def is_served_by(self, chain_id: int, server: Server, *, head: bool = False) -> bool:
        """Whether `server` serves a chain; `head`: and is its head. Unknown chains count as served."""
        chain = self._chains.get(chain_id)
        if chain is None:
            return True
        if self._servers.get(server.node) is not server:
            return False
        for target in chain.targets:
            if target.state == PublicState.SERVING:
                if target.node == server.node:
                    return True
                if head:
                    return False
        return False

    def serving(self, chain: int) -> tuple[int, tuple[Server, ...]]:
        """A chain's version and serving replicas. Raises CHAIN_UNKNOWN."""
        known, replicas, _, _ = self._serving(chain, time.monotonic())
        return known.version, replicas

    def chain_version(self, chain_id: int) -> int | None:
        """None: the chain is unknown."""
        chain = self._chains.get(chain_id)
        return None if chain is None else chain.version

    def serving_targets(self, chain_id: int) -> frozenset[int]:
        """Ids of the targets that serve a chain; empty for one that is unknown."""
        serving = self._serving_targets.get(chain_id)
        if serving is None:
            chain = self._chains.get(chain_id)
            targets = () if chain is None else chain.targets
            found = frozenset(target.target for target in targets if target.state == PublicState.SERVING)
            serving = self._serving_targets[chain_id] = found
        return serving

    def lost(self, chain: int) -> EmberError:
        """Why nothing can be read from a chain or written to it that nobody serves, and what to do."""
        return chain_lost(self._routing, chain)

    def suspect(self, server: Server) -> None:
        """A call to `server` failed as if it were gone: leave it out of reads for a while."""
        now = time.monotonic()
        if server.suspect_until > now:
            return
        server.failures += 1
        server.suspect_until = now + min(SUSPECT_FIRST_S * 2 ** (server.failures - 1), SUSPECT_MAX_S)
        self._suspects_change = min(self._suspects_change, server.suspect_until)
        self._change()
        logger.warning("%s does not answer; reads avoid it for %.0f s", server, server.suspect_until - now)

    def answered(self, server: Server, took_s: float) -> None:
        """A read was answered in `took_s`."""
        server.latency_s += (took_s - server.latency_s) * LATENCY_WEIGHT
        if took_s > SLOW_S and server.latency_s > SLOW_S:
            self._compare(server)

    def _compare(self, server: Server) -> None:
        """`server` takes long: leave it out of reads for a while if others don't."""
        now = time.monotonic()
        others = [other.latency_s for other in self._servers.values() if other is not server and other.is_well(now)]
        # One that was not read from so far is one that may be fast.
        if not others or server.latency_s < SLOW_FACTOR * min(others) or server.slow_until > now:
            return
        server.slow_until = now + SLOW_AVOIDED_S
        self._suspects_change = min(self._suspects_change, server.slow_until)
        self._change()
        logger.info("%s takes %.0f ms for a read; others are asked for now", server, server.latency_s * 1000)

    def trust(self, server: Server) -> None:
        """A call to `server` was answered after failures."""
        server.failures = 0
        if server.suspect_until:
            server.suspect_until = 0.0
            self._change()

    def expire_suspects(self) -> None:
        """Begin a new generation if a suspicion has ended. Called before reads are planned; cheap."""
        if self._suspects_change == float("inf"):
            return
        now = time.monotonic()
        if now >= self._suspects_change:
            ends = [until for server in self._servers.values() for until in (server.suspect_until, server.slow_until)]
            left = [until for until in ends if until > now]
            self._suspects_change = min(left, default=float("inf"))
            self._change()
