"""What the handlers of HTTP work with: the parts of one metadata process, and the bridge to its loop.

The parts belong to the service's loop: a handler touches them inside `ask` alone, and gets values that nobody changes
any more. What takes longer than a moment for many nodes or chains comes in pages.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from fs_common.records.chains import ChainView, ListChainsReply
from fs_meta.config import MetaConfig
from fs_meta.manager.views import PAGE_MAX

if TYPE_CHECKING:
    from fs_common.peers import PeerPool
    from fs_meta.clients import Clients
    from fs_meta.manager.growth import Growth
    from fs_meta.manager.manager import Manager
    from fs_meta.ops.context import Context
    from fs_meta.server import MetaServer
    from fs_meta.users.users import Users

T = TypeVar("T")

SLICE = 50
"""Chains that are looked at without a break: a millisecond and a half."""


class Bridge(Protocol):
    """The one way from the HTTP thread into the service's loop; awaited on the HTTP thread's loop."""

    async def call(self, make: Callable[[], Awaitable[T] | T], timeout_s: float | None = None) -> T:
        """What `make()` returns there, or what the awaitable that it returns gives. Raises BUSY, TIMED_OUT, CLOSING,
        and what `make` raises."""


@dataclass(frozen=True, slots=True)
class Backend:
    config: MetaConfig
    bridge: Bridge
    manager: "Manager"
    growth: "Growth"
    server: "MetaServer"

    @property
    def users(self) -> "Users":
        """Who somebody is by his token."""
        return self.server.users

    @property
    def security(self) -> bool:
        """Every request has to show who it is from."""
        return self.server.users.enabled

    @property
    def context(self) -> "Context":
        """Of the namespace."""
        return self.server.context

    @property
    def clients(self) -> "Clients":
        return self.server.clients

    @property
    def pool(self) -> "PeerPool":
        """Connections to the storage daemons."""
        return self.server.pool

    async def look(self, make: Callable[[], T]) -> T:
        """What `make()` returns on the service's loop."""
        return await self.bridge.call(make)

    async def ask(self, make: Callable[[], Awaitable[T]], timeout_s: float | None = None) -> T:
        """What the awaitable gives that `make()` returns, on the service's loop."""
        return await self.bridge.call(make, timeout_s)

    async def list_chains(
        self,
        chains: Sequence[int] = (),
        *,
        degraded: bool = False,
        node: int = 0,
        after: int = 0,
        limit: int = PAGE_MAX,
    ) -> ListChainsReply:
        """As `Manager.list_chains`, in slices, between which others have the service's loop."""
        found: list[ChainView] = []
        while True:
            listing = partial(self.manager.list_chains, chains, degraded=degraded, node=node)
            reply = await self.look(partial(listing, after=after, limit=min(limit, SLICE)))
            found += reply.chains
            after, limit = reply.next, limit - SLICE
            if limit <= 0 or not after:
                return msgspec.structs.replace(reply, chains=found)
