"""Calls to storage daemons that are under way, looked at while they are: does anything come, and is it still the right
daemon?

A daemon that was stopped, or cut off, refuses nothing: its connection stays, and nothing comes. So each call is looked
at every `LOOK_S`; what it has waited for so far is counted in looks, not by a clock. A process that was itself busy or
stopped for long has looked once, and does not take that for the silence of others.

    a look finds                                   then
    -------------------------------------------    ----------------------------------------------------------------
    something has come from the daemon             `quiet` begins anew
    nothing has, `NEWS_LOOKS` in a row             news of the routing are asked for
    each look, for a read                          `Flight.looked_at`: it may be asked of another replica as well

A new routing that does not send a call to its daemon any more ends it (`CHAIN_BROKEN`): whoever made it tries again,
elsewhere, under the same id.

Used by `storage_client`, on the event loop only. Concurrency: docs/concurrency/client.md.
"""

import asyncio
from collections.abc import Callable, Collection

from fs_client.options import Address
from fs_client.routing_cache import RoutingCache, Server
from fs_common.errors import Code, EmberError
from fs_common.rpc import Ticket

LOOK_S = 0.05
NEWS_LOOKS = 20
"""After a second of silence its node may have failed, and the manager may say so."""
NEWS_S = 1.0
"""For how long news are asked for after such a look; the next look asks again."""


class Flight(Ticket):
    """One call. `server`: who is asked."""

    __slots__ = ("looks", "quiet", "server")

    def __init__(self, server: Server) -> None:
        self.abandoned = None
        self.waits_for = None
        self.server = server
        self.looks = 0
        """At this call."""
        self.quiet = 0
        """Looks in a row that found that nothing had come from its server."""

    def looked_at(self) -> None:
        """Something else than waiting may be done."""

    def goes_on(self, routing: RoutingCache) -> bool:
        """Whether it is at the right server under this routing."""
        return True


class ChainFlight(Flight):
    """A call that concerns chains, and their heads only if `head`."""

    __slots__ = ("chains", "head")

    def __init__(self, server: Server, chains: Collection[int], *, head: bool) -> None:
        super().__init__(server)
        self.chains = chains
        self.head = head

    def goes_on(self, routing: RoutingCache) -> bool:
        return all(routing.is_served_by(chain, self.server, head=self.head) for chain in self.chains)


class Flights:
    """See the module. One for each client. `received`: how many bytes have come from an address so far."""

    def __init__(self, routing: RoutingCache, received: Callable[[Address], int]) -> None:
        self._routing = routing
        self._received = received
        self._flights: set[Flight] = set()
        self._before: dict[Server, int] = {}
        """What had come from each server at the last look."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while there are flights, and until the first look that finds none."""
        routing.adopted.append(self._on_routing)

    def begin(self, flight: Flight) -> None:
        self._flights.add(flight)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def end(self, flight: Flight) -> None:
        self._flights.discard(flight)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        flights = self._flights
        if not flights:
            self._timer = None
            self._before.clear()
            return
        # Booked first: whatever becomes of this look, the next one comes.
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        before = self._before
        now = self._before = {server: self._received(server.address) for server in {one.server for one in flights}}
        for flight in list(flights):
            flight.looks += 1
            server = flight.server
            if before.get(server) == now[server]:
                flight.quiet += 1
                if flight.quiet >= NEWS_LOOKS:
                    self._routing.watch(NEWS_S)
            else:
                flight.quiet = 0
            flight.looked_at()

    def _on_routing(self) -> None:
        for flight in list(self._flights):
            if not flight.goes_on(self._routing):
                flight.abandon(
                    EmberError(Code.CHAIN_BROKEN, f"{flight.server} has left the chain, or is not its head now")
                )
