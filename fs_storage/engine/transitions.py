"""How a record changes: the same steps on the event loop and when the log is replayed. Pure.

make_pending    PREPARE     none or another pending -> this one pending
commit          COMMIT      pending -> committed
drop_pending    ABANDON     pending -> gone (a first version: the record as well)
                FORGET      the record -> gone
"""

from collections.abc import Sequence

from fs_storage.engine.index_format import StoredAnswer
from fs_storage.engine.versions import NOBODY, Block, Identity, Record, Version


def make_pending(record: Record, version: Version, identity: Identity, forgets: bool) -> Record:
    """A pending version that is there already is dropped. `forgets` (in logs of older versions): so is the committed
    one, an expired tombstone."""
    return Record(None if forgets else drop_pending(record).committed, version, identity)


def commit(record: Record, when: int) -> Record:
    """`when`: seconds of the store's odometer; a removal is forgotten some time after it."""
    version = record.pending
    assert version is not None
    if version.removed:
        version = version._replace(removed_at=when)
    return Record(version, None, NOBODY)


def drop_pending(record: Record) -> Record:
    """What the pending version put into the block's tail stays out of reach of direct writes: until the drop is
    durable a crash brings the version back."""
    committed, pending, _ = record
    if (
        committed is not None
        and pending is not None
        and committed.block == pending.block
        and pending.used > committed.used
    ):
        committed = committed._replace(used=pending.used)
    return Record(committed, None, NOBODY)


def blocks_of(record: Record) -> list[Block]:
    """The blocks a record owns (one of them twice if both versions are in it)."""
    return [version.block for version in record[:2] if version is not None and version.block is not None]


def dropped_blocks(before: Record, after: Record) -> Sequence[Block]:
    """Blocks that belonged to `before` and do not to `after`."""
    if before.pending is None and (before.committed is None or before.committed is after.committed):
        # A version became pending: nothing can have been dropped.
        return ()
    kept = blocks_of(after)
    dropped: list[Block] = []
    for block in blocks_of(before):
        if block not in kept and block not in dropped:
            dropped.append(block)
    return dropped


def dropped_answer(answer: StoredAnswer | None, chunk: bytes, identity: Identity) -> StoredAnswer | None:
    """What becomes of the answer of `identity`'s channel when its pending version is dropped; None: it stays.

    The sequence stays, so that older ones remain stale; the version is never committed.
    """
    if answer is None or answer.chunk != chunk or answer.sequence != identity.sequence or not answer.version:
        return None
    return answer._replace(version=0, length=0)


def succeeds(answer: StoredAnswer, last: StoredAnswer | None) -> bool:
    """A channel never goes back: an older update that a replica sends on does not hide a newer one."""
    return last is None or last.sequence <= answer.sequence
