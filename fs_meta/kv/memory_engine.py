"""A store in memory, for tests: the same semantics, no durability.

Invariant: `_keys` holds the keys of `_values` in order. A transaction runs and is applied between two suspensions
of the loop, so transactions are serial.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Iterator
from typing import TypeVar

from fs_common.errors import Code, EmberError
from fs_meta.kv.interface import TransactionFunction
from fs_meta.kv.overlay import Overlay, Snapshot, drive

T = TypeVar("T")


class MemoryStore:
    """A `KeyValueStore` in a dict."""

    def __init__(self, exclusive: bool = True) -> None:
        self.exclusive = exclusive
        """False: several servers of one test share the store, as they would share a remote one."""
        self._values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        self._closed = False

    async def transact(self, fn: TransactionFunction[T], *, relaxed: bool = False) -> T:
        self._check_open()
        # Callers suspend here as they do on an engine that has a disk, so that tests meet the same interleavings.
        await asyncio.sleep(0)
        overlay = Overlay(self)
        result = drive(fn, overlay)
        for key, value in overlay.writes.items():
            self._apply(key, value)
        await asyncio.sleep(0)
        return result

    async def read(self, fn: TransactionFunction[T]) -> T:
        self._check_open()
        return drive(fn, Snapshot(self))

    async def sync(self) -> None:
        self._check_open()
        await asyncio.sleep(0)

    async def close(self) -> None:
        self._closed = True

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        keys = self._keys[bisect_left(self._keys, begin) : bisect_left(self._keys, end)]
        return ((key, self._values[key]) for key in (reversed(keys) if reverse else keys))

    def _apply(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            if self._values.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
        else:
            if key not in self._values:
                self._keys.insert(bisect_left(self._keys, key), key)
            self._values[key] = value

    def _check_open(self) -> None:
        if self._closed:
            raise EmberError(Code.CLOSING, "the metadata store is closed")
