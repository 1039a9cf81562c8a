"""One target of this daemon: its store, its replica of a chain, and whether it may serve.

A target serves while all of this holds: its engine is open and it may speak as what it is (`ready`), its disk works
(`failed` is None), the manager has said that its store is the right one (`admitted`), that store holds everything it
ever acknowledged (`store.whole`), routing says it is SERVING (`position`), and the node's lease is valid. All but the
lease change rarely and are kept; the lease is asked for at each decision.

A new tail is ready when what it found pending is committed, and its predecessor acts at this version of the chain
(`docs/concurrency/chains.md`). A syncing target takes what its predecessor sends, whole or not, and answers nobody.
"""

import logging
from collections.abc import Callable, Sequence
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
        """Whether it may answer in its place. A tail: see the module. Any other that serves: at once."""
        self.agreed = False
        """As a tail: whether no tail of before speaks any more, as the predecessor acts at this chain version."""
        self.admitted = False
        """The manager knows this store and this opening of it."""
        self.heard_whole = True
        """What the manager has heard of it last is that its store is whole. On another word it may have been dropped
        from its chain, and does not know it yet."""
        self.refused: str | None = None
        """Why the manager lets it not serve, or not as it is."""
        self.retired = False
        """The manager has told it to stop, because it is to leave its chain. It says OFFLINE from then on, until the
        chain has gone on without it: what says that it does not serve does not begin again in the same place."""
        self.failed: str | None = None
        """Why this target stopped for good (a restart may help)."""
        self.mending = ""
        """While the store is not whole: what making it so waits for."""
        self.mends = False
        """Mending changes chunks beside the replica. In this time it takes nothing as a syncing one: that would be
        written over."""
        self.stop_mending: Callable[[], object] | None = None
        """Ends that, as the chain has changed; None: it ends by itself."""
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
        self._lineage: list[Holder] = []
        self._lineage_incarnation = 0
        """What the store was when it was filled up by those."""
        self.pushed_chunks = 0
        self.pushed_bytes = 0
        """Sent whole to syncing successors, in this life."""
        self.unfit: str | None = None
        """Why it cannot take what it is sent to be filled up."""
        self.unfit_since_s = 0.0
        """When that was, on the clock of `loop.time()`."""
        self.sync: Filling | None = None
        """Of its successor, while it fills that up."""
        self._store_number = int.from_bytes(store.identity[:4], "big") << 32

    def place(self, position: Position | None) -> None:
        """Take a place on the chain, from routing. What waits for another successor is decided anew by the core; the
        caller runs its instructions (`Updates.chains_changed`)."""
        before = self.position
        if position == before:
            self.refresh()  # the same object stays: attempts to forward belong to it
            return
        if self.stop_mending is not None:
            self.stop_mending()
        tail_before = before is not None and before.is_tail and self.ready
        if position is None or position.syncing or before is None or position.version != before.version + 1:
            # Between versions that it has not heard of it may have been left out, and been taken back as it is.
            self._lineage = []
        self.position = position
        self.behind = []
        tail = position is not None and position.is_tail
        self.uncertain = _NOTHING if tail else self.replica.unsettled
        self.replica.owed.clear()
        self.ready = position is not None and not position.syncing and (not tail or tail_before)
        if position is not None and tail:
            self.agreed = tail_before or position.predecessor is None
            self.replica.expect_settled()
            self.become_ready()
        self.refresh()
        self.replica.moved()

    def become_ready(self) -> bool:
        """A tail is ready as soon as it can be. True: it is now, and was not."""
        position = self.position
        if self.ready or position is None or not position.is_tail or not self.agreed or self.replica.owed:
            return False
        self.ready = True
        return True

    @property
    def may_fill(self) -> bool:
        """Whether a round of filling up the successor may begin: nothing is pending of an older chain version."""
        position = self.position
        return position is not None and position.fills and self.serves and not self.replica.owed

    def mended(self) -> None:
        """The store is whole again; chunks have changed beside the replica."""
        unsettled = self.replica.unsettled
        unsettled.clear()
        unsettled.update(self.store.pending(), self.conflicts)
        self.replica.changed_beside()
        self.mending = ""
        self._lineage = []
        position, self.position = self.position, None
        self.place(position)

    def cannot_fill(self, reason: str, now_s: float) -> None:
        """This syncing target is sent what it cannot take. It says so for a while (`settling`), and its chain goes on
        without it."""
        if self.unfit is None:
            logger.error("target %d cannot be filled up: %s", self.id, reason)
        self.unfit = reason
        self.unfit_since_s = now_s

    def filled(self, chain_version: int, lineage: Sequence[Holder] = ()) -> None:
        """While it is syncing: it has everything that the tail has, and so everything of the tail's `lineage`."""
        self.synced_version = chain_version
        self._lineage = list(lineage)
        self._lineage_incarnation = self.store.incarnation
        self.conflicts.clear()
        pending = set(self.store.pending())
        unsettled = self.replica.unsettled
        # What nobody could decide was pushed over.
        unsettled -= {chunk for chunk in unsettled if chunk not in pending and not self.replica.holds(chunk)}
        self.refresh()

    def retire(self, reason: str) -> None:
        """Stop, at the manager's word; the next heartbeat says OFFLINE."""
        if not self.retired:
            logger.info("target %d stops serving: %s", self.id, reason)
        self.retired = True
        self.admitted = False
        self.refused = reason
        self.refresh()

    def refresh(self) -> None:
        """Tell the core where it stands now. Called before events are reported to it."""
        self.replica.position = self.position if self.may_act else None

    @property
    def may_act(self) -> bool:
        """May take part in the replication of updates."""
        position = self.position
        return (
            position is not None
            and self.failed is None
            and self.admitted
            # What is not whole becomes it by being filled up.
            and (not self.mends if position.syncing else self.store.whole and self.heard_whole)
            and self.membership.lease_valid()
        )

    @property
    def serves(self) -> bool:
        """May answer reads and take updates."""
        return self.ready and self.may_act

    @property
    def holders(self) -> list[Holder]:
        """Who has what is committed here: this replica, and those that serve behind it."""
        position = self.position
        if position is None or position.syncing:
            return []
        store = self.store
        # Another store in this one's place is another incarnation, whatever it counts.
        incarnation = self._store_number | store.incarnation
        own = Holder(position.chain, self.id, incarnation, store.opening, store.position, store.recovered)
        return [own, *self.behind]

    @property
    def lineage(self) -> list[Holder]:
        """Replicas as they were when this one was filled up by them, or by one that was: whatever each had acknowledged
        then is here. What was acknowledged since was so by this one, too, which has served since. Forgotten when it may
        have left its chain, ends, or may have lost something."""
        return self._lineage if self._lineage_incarnation == self.store.incarnation else []

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
        if self.unfit is not None:
            return f"target {self.id} cannot be filled up: {self.unfit}"
        if self.position is None:
            return f"target {self.id} serves on no chain"
        if not self.admitted:
            return self.refused or f"target {self.id} waits for the manager's word on its store"
        if not self.store.whole and not self.position.syncing:
            waits = f": {self.mending}" if self.mending else ""
            return f"target {self.id} may have lost something and has not got it back from its chain yet{waits}"
        if not self.membership.lease_valid():
            return f"the lease of target {self.id} is over: its daemon hears nothing from the manager"
        if self.position.syncing:
            return f"target {self.id} is being filled up by its chain"
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
        position = self.position
        if self.failed is not None or self.retired:
            return LocalState.OFFLINE
        if self.unfit is not None and (position is None or position.syncing):
            return LocalState.OFFLINE
        if position is None or not self.store.whole:
            return LocalState.ONLINE
        up_to_date = self.synced_version == position.version if position.syncing else self.ready
        return LocalState.UPTODATE if up_to_date else LocalState.ONLINE
