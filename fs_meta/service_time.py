"""The service's time: nanoseconds that pass only while a metadata service runs on this store, kept over restarts.

What may be forgotten or freed after a while is stamped with it, and its age is a difference of two such times: answers
of requests, removed files, pruned sessions. A wall clock decides none of that: one that is stepped (NTP after a wrong
RTC, an operator) would make everything old at once, and what somebody still relies on would go. The wall clock is for
what people see: times of inodes, of sessions, of removals.

It begins at what the wall clock says when the store is made, so that stamps can be read, and looks at it never again.
While a service runs it grows with the monotonic clock: not while the machine sleeps, either. So whatever is kept for
some time is kept for as long as anybody could have come for it.

Invariants: it never goes back while a process runs. What the store has (`schema.SERVICE_TIME_KEY`) is never ahead of
it. After a start it goes on from there, so a crash sets it back by what passed since the last `keep`: things are kept
for longer, and what is stamped then is older than it looks. So nothing may be *destroyed* because of a time that is not
durable (`fs_meta.gc`): else it could be taken for kept by the next process.

What clients are told of how long files are kept (`fs_meta.ops.kept`) binds the processes that come after, too: a GC
delay that is configured shorter holds when the longer one is over.

Several servers on one store: each counts by itself and goes forward to what the others have kept.
"""

import time
from collections.abc import Callable

from fs_meta import schema
from fs_meta.kv.interface import KeyValueStore, Transaction


class ServiceTime:
    """Of one process. `begin` comes before everything else. `clock_ns` is monotonic."""

    def __init__(self, kv: KeyValueStore, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._kv = kv
        self._clock_ns = clock_ns
        self._ahead_ns = 0
        """Of the clock."""
        self._gc_delay_ns = 0
        self.promised_until_ns = 0
        """Clients were told by an earlier process that files which lose their names are kept until then; 0: it is
        over."""

    def now_ns(self) -> int:
        return self._ahead_ns + self._clock_ns()

    async def begin(self, request_keep_ns: int, gc_delay_ns: int) -> None:
        """Go on from where the store is. One that was made before there was this time has stamps of a wall clock: it
        begins so early that none of them is older than it was, by how long what they are for is kept.

        A delay that is shorter than that of an earlier process counts when what that one told is over."""

        async def look(txn: Transaction) -> tuple[int, int]:
            promised = await txn.get(schema.DELAY_PROMISED_KEY)
            promised_ns = 0 if promised is None else schema.decode_counter(promised).value
            if promised_ns < gc_delay_ns or promised is None:
                txn.put(schema.DELAY_PROMISED_KEY, schema.encode(schema.Counter(gc_delay_ns)))
            return await _first_ns(txn, request_keep_ns, gc_delay_ns), promised_ns

        begun_ns, promised_ns = await self._kv.transact(look)
        self._ahead_ns = begun_ns - self._clock_ns()
        self._gc_delay_ns = gc_delay_ns
        if promised_ns > gc_delay_ns:
            self.promised_until_ns = begun_ns + promised_ns

    async def keep(self) -> None:
        """Note it in the store. It is durable after the next sync."""

        async def note(txn: Transaction) -> tuple[int, bool]:
            kept_ns = await stored_ns(txn)
            now_ns = max(self.now_ns(), kept_ns)
            txn.put(schema.SERVICE_TIME_KEY, schema.encode(schema.Counter(now_ns)))
            over = 0 < self.promised_until_ns <= now_ns
            if over:
                txn.put(schema.DELAY_PROMISED_KEY, schema.encode(schema.Counter(self._gc_delay_ns)))
            return kept_ns, over

        kept_ns, over = await self._kv.transact(note, relaxed=True)
        self._ahead_ns += max(kept_ns - self.now_ns(), 0)
        if over:
            self.promised_until_ns = 0


async def _first_ns(txn: Transaction, request_keep_ns: int, gc_delay_ns: int) -> int:
    value = await txn.get(schema.SERVICE_TIME_KEY)
    if value is not None:
        return schema.decode_counter(value).value
    answered = await txn.range(*schema.all_ages_range(), 1, True)
    if answered:
        return max(schema.split_age_key(answered[0][0])[0] - request_keep_ns, 0)
    removed = await txn.range(*schema.all_garbage_range(), 1, True)
    if removed:
        return max(schema.split_garbage_key(removed[0][0])[0] - gc_delay_ns, 0)
    made = await txn.get(schema.FORMAT_KEY)
    return 0 if made is None else schema.decode_format(made).created_ns


async def stored_ns(txn: Transaction) -> int:
    """What is kept in the store; 0 before the first `keep`."""
    value = await txn.get(schema.SERVICE_TIME_KEY)
    return 0 if value is None else schema.decode_counter(value).value
