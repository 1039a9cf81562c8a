"""What a store that was restored from a backup must not repeat, or take for granted. Pure.

A backup is older than what storage daemons and clients know. Since it was made, inode numbers were given to files,
whose chunks are there; chains got versions; replicas were left behind, and others filled up. So a restored store

* gives out inode numbers that nobody can have had;
* has versions of routing and chains that are newer than any;
* believes of no replica that it has everything: each store counts as an old copy (`manager/stores.py`), and all
  replicas of a chain make each other whole before one serves (docs/concurrency/chains.md). A replica that is gone is
  waited for, as nobody knows what it alone had, until an operator gives it up (`emberfs chains rotate`).

Called by: `fs_meta.restoring`.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_meta import schema
from fs_meta.kv.journal_format import Changes
from fs_meta.manager import records
from fs_meta.manager.chains import ordered
from fs_meta.manager.records import Head, Store

INODES: Final = 1 << 40
"""Beyond the numbers that were given out: at a million files a second, those of twelve days; a store can be restored
some million times."""
VERSIONS: Final = 1 << 32
OPENINGS: Final = 1 << 20


def changes_of(
    get: Callable[[bytes], bytes | None], scan: Callable[[bytes, bytes], Iterable[tuple[bytes, bytes]]]
) -> Changes:
    """`scan`: pairs from a key to before another one. Raises `EmberError` for records that cannot be read."""
    changes: Changes = {records.REST_KEY: None}
    counter = get(schema.NEXT_INODE_KEY)
    if counter is not None:
        taken = schema.decode_counter(counter).value
        changes[schema.NEXT_INODE_KEY] = schema.encode(schema.Counter(taken + INODES))
    head = get(records.HEAD_KEY)
    if head is not None:
        found = records.decode(records.HEAD_KEY, head, Head)
        changes[records.HEAD_KEY] = records.encode(msgspec.structs.replace(found, version=found.version + VERSIONS))
    stored = set()
    for key, value in scan(*records.STORES):
        store = records.decode(key, value, Store)
        if store.uuid and not store.retired:
            stored.add(store.target)
            changes[key] = records.encode(msgspec.structs.replace(store, opening=store.opening + OPENINGS))
    for key, value in scan(*records.CHAINS):
        changes[key] = records.encode(_doubted(records.decode(key, value, Chain), stored))
    return changes


def _doubted(chain: Chain, stored: set[int]) -> Chain:
    """Every replica that has a store is a survivor: one of them has what was acknowledged last."""
    targets = chain.targets
    if any(target.target in stored for target in targets):
        targets = ordered(
            [
                ChainTarget(
                    target.target,
                    target.node,
                    PublicState.SERVING if target.target in stored else PublicState.OFFLINE,
                )
                for target in targets
            ]
        )
    return Chain(chain.chain, chain.version + VERSIONS, targets)
