"""The seam to the metadata store: ordered byte keys, serializable transactions. No file-system logic below it.

A transaction function is `async def fn(txn) -> T`. It may await methods of `txn` and nothing else, so that an
embedded engine can run it to its end without suspending; it may be run several times, so it has no side effects
but through `txn`. What it raises aborts the transaction, undoes its writes and is raised to the caller.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

T = TypeVar("T")

KEY_BYTES_MAX = 510
"""One less than LMDB's bound, so that the engine has room for a key of its own. Names are at most 255 bytes: no key of
the schema comes near it."""


class Transaction(Protocol):
    """Reads see the transaction's own writes. Keys and ranges read are part of its conflict set."""

    @property
    def writes(self) -> Mapping[bytes, bytes | None]:
        """What it has written so far: key to value; None: deleted."""

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

    async def transact(self, fn: TransactionFunction[T], *, relaxed: bool = False) -> T:
        """Run `fn` with serializable isolation; return its result once it is committed and durable.

        `relaxed`: return once it is committed and survives the death of every process; the death of the machine it
        survives after the next `sync`, or after the return of any later transaction that is not relaxed. What is lost
        with the machine is always the end of the history: no transaction survives without those before it.

        What a transaction that is not relaxed has seen is durable, too, when it returns or raises.
        """

    async def sync(self) -> None:
        """Return once every transaction that was acknowledged before the call, or seen by a `read`, is durable."""

    async def read(self, fn: TransactionFunction[T]) -> T:
        """Run `fn` on one snapshot that includes every transaction that was acknowledged before the call.

        It may include some that are not acknowledged yet; they are committed, and `sync` makes them durable.

        Writes in `fn` are refused. An embedded engine does not suspend here.
        """

    async def close(self) -> None:
        """Finish what is in flight, then release the store."""
