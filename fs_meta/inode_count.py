"""How many inodes are in use, for `statfs`, without scanning and without a key that every transaction writes.

Approximate: each process counts what its own operations add and remove in memory and adds that to the store now and
then and when it ends. A crash loses what was not added yet; other servers' counts are seen at the next flush.
"""

from fs_meta import schema
from fs_meta.kv.interface import KeyValueStore, Transaction


class InodeCount:
    def __init__(self, kv: KeyValueStore) -> None:
        self._kv = kv
        self._stored = 0
        """The store's value when it was last seen."""
        self._pending = 0
        """Not added to the store yet; may be negative."""

    def add(self, difference: int) -> None:
        self._pending += difference

    @property
    def estimate(self) -> int:
        return max(self._stored + self._pending, 1)

    async def flush(self) -> None:
        """Add what is pending to the store and learn what others added."""
        adding = self._pending

        async def add(txn: Transaction) -> int:
            value = await txn.get(schema.INODES_IN_USE_KEY)
            total = (0 if value is None else schema.decode_counter(value).value) + adding
            if adding:
                txn.put(schema.INODES_IN_USE_KEY, schema.encode(schema.Counter(total)))
            return total

        total = await (self._kv.transact(add) if adding else self._kv.read(add))
        self._stored = total
        self._pending -= adding
