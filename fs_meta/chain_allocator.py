"""Chooses the chains of a new file: the next run of `stripe` chains of the current table, in an order of its own.

Files that are made one after another start on different chains (round robin for each table and stripe, kept in
memory, from a random start so that several servers do not march in step), and the seed shuffles a file's chains so
that the first chunks of many small files do not all meet on one chain.
"""

import random
from collections.abc import Callable

from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.records.routing import ChainTable, Routing


class ChainAllocator:
    def __init__(self, routing: Callable[[], Routing | None], choice: random.Random | None = None) -> None:
        self._routing = routing
        """The newest routing this process knows."""
        self._choice = choice or random.Random()
        self._next: dict[tuple[int, int], int] = {}
        """(table, stripe) -> index in the table of the next file's first chain."""
        self._seen: Routing | None = None
        self._current: dict[int, ChainTable] = {}
        """Table id -> its newest version in `_seen`."""

    def place(self, layout: Layout) -> Layout:
        """`layout` with table version, first chain and seed chosen, its stripe capped to the table's length.

        Raises `EmberError`: CLUSTER_NOT_READY while the cluster has no chain table; INVALID for a table it never had.
        """
        routing = self._routing()
        if routing is not self._seen:
            self._learn(routing)
        table = self._current.get(layout.table)
        if table is None or not table.chains:
            if self._current and layout.table not in self._current:
                raise EmberError(Code.INVALID, f"there is no chain table {layout.table}")
            raise EmberError(Code.CLUSTER_NOT_READY, "no chain table yet: wait for the storage daemons to register")
        length = len(table.chains)
        stripe = min(layout.stripe, length)
        key = (layout.table, stripe)
        first = self._next.get(key)
        if first is None:
            first = self._choice.randrange(length)
        first %= length
        self._next[key] = first + stripe
        return Layout(
            layout.chunk_size,
            stripe,
            layout.table,
            table.version,
            first,
            self._choice.getrandbits(64),
            layout.durability,
        )

    def _learn(self, routing: Routing | None) -> None:
        self._seen = routing
        self._current = {}
        for table in routing.tables if routing is not None else ():
            known = self._current.get(table.table)
            if known is None or table.version > known.version:
                self._current[table.table] = table
