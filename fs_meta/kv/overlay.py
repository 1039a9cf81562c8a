"""One transaction's writes, held back over a store until it has succeeded.

Owns: the buffered writes of one running transaction function, and the merge of them with what lies below, so that
every read sees the transaction's own writes. Pure: no store, clock or loop in here; an engine gives a `Below`.

Invariant: the store below is not touched until `apply`, so a function that raises leaves no trace in the batch it
shares with others.

Called by: the engines of this package only.
"""

from bisect import bisect_left
from collections.abc import Coroutine, Iterator, Mapping
from itertools import islice
from typing import Any, NoReturn, Protocol, TypeVar

from fs_common.checks import check, violated
from fs_meta.kv.interface import KEY_BYTES_MAX, Transaction, TransactionFunction

T = TypeVar("T")


class Below(Protocol):
    """What an overlay lies on: the committed state plus the earlier transactions of the batch."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with `begin <= key < end`, lazily. The store does not change while the iterator lives."""


class Overlay:
    """A `Transaction` on top of `below`. Flat code: `get` and `put` are most of what a transaction costs."""

    __slots__ = ("_below", "_keys", "writes")

    def __init__(self, below: Below) -> None:
        self._below = below
        self.writes: dict[bytes, bytes | None] = {}
        """Key to new value; None: deleted. Complete: what is not in here is as below."""
        self._keys: list[bytes] = []
        """The keys of `writes` in order, as of the last range read that needed them."""

    async def get(self, key: bytes) -> bytes | None:
        if key in self.writes:
            return self.writes[key]
        if not 0 < len(key) <= KEY_BYTES_MAX:
            _bad_key(key)
        return self._below.get(key)

    async def range(self, begin: bytes, end: bytes, limit: int = 0, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        return self._range(begin, end, limit, reverse)

    # An embedded engine runs one writer at a time, so nothing conflicts and a snapshot read is a read.
    snapshot_get = get
    snapshot_range = range

    def put(self, key: bytes, value: bytes) -> None:
        if not 0 < len(key) <= KEY_BYTES_MAX:
            _bad_key(key)
        self.writes[key] = value

    def delete(self, key: bytes) -> None:
        if not 0 < len(key) <= KEY_BYTES_MAX:
            _bad_key(key)
        self.writes[key] = None

    def delete_range(self, begin: bytes, end: bytes) -> None:
        for key, _ in self._range(begin, end, 0, False):
            self.writes[key] = None

    def _own(self, begin: bytes, end: bytes) -> list[bytes]:
        """The keys written by this transaction in `begin <= key < end`, in order."""
        if not self.writes:
            return []
        if len(self._keys) < len(self.writes):
            # A dict keeps a key where it came first, so the new ones are its tail; the head is one sorted run, which
            # makes the sort linear in it.
            self._keys.extend(islice(self.writes, len(self._keys), None))
            self._keys.sort()
        return self._keys[bisect_left(self._keys, begin) : bisect_left(self._keys, end)]

    def _range(self, begin: bytes, end: bytes, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        if begin >= end:
            return []
        own = self._own(begin, end)
        below = self._below.scan(begin, end, reverse)
        if not own:
            return _take(below, limit)
        return _take(merged(reversed(own) if reverse else iter(own), self.writes, below, reverse), limit)


class Snapshot:
    """A `Transaction` that only reads."""

    __slots__ = ("_below",)

    writes: Mapping[bytes, bytes | None] = {}

    def __init__(self, below: Below) -> None:
        self._below = below

    async def get(self, key: bytes) -> bytes | None:
        if not 0 < len(key) <= KEY_BYTES_MAX:
            _bad_key(key)
        return self._below.get(key)

    async def range(self, begin: bytes, end: bytes, limit: int = 0, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        if begin >= end:
            return []
        return _take(self._below.scan(begin, end, reverse), limit)

    snapshot_get = get
    snapshot_range = range

    def put(self, key: bytes, value: bytes) -> None:
        violated("a read transaction writes: use transact()", key)

    def delete(self, key: bytes) -> None:
        violated("a read transaction writes: use transact()", key)

    def delete_range(self, begin: bytes, end: bytes) -> None:
        violated("a read transaction writes: use transact()", begin, end)


def merged(
    keys: Iterator[bytes], changes: Mapping[bytes, bytes | None], below: Iterator[tuple[bytes, bytes]], reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of `below` with the changes of `keys` laid over them; all in the order of the answer."""
    pair = next(below, None)
    for key in keys:
        while pair is not None and pair[0] != key and (pair[0] < key) != reverse:
            yield pair
            pair = next(below, None)
        if pair is not None and pair[0] == key:
            pair = next(below, None)
        value = changes[key]
        if value is not None:
            yield key, value
    if pair is not None:
        yield pair
        yield from below


def _take(pairs: Iterator[tuple[bytes, bytes]], limit: int) -> list[tuple[bytes, bytes]]:
    return list(islice(pairs, limit)) if limit else list(pairs)


def _bad_key(key: bytes) -> NoReturn:
    violated(f"a key has 1 to {KEY_BYTES_MAX} bytes", len(key), key[:40])


def drive(fn: TransactionFunction[T], txn: Transaction) -> T:
    """Run a transaction function to its end, now. It may await methods of `txn` and nothing else."""
    coroutine = fn(txn)
    check(isinstance(coroutine, Coroutine), "a transaction function is an `async def`", fn)
    assert isinstance(coroutine, Coroutine)
    try:
        waits_for: Any = coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    violated("a transaction function suspended: it may await methods of its transaction and nothing else", waits_for)
