"""One target of this daemon: its store, its replica of a chain, and whether it may serve.

A target serves while all of this holds: its engine is open and what it had pending as a tail is committed (`ready`),
its disk works (`failed` is None), the manager has said that its store is the right one (`admitted`), that store holds
everything it ever acknowledged (`store.whole`), routing says it is SERVING (`position`), and the node's lease is valid.
All but the lease change rarely and are kept; the lease is asked for at each decision.
"""

import logging
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol

from fs_common.errors import Code, EmberError
from fs_common.records.routing import LocalState, Routing
from fs_common.records.storage import Holder
from fs_storage.craq.position import Position
from fs_storage.craq.replica import Replica
from fs_storage.engine.interface import ChunkStore

logger = logging.getLogger(__name__)

_NOTHING: frozenset[bytes] = frozenset()


class Membership(Protocol):
    """What a daemon needs of the cluster manager's client (`fs_common.manager_client.ManagerClient`)."""

    @property
    def routing(self) -> Routing | None: ...

    def lease_valid(self) -> bool: ...


class Filling(NamedTuple):
    """How far a target has come with filling up its successor."""

    target: int
    """That is filled up."""
    chunks_done: int
    """Compared, and sent where they differed."""
    chunks_total: int
    """That the filling target has."""
    chunks_sent: int
    bytes_sent: int
    began_s: float
    """When, on the clock of `loop.time()`."""


class Target:
    """Used from the event loop alone."""

    def __init__(self, target: int, store: ChunkStore, membership: Membership) -> None:
        self.id = target
        self.store = store
        self.membership = membership
        self.replica = Replica(store, set(store.pending()))
        self.position: Position | None = None
        """By the newest routing; None: not serving on any chain."""
        self.ready = False
        """Whether versions that were pending at the start cannot be mistaken: a tail has committed them."""
        self.admitted = False
        """The manager knows this store and this opening of it."""
        self.refused: str | None = None
        """Why the manager lets it not serve, or not as it is."""
        self.failed: str | None = None
        """Why this target stopped for good (a restart may help)."""
        self.mending = ""
        """While the store is not whole: what making it so waits for."""
        self.conflicts: dict[bytes, str] = {}
        """Chunks that replicas have different versions of, and nobody knows which is right."""
        self.in_flight = 0
        """Operations submitted and not done."""
        self.uncertain: AbstractSet[bytes] = self.replica.unsettled
        """Chunks whose readers have to be told by the tail what is committed; empty at the tail itself."""
        self.behind: list[Holder] = []
        """The replicas behind this one, as its successor named them with its last answer; empty: it has not answered.
        Each has, under the incarnation named, everything that is committed here: it had it when it answered, or was
        given it before it served again."""
        self.synced_version = 0
        """Of the chain, while this target is syncing: the version of which it has everything; 0: none."""
        self.sync: Filling | None = None
        """Of its successor, while it fills that up."""
        self._store_number = int.from_bytes(store.identity[:4], "big") << 32

    def place(self, position: Position | None) -> None:
        """Take a place on the chain, from routing.

        What a tail has pending is committed by definition, so it says nothing to readers before it has committed it.
        """
        if position != self.position:
            self.behind = []
        if position is not None and not (position.is_tail and self.position is not None and self.position.is_tail):
            self.ready = not position.is_tail or not self.replica.unsettled
        self.position = position
        self.uncertain = _NOTHING if position is not None and position.is_tail else self.replica.unsettled
        self.refresh()

    def mended(self) -> None:
        """The store is whole again; chunks have changed beside the replica."""
        unsettled = self.replica.unsettled
        unsettled.clear()
        unsettled.update(self.store.pending(), self.conflicts)
        self.replica.changed_beside()
        self.mending = ""
        self.ready = self.position is not None and (not self.position.is_tail or not self.store.pending())
        self.refresh()

    def filled(self, chain_version: int) -> None:
        """While it is syncing: it has everything that the tail has."""
        self.synced_version = chain_version
        self.conflicts.clear()
        pending = set(self.store.pending())
        unsettled = self.replica.unsettled
        # What nobody could decide was pushed over.
        unsettled -= {chunk for chunk in unsettled if chunk not in pending and not self.replica.holds(chunk)}
        self.refresh()

    def refresh(self) -> None:
        """Tell the core where it stands now. Called before events are reported to it."""
        self.replica.position = self.position if self.may_act else None

    @property
    def may_act(self) -> bool:
        """May take part in the replication of updates."""
        return (
            self.position is not None
            and self.failed is None
            and self.admitted
            and self.store.whole
            and self.membership.lease_valid()
        )

    @property
    def serves(self) -> bool:
        """May answer reads and take updates."""
        return self.ready and self.may_act

    @property
    def holders(self) -> list[Holder]:
        """Who has what is committed here: this replica, and those behind it."""
        position = self.position
        if position is None:
            return []
        store = self.store
        # Another store in this one's place is another incarnation, whatever it counts.
        incarnation = self._store_number | store.incarnation
        own = Holder(position.chain, self.id, incarnation, store.opening, store.position, store.recovered)
        return [own, *self.behind]

    def require(self, chain_version: int) -> Position:
        """The place it serves from. Raises NOT_SERVING, CHAIN_VERSION."""
        position = self.position
        if position is None or not self.serves:
            raise EmberError(Code.NOT_SERVING, self.why_not())
        if position.version != chain_version:
            raise EmberError(
                Code.CHAIN_VERSION,
                f"chain {position.chain} is at version {position.version}, the request at {chain_version}",
            )
        return position

    def why_not(self) -> str:
        """One line: what keeps this target from serving."""
        if self.failed is not None:
            return f"target {self.id} has failed: {self.failed}"
        if self.position is None:
            return f"target {self.id} serves on no chain"
        if not self.admitted:
            return self.refused or f"target {self.id} waits for the manager's word on its store"
        if not self.store.whole:
            waits = f": {self.mending}" if self.mending else ""
            return f"target {self.id} may have lost something and has not got it back from its chain yet{waits}"
        if not self.membership.lease_valid():
            return f"the lease of target {self.id} is over: its daemon hears nothing from the manager"
        if not self.ready:
            return f"target {self.id} is starting"
        return f"target {self.id} serves"

    def fail(self, reason: str) -> None:
        """Stop for good: the disk does not work, or this process found its state impossible."""
        if self.failed is None:
            self.failed = reason
            logger.critical("target %d stops serving: %s", self.id, reason)
        self.refresh()

    @property
    def local_state(self) -> LocalState:
        """For the heartbeat."""
        if self.failed is not None:
            return LocalState.OFFLINE
        return LocalState.UPTODATE if self.ready and self.store.whole else LocalState.ONLINE
