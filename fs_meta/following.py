"""Clients that follow: their calls, and the store as it is with them, where a change ends when they have heard of it.

`FollowedStore` looks at what every transaction has written, whatever operation it is of, so no operation can forget to
tell. It returns when all who were promised otherwise have taken the news, or cannot believe the old any more. So does a
repeated request, which finds that its change is done: its first copy may still wait.

A restart: promises are in memory. The store remembers that there were some (`schema.FOLLOWED_KEY`), and for the time of
a lease after a start no change is answered, so that whoever held one has stopped believing.

Waiting for followers has a bound: whoever others have waited for too long is promised nothing for a while (`patience`).

Stores that other processes change at the same time (`exclusive` is False) are not followed: nobody would tell.

Concurrency: docs/concurrency/meta.md.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fs_common.ids import shown_client
from fs_common.records.following import Follow, FollowReply, Promised
from fs_common.records.meta import AttributesReply, Lookup, Mkdir, OpenReply, ReaddirReply
from fs_meta import schema
from fs_meta.kv.interface import KeyValueStore, T, Transaction, TransactionFunction
from fs_meta.ops.resolve import SELF
from fs_meta.patience import Patience
from fs_meta.promises import LEASE_S, Follower, Promises, attributes_of, names_of, removed_by, split, subjects_of
from fs_meta.store_times import StoreTimes, clock_ns

_log = logging.getLogger(__name__)

HOLD = 4
"""A follower's call is answered after this part of a lease at the latest."""
STUBBORN = 5
"""Leases after which a follower that goes on calling without taking its news is dropped."""
PROMPT_S = 0.05
"""Who takes his news within this time costs nobody anything."""
TICK_S = 1e-6
"""A loop's timers are early by less: who waits for less may find that no time has passed."""


class Following:
    """Of one service. `clock`: seconds, monotonic; not the loop's, which is behind by what its turn has taken: a lease
    would end here before the follower's own does."""

    def __init__(self, kv: KeyValueStore, clock: Callable[[], float], *, lease_s: float = LEASE_S) -> None:
        self.promises = Promises(lambda: secrets.randbits(62) + 1, lease_s=lease_s)
        self.clock = clock
        self.times = StoreTimes()
        self._patience = Patience()
        self._kv = kv
        self._calls: dict[Follower, asyncio.Future[None]] = {}
        """Calls that are here, waiting for news."""
        self._waiting: dict[Follower, set[asyncio.Future[None]]] = {}
        """Changes that wait for the follower."""
        self._marked = False
        self._quiet_until = 0.0
        """Before that no change is answered."""
        self._closing = False

    async def begin(self) -> None:
        """At start, before anything is served."""

        async def look(txn: Transaction) -> bytes | None:
            return await txn.get(schema.FOLLOWED_KEY)

        if await self._kv.read(look) is not None:
            self._marked = True
            self._quiet_until = self.clock() + self.promises.lease_s

    def end(self) -> None:
        """Nothing is promised from now on, and calls return. Changes go on waiting for those who hold promises."""
        self._closing = True
        for call in list(self._calls.values()):
            _wake(call)

    async def close(self) -> None:
        """After the last change. The next start has to wait for nobody if nobody can believe anything now."""
        if self._marked and max(self.promises.lease_ends(), self._quiet_until) <= self.clock():

            async def unmark(txn: Transaction) -> None:
                txn.delete(schema.FOLLOWED_KEY)

            await self._kv.transact(unmark)

    def follower(self, client: bytes) -> Follower | None:
        return self.promises.follower(client)

    async def follow(self, client: bytes, request: Follow, holder: str) -> FollowReply:
        """A follower's call; returns when there is something to tell, or after a while. `holder`: whose it is."""
        if self._closing or not client or not self._kv.exclusive or self._patience.lost(holder, self.clock()):
            # Its lease goes on to its end, and no further.
            return FollowReply(0, 0, [], [], 0)
        if not self._marked:
            await self._mark()
        promises = self.promises
        follower = promises.call(client, request.generation, request.heard, self.clock())
        follower.holder = holder
        self._heard(follower)
        if follower.generation == request.generation and not follower.told:
            await self._hold(follower)
        number, subjects = promises.news(follower)
        inodes, directories = split(subjects)
        lease_ms = 0 if self._closing else int(promises.lease_s * 1000)
        return FollowReply(follower.generation, number, inodes, directories, lease_ms)

    async def _hold(self, follower: Follower) -> None:
        earlier = self._calls.pop(follower, None)
        if earlier is not None:
            _wake(earlier)  # its caller is not there any more, or does not mind
        news, timer = _signal(self.promises.lease_s / HOLD)
        self._calls[follower] = news
        try:
            await news
        finally:
            timer.cancel()
            if self._calls.get(follower) is news:
                del self._calls[follower]

    async def _mark(self) -> None:
        async def mark(txn: Transaction) -> None:
            txn.put(schema.FOLLOWED_KEY, schema.encode(schema.Counter(1)))

        await self._kv.transact(mark)
        self._marked = True

    def promised(
        self, follower: Follower, request: Any, reply: AttributesReply | OpenReply | ReaddirReply, stamp: int
    ) -> int:
        """What of a reply is promised to the follower that asked: `Promised`. `stamp`: before the reply was made."""
        if self._closing:
            return 0
        promises, now = self.promises, self.clock()
        promised = 0
        attributes: Sequence[int]
        names = 0
        if isinstance(reply, ReaddirReply):
            names = request.inode
            attributes = [attributes_of(entry.inode) for entry in reply.entries if entry.attributes is not None]
        else:
            attributes = (attributes_of(reply.attributes.inode),)
            if isinstance(request, Lookup) and request.name not in SELF:
                names = request.parent
            elif isinstance(request, Mkdir) and not request.parents:
                names = reply.attributes.inode
        if attributes and promises.promise(follower, attributes, stamp, now):
            promised = Promised.ATTRIBUTES
        if names and promises.promise(follower, (names_of(names),), stamp, now):
            promised |= Promised.NAMES
        return promised

    def forget(self) -> None:
        """Now and then: those that are gone are forgotten."""
        self.promises.forget(self.clock())

    # Changes

    def changed(
        self, writes: Mapping[bytes, bytes | None], by: bytes, *, certain: bool = True
    ) -> Mapping[Follower, int]:
        """A transaction of `by` wrote these keys. Followers are told; returns whom it has to wait for.

        One that wrote nothing has found what an earlier copy of the request was, or will be, answered. That copy may be
        waiting still, or was given up: it waits for all who have something to hear. Not `certain`: nobody knows whether
        they were written.
        """
        promises = self.promises
        if not promises:
            return _NOBODY
        waits = promises.change(subjects_of(writes), by, self.clock()) if writes else promises.untold(by)
        if certain and (removed := removed_by(writes)):
            promises.removed(removed, by)
        for follower in waits:
            call = self._calls.get(follower)
            if call is not None:
                _wake(call)
        return waits

    @property
    def quiet(self) -> bool:
        """Changes are not answered yet."""
        return self._quiet_until > 0.0

    async def wait(self, waits: Mapping[Follower, int]) -> None:
        """Return when each has heard its news, or believes nothing any more."""
        if self._quiet_until:
            while (left := self._quiet_until - self.clock()) > 0:
                await asyncio.sleep(left)  # timers may be early: the loop's time stands still within a turn
            self._quiet_until = 0.0
        patience = self.clock() + STUBBORN * self.promises.lease_s
        for follower, number in waits.items():
            if follower.heard < number:
                await self._wait_for(follower, number, patience)

    async def _wait_for(self, follower: Follower, number: int, patience: float) -> None:
        """`patience`: until when, at most."""
        holder, free_until = follower.holder, self.clock() + PROMPT_S
        charged = False
        try:
            while follower.heard < number:
                now = self.clock()
                left = min(follower.until, patience) - now
                if left <= 0:
                    _log.info("follower %s does not answer: its promises end", shown_client(follower.client))
                    self.promises.drop(follower)
                    self._heard(follower)
                    return
                if not charged:
                    if now < free_until:
                        left = min(left, free_until - now)
                    else:
                        charged = True
                        self._patience.begins(holder, now)
                await self._wait(follower, max(left, TICK_S))
        finally:
            if charged:
                self._patience.ends(holder, self.clock())
                if self._patience.lost(holder, self.clock()):
                    _log.warning("%s is promised nothing for a while: others have waited for it too long", holder)

    async def _wait(self, follower: Follower, left_s: float) -> None:
        """For it to take news, or go."""
        heard, timer = _signal(left_s)
        waiting = self._waiting.setdefault(follower, set())
        waiting.add(heard)
        try:
            await heard
        finally:
            timer.cancel()
            waiting.discard(heard)
            if not waiting and self._waiting.get(follower) is waiting:
                del self._waiting[follower]

    def _heard(self, follower: Follower) -> None:
        for future in self._waiting.get(follower, ()):
            _wake(future)


_NOBODY: Mapping[Follower, int] = {}


def _signal(after_s: float) -> tuple["asyncio.Future[None]", asyncio.TimerHandle]:
    """A future, woken after this time at the latest. Not `asyncio.timeout`: the first step of a handler has no task."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    return future, loop.call_later(after_s, _wake, future)


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class FollowedStore:
    """`kv` for one caller: `client` changes something; empty: the service itself, or nobody who follows."""

    def __init__(self, kv: KeyValueStore, following: Following, client: bytes = b"") -> None:
        self.exclusive = kv.exclusive
        self.wrote = False
        """The last transaction that ended wrote something. One that only found what it had answered before has not."""
        self._kv = kv
        self._following = following
        self._client = client

    def by(self, client: bytes) -> "FollowedStore":
        """The same store for another caller."""
        return FollowedStore(self._kv, self._following, client)

    async def transact(self, fn: TransactionFunction[T], *, relaxed: bool = False) -> T:
        """As the store's; ends when all who hold a promise of what was changed have heard of it."""
        ran: list[Transaction] = []

        def run(txn: Transaction) -> Awaitable[T]:
            ran.append(txn)
            return fn(txn)

        following = self._following
        began_ns = clock_ns()
        try:
            result = await self._kv.transact(run, relaxed=relaxed)
        except BaseException:
            # Nothing was done, or nobody knows: it is told like a change, and nobody waits for an answer.
            if ran:
                following.changed(ran[-1].writes, self._client, certain=False)
            raise
        finally:
            following.times.note("kv", began_ns)
        writes = ran[-1].writes
        waits = following.changed(writes, self._client)
        if waits or following.quiet:
            began_ns = clock_ns()
            await following.wait(waits)
            following.times.note("followers", began_ns)
        self.wrote = bool(writes)
        return result

    async def read(self, fn: TransactionFunction[T]) -> T:
        began_ns = clock_ns()
        result = await self._kv.read(fn)
        self._following.times.note("kv", began_ns)
        return result

    async def sync(self) -> None:
        await self._kv.sync()

    async def close(self) -> None:
        await self._kv.close()
