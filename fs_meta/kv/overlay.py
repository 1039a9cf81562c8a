"""One transaction's writes, held back over a store until it has succeeded.

Owns: the buffered writes of one running transaction function, and the merge of them with what lies below, so that
every read sees the transaction's own writes. Pure: no store, clock or loop in here; an engine gives a `Below`.

Invariant: the store below is not touched until `apply`, so a function that raises leaves no trace in the batch it
shares with others.

Called by: the engines of this package only.
"""

from bisect import bisect_left
from collections.abc import Coroutine, Iterator
from typing import Any, Protocol, TypeVar

from fs_common.checks import check, violated
from fs_meta.kv.interface import KEY_BYTES_MAX, Transaction, TransactionFunction

T = TypeVar("T")


class Below(Protocol):
    """What an overlay lies on: the committed state plus the earlier transactions of the batch."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with `begin <= key < end`, lazily. The store does not change while the iterator lives."""


class Overlay:
    """A `Transaction` on top of `below`."""

    __slots__ = ("_below", "_keys", "_read_only", "_sorted", "writes")

    def __init__(self, below: Below, read_only: bool = False) -> None:
        self._below = below
        self._read_only = read_only
        self.writes: dict[bytes, bytes | None] = {}
        """Key to new value; None: deleted. Complete: what is not in here is as below."""
        self._keys: list[bytes] = []
        """The keys of `writes`, once each."""
        self._sorted = True
        """`_keys` is in order. Sorting waits for the first range read that needs it."""

    async def get(self, key: bytes) -> bytes | None:
        if key in self.writes:
            return self.writes[key]
        check_key(key)
        return self._below.get(key)

    async def range(self, begin: bytes, end: bytes, limit: int = 0, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        return self._range(begin, end, limit, reverse)

    # An embedded engine runs one writer at a time, so nothing conflicts and a snapshot read is a read.
    snapshot_get = get
    snapshot_range = range

    def put(self, key: bytes, value: bytes) -> None:
        check_key(key)
        self._write(key, value)

    def delete(self, key: bytes) -> None:
        check_key(key)
        self._write(key, None)

    def delete_range(self, begin: bytes, end: bytes) -> None:
        for key, _ in self._range(begin, end, 0, False):
            self._write(key, None)

    def _write(self, key: bytes, value: bytes | None) -> None:
        if self._read_only:
            violated("a read transaction writes: use transact()", key)
        if key not in self.writes:
            self._keys.append(key)
            self._sorted = False
        self.writes[key] = value

    def _own(self, begin: bytes, end: bytes) -> list[bytes]:
        """The keys written by this transaction in `begin <= key < end`, in order."""
        if not self._keys:
            return []
        if not self._sorted:
            self._keys.sort()  # nearly sorted: what was sorted before is one run, so this is linear
            self._sorted = True
        return self._keys[bisect_left(self._keys, begin) : bisect_left(self._keys, end)]

    def _range(self, begin: bytes, end: bytes, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        if begin >= end:
            return []
        own = self._own(begin, end)
        below = self._below.scan(begin, end, reverse)
        if not own:
            return list(below) if limit == 0 else [pair for pair, _ in zip(below, range(limit), strict=False)]
        if reverse:
            own.reverse()
        return self._merge(below, own, limit, reverse)

    def _merge(
        self, below: Iterator[tuple[bytes, bytes]], own: list[bytes], limit: int, reverse: bool
    ) -> list[tuple[bytes, bytes]]:
        """Both inputs in the order of the answer; a key in both is the transaction's own."""
        merged: list[tuple[bytes, bytes]] = []
        own_keys = iter(own)
        mine = next(own_keys, None)
        pair = next(below, None)
        while pair is not None or mine is not None:
            if limit and len(merged) == limit:
                break
            if mine is None or (pair is not None and pair[0] != mine and (pair[0] < mine) != reverse):
                assert pair is not None
                merged.append(pair)
                pair = next(below, None)
                continue
            if pair is not None and pair[0] == mine:
                pair = next(below, None)
            value = self.writes[mine]
            if value is not None:
                merged.append((mine, value))
            mine = next(own_keys, None)
        return merged


def check_key(key: bytes) -> None:
    """Keys are 1 to `KEY_BYTES_MAX` bytes on every engine."""
    if not 0 < len(key) <= KEY_BYTES_MAX:
        check(False, f"a key has 1 to {KEY_BYTES_MAX} bytes", len(key), key[:40])


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
