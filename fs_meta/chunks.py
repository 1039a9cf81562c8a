"""The metadata service as a client of the storage daemons: measure, cut and remove a file's chunks.

Every request goes to the head of its chain, as the newest routing of this process has it. A call that may be repeated
is repeated, after a growing pause, until the total time is over; each attempt looks at the routing anew, so a chain
that changed is met where it is now. A change of the routing ends pauses, and calls to those who are no heads now: a
daemon that was stopped does not answer. A cut's update keeps its identity (client, channel, sequence) over its
attempts, so that the chain applies it once.

A chain that nobody serves is CHAIN_LOST: at the end of its time for who wants to know a length or to cut, since a
daemon may be on its way back; at once for the collector, which comes again later.

Tasks: one for each chain of a file, for the length of a call; the call waits for all of them, also when one fails.

Records: `fs_common.records.storage`.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from fs_common.chain_lost import chain_lost
from fs_common.channels import ChannelPool
from fs_common.errors import Code, EmberError, Retry, code_of
from fs_common.layout import Durability, Layout, stripe_chains
from fs_common.limits import REMOVE_FILES_MAX
from fs_common.methods import LIST_CHUNKS, QUERY_LAST_CHUNK, REMOVE_CHUNKS, REMOVE_FILES, UPDATE_CHUNKS, Method
from fs_common.records.routing import Chain, PublicState, Routing
from fs_common.records.storage import (
    ListChunks,
    QueryLastChunk,
    RemoveChunks,
    RemoveFiles,
    UpdateChunks,
    UpdateItem,
    UpdateKind,
)
from fs_common.rpc import Ticket

T = TypeVar("T")
Address = tuple[str, int]

REMOVE_LIMIT: Final = 256
"""Chunks for each removing request: bounds how long the head works for one call."""
CALL_TIMEOUT_S: Final = 5.0
_PAUSE_MIN_S: Final = 0.02
_PAUSE_MAX_S: Final = 0.25
"""Short, as a daemon may hear of a routing later than this process."""
_LATER: Final = frozenset({Code.CHAIN_LOST, Code.BUSY, Code.CLUSTER_NOT_READY})
"""What the collector does not wait for."""


class Caller(Protocol):
    """What is used of `fs_common.peers.PeerPool`."""

    async def call(
        self, address: tuple[str, int], method: Method, request: msgspec.Struct, *, timeout: float, ticket: Ticket
    ) -> Any: ...


class _Map:
    """A routing, indexed."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self.chains = {chain.chain: chain for chain in routing.chains}
        self.addresses = {node.node: (node.host, node.port) for node in routing.nodes}
        self.tables = {(table.table, table.version): table.chains for table in routing.tables}


class ChunkClient:
    """Implements `fs_meta.ops.context.Chunks`."""

    def __init__(
        self, caller: Caller, routing: Callable[[], Routing | None], client: bytes, *, timeout_s: float
    ) -> None:
        self._caller = caller
        self._routing = routing
        self._client = client
        """`ClientId` of this process: with channel and sequence, the identity of its updates."""
        self.timeout_s = timeout_s
        """Of all tries for one operation; may be changed."""
        """Total time of `measure` and `cut`."""
        self._channels = ChannelPool()
        self._removals = itertools.count(1)
        """Sequences of removing requests."""
        self._map: _Map | None = None
        """Of the routing that was newest when it was last looked at."""
        self._flights: dict[Ticket, tuple[int, Address]] = {}
        """Calls under way, with the chain and whom they took for its head."""
        self._changed = asyncio.Event()
        """Set, and replaced, when there is another routing."""

    def routing_changed(self, _: Routing) -> None:
        """To be called when there is a newer routing: nobody waits any longer for what it has changed."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for ticket, (chain, address) in list(self._flights.items()):
            try:
                head = self._head(chain)[1]
            except EmberError:
                continue  # whoever was the head may answer yet
            if head != address:
                ticket.abandon(EmberError(Code.CHAIN_BROKEN, f"chain {chain} has another head now"))

    async def measure(self, inode: int, layout: Layout) -> int:
        deadline = self._deadline()

        async def end_on(chain: int) -> int:
            last = await self._last(chain, inode, deadline)
            return 0 if last.index < 0 else int(last.index * layout.chunk_size + last.length)

        return max(await _all([end_on(chain) for chain in self._chains(layout)]))

    async def cut(self, inode: int, layout: Layout, length: int) -> None:
        deadline = self._deadline()
        boundary, within = divmod(length, layout.chunk_size)
        chains = self._chains(layout)
        boundary_chain = chains[boundary % len(chains)] if within else None

        async def cut_on(chain: int) -> None:
            await self._remove_on(chain, inode, boundary + 1 if within else boundary, deadline)
            if chain != boundary_chain:
                return
            # Truncating would make a hole into a chunk of zeros, so look first; at this chunk, since a writer may have
            # made others behind it by now. What it puts into this one after the look is no byte of before.
            if await self._length_of(chain, inode, boundary, deadline) > within:
                await self._truncate_chunk(chain, inode, boundary, within, layout, deadline)

        await _all([cut_on(chain) for chain in chains])

    async def remove(self, files: Sequence[tuple[int, Layout]]) -> list[EmberError | None]:
        """What nobody serves, or who has too much to do, is left for later at once: the collector comes again."""
        deadline = self._deadline()
        failures: list[EmberError | None] = [None] * len(files)
        places: dict[int, list[int]] = {}
        """Chain -> which files may have chunks on it."""
        for place, (_, layout) in enumerate(files):
            try:
                for chain in self._chains(layout):
                    places.setdefault(chain, []).append(place)
            except EmberError as error:
                failures[place] = error

        async def remove_on(chain: int, wanted: list[int]) -> None:
            done = 0
            while done < len(wanted):
                inodes = [files[place][0] for place in wanted[done : done + REMOVE_FILES_MAX]]
                try:
                    reply = await self._remove_files(chain, inodes, deadline)
                    if reply.removed == reply.finished == 0:
                        # No state of this process, but another's word: that ends nothing here.
                        raise EmberError(Code.BAD_BODY, f"chain {chain}: a removal that neither ends nor gets on")
                except EmberError as error:
                    for place in wanted[done:]:
                        failures[place] = error
                    return
                done += reply.finished

        await _all([remove_on(chain, wanted) for chain, wanted in places.items()])
        return failures

    async def _remove_files(self, chain_id: int, inodes: list[int], deadline: float) -> Any:
        def request(chain: Chain) -> RemoveFiles:
            return RemoveFiles(chain.chain, chain.version, inodes, self._client)

        return await self._on_head(chain_id, REMOVE_FILES, request, deadline, later=_LATER)

    async def _remove_on(self, chain_id: int, inode: int, first: int, deadline: float) -> None:
        more = True
        while more:
            sequence = next(self._removals)

            def request(chain: Chain, sequence: int = sequence) -> RemoveChunks:
                return RemoveChunks(chain.chain, chain.version, inode, first, REMOVE_LIMIT, self._client, sequence)

            more = (await self._on_head(chain_id, REMOVE_CHUNKS, request, deadline)).more

    async def _last(self, chain_id: int, inode: int, deadline: float) -> Any:
        def request(chain: Chain) -> QueryLastChunk:
            return QueryLastChunk(chain.chain, chain.version, inode)

        return await self._on_head(chain_id, QUERY_LAST_CHUNK, request, deadline)

    async def _length_of(self, chain_id: int, inode: int, index: int, deadline: float) -> int:
        """Bytes of one chunk, all updates included that have begun; 0: there is none."""

        def request(chain: Chain) -> ListChunks:
            return ListChunks(chain.chain, chain.version, inode, index, 1)

        listed = await self._on_head(chain_id, LIST_CHUNKS, request, deadline)
        return int(listed.lengths[0]) if listed.indexes[:1] == [index] else 0

    async def _truncate_chunk(
        self, chain_id: int, inode: int, index: int, length: int, layout: Layout, deadline: float
    ) -> None:
        chunk = inode, index
        channel, sequence, _ = self._channels.take(chunk)

        def request(chain: Chain) -> UpdateChunks:
            item = UpdateItem(
                chain.chain,
                chain.version,
                inode,
                index,
                UpdateKind.TRUNCATE,
                length,
                0,
                layout.chunk_size,
                channel,
                sequence,
                durability=Durability.DISK,
            )
            return UpdateChunks(self._client, [item])

        over = False
        try:
            await self._on_head(chain_id, UPDATE_CHUNKS, request, deadline)
            over = True
        finally:
            self._channels.give_back(chunk, channel, over=over)

    async def _on_head(
        self,
        chain_id: int,
        method: Method,
        make_request: Callable[[Chain], msgspec.Struct],
        deadline: float,
        later: Collection[Code] = (),
    ) -> Any:
        """Call the head of a chain, again and again until the deadline, but for errors in `later`."""
        loop = asyncio.get_running_loop()
        pause_s = _PAUSE_MIN_S
        while True:
            changed = self._changed
            try:
                chain, address = self._head(chain_id)
                timeout = max(min(CALL_TIMEOUT_S, deadline - loop.time()), 0.001)
                reply = await self._call(chain_id, address, method, make_request(chain), timeout)
                for failure in getattr(reply, "errors", ()):
                    raise EmberError(code_of(failure.code), failure.message)
                return reply
            except EmberError as error:
                if error.retry is Retry.FINAL or error.code in later or loop.time() + pause_s >= deadline:
                    raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await changed.wait()
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    async def _call(
        self, chain_id: int, address: Address, method: Method, request: msgspec.Struct, timeout: float
    ) -> Any:
        ticket = Ticket()
        self._flights[ticket] = chain_id, address
        try:
            return await self._caller.call(address, method, request, timeout=timeout, ticket=ticket)
        finally:
            del self._flights[ticket]

    def _head(self, chain_id: int) -> tuple[Chain, Address]:
        known = self._newest()
        chain = known.chains.get(chain_id)
        if chain is None:
            raise EmberError(Code.CHAIN_UNKNOWN, f"the routing has no chain {chain_id}")
        for target in chain.targets:
            if target.state is PublicState.SERVING:
                return chain, known.addresses[target.node]
        raise chain_lost(known.routing, chain_id)

    def _chains(self, layout: Layout) -> tuple[int, ...]:
        """Chunk i is on element i mod length."""
        table = self._newest().tables.get((layout.table, layout.table_version))
        if table is None:
            raise EmberError(
                Code.CLUSTER_NOT_READY, f"the routing has no chain table {layout.table} version {layout.table_version}"
            )
        return stripe_chains(layout, table)

    def _newest(self) -> _Map:
        routing = self._routing()
        if routing is None:
            raise EmberError(Code.CLUSTER_NOT_READY, "no routing yet: wait for the storage daemons to register")
        if self._map is None or self._map.routing is not routing:
            self._map = _Map(routing)
        return self._map

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.timeout_s


async def _all(works: list[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all to their ends, side by side; then return their results or raise the first error among them.

    Not a TaskGroup: a handler's first step runs outside of any task.
    """
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    results = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results
