"""Calls to storage daemons: one try at one server, with its load and health kept.

Who is asked, and what happens after a failure, is decided by `read_ranges.py` and `write_path.py`.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from fs_client.flights import ChainFlight, Flight, Flights
from fs_client.permits import FetchPermit, check_granted, files_of
from fs_client.routing_cache import RoutingCache, Server
from fs_client.unsynced import Unsynced
from fs_common.errors import Code, EmberError, code_of
from fs_common.methods import SHOW_PERMIT, UPDATE_CHUNKS, Method
from fs_common.peers import PeerPool
from fs_common.records.session import ShowPermit
from fs_common.records.storage import UpdateChunks, UpdateChunksReply, UpdateItem
from fs_common.rpc import Part

READ_TRY_S = 5.0
"""One try, before time for its bytes is added: what a server that hangs costs before another is asked."""
UPDATE_TRY_S = 10.0
"""An update has no other server to go to, and sending it again makes a busy chain busier."""
SLOWEST_BYTES_PER_S = 16 << 20
"""A try may take as long as its bytes take at this rate."""
PERMITS_SHOWN_MAX = 3
"""For one try: a permit is the connection's, which may have ended when the request comes behind it."""
SERVER_GONE = frozenset({Code.PEER_GONE, Code.UNREACHABLE, Code.TIMED_OUT, Code.CLOSING})
"""Errors that speak of the server, not of the request: others will fare no better there."""

Outcome = EmberError | None
"""Why an update failed; None: it is stored."""


class StorageClient:
    def __init__(self, pool: PeerPool, routing: RoutingCache, fetch_permit: FetchPermit) -> None:
        self._pool = pool
        self._fetch_permit = fetch_permit
        self.routing = routing
        self.unsynced = Unsynced(routing.serving_targets)
        routing.adopted.append(self.unsynced.routing_changed)
        self._flights = Flights(routing, pool.received)

    async def call(
        self,
        server: Server,
        method: Method,
        request: msgspec.Struct,
        *,
        send: Sequence[Part] = (),
        into: Sequence[memoryview] = (),
        size: int,
        try_s: float,
        left_s: float,
        flight: Flight | None = None,
    ) -> Any:
        """One try at `server`, of at most `try_s` and time for the `size` bytes of payload. Raises `EmberError`.

        `flight`: of this call, if somebody wants to look at it meanwhile.
        """
        timeout = max(min(try_s + size / SLOWEST_BYTES_PER_S, left_s), 0.001)
        if flight is None:
            flight = Flight(server)
        for _ in range(PERMITS_SHOWN_MAX):
            try:
                return await self._try(server, method, request, send, into, timeout, flight)
            except EmberError as error:
                if error.code is not Code.PERMIT_NEEDED:
                    raise
            await self._show_permit(server, method, files_of(request), timeout)
        return await self._try(server, method, request, send, into, timeout, flight)

    async def _show_permit(self, server: Server, method: Method, files: list[int], timeout: float) -> None:
        """Raises ACCESS_DENIED, STALE, and what calls raise."""
        reply = await self._fetch_permit(files, timeout)
        check_granted(method, files, reply)
        await self._pool.call(server.address, SHOW_PERMIT, ShowPermit(reply.permit), timeout=timeout)

    async def _try(
        self,
        server: Server,
        method: Method,
        request: msgspec.Struct,
        send: Sequence[Part],
        into: Sequence[memoryview],
        timeout: float,
        flight: Flight,
    ) -> Any:
        flights = self._flights
        flights.begin(flight)
        try:
            reply = await self._pool.call(
                server.address, method, request, send=send, into=into, timeout=timeout, ticket=flight
            )
        except EmberError as error:
            if error.code in SERVER_GONE:
                self.routing.suspect(server)
            raise
        finally:
            flights.end(flight)
            flight.waits_for = None
        if server.failures:
            self.routing.trust(server)
        return reply

    def close(self) -> None:
        """Look at nothing any more."""
        self._flights.close()

    async def update(
        self, head: Server, client: bytes, items: list[UpdateItem], data: Sequence[memoryview], left_s: float
    ) -> list[Outcome]:
        """One try of updates at their head, in one frame; `data` is what each of them brings. One outcome for each."""
        size = sum(map(len, data))
        head.outstanding += size
        try:
            reply: UpdateChunksReply = await self.call(
                head,
                UPDATE_CHUNKS,
                UpdateChunks(client, items),
                send=data,
                size=size,
                try_s=UPDATE_TRY_S,
                left_s=left_s,
                flight=ChainFlight(head, {item.chain for item in items}, head=True),
            )
        except EmberError as error:
            return [error] * len(items)
        finally:
            head.outstanding -= size
        if len(reply.versions) != len(items) or any(not 0 <= failed.index < len(items) for failed in reply.errors):
            message = f"{head} answered for {len(reply.versions)} of {len(items)} updates"
            return [EmberError(Code.INTERNAL, message)] * len(items)
        self.unsynced.stored(items, reply.errors, reply.holders)
        outcomes: list[Outcome] = [None] * len(items)
        for failed in reply.errors:
            outcomes[failed.index] = EmberError(code_of(failed.code), f"{head}: {failed.message}")
        return outcomes
