"""The seam to the metadata store: ordered byte keys, serializable transactions. No file-system logic below it.

A transaction function is `async def fn(txn) -> T`. It may await methods of `txn` and nothing else, so that an
embedded engine can run it to its end without suspending; it may be run several times, so it has no side effects
but through `txn`. What it raises aborts the transaction, undoes its writes and is raised to the caller.

Source: DESIGN section 4.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

KEY_BYTES_MAX = 511
"""LMDB's bound; names are at most 255 bytes, so no key of the schema comes near it."""


class Transaction(Protocol):
    """Reads see the transaction's own writes. Keys and ranges read are part of its conflict set."""

    async def get(self, key: bytes) -> bytes | None:
        """The value, or None."""

    async def range(self, begin: bytes, end: bytes, limit: int = 0, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        """Pairs with `begin <= key < end` in key order (`reverse`: backwards), at most `limit` (0: all)."""

    async def snapshot_get(self, key: bytes) -> bytes | None:
        """Like `get`, but adds no conflict."""

    async def snapshot_range(
        self, begin: bytes, end: bytes, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """Like `range`, but adds no conflict."""

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None:
        """A missing key is fine."""

    def delete_range(self, begin: bytes, end: bytes) -> None: ...


TransactionFunction = Callable[[Transaction], Awaitable[T]]


class KeyValueStore(Protocol):
    """A store. Raises `EmberError`: KV_FULL, KV_MAYBE_COMMITTED (nobody knows), KV_CONFLICT (after all retries)."""

    exclusive: bool
    """No other process has the store open while this one has: what an earlier owner left behind is over."""

    async def transact(self, fn: TransactionFunction[T]) -> T:
        """Run `fn` with serializable isolation; return its result once it is committed and durable."""

    async def read(self, fn: TransactionFunction[T]) -> T:
        """Run `fn` on one snapshot that includes every transaction that was acknowledged before the call.

        Writes in `fn` are refused. An embedded engine does not suspend here.
        """

    async def close(self) -> None:
        """Finish what is in flight, then release the store."""
