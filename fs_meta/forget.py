"""Forgets the answers of requests that nobody retries any more.

Answers are found by age (`schema.ages_range`), so nothing is scanned that stays. Each transaction forgets at most
`STEP`; a crash between two leaves old answers, which the next pass forgets.
"""

from typing import Final

from fs_meta import schema
from fs_meta.kv.interface import KeyValueStore, Transaction

STEP: Final = 256
"""Answers for each transaction: about a millisecond of the store's writer."""


async def forget_answers(kv: KeyValueStore, before_ns: int) -> int:
    """Forget the answers given before `before_ns`, in steps. Returns how many there were."""
    begin, end = schema.ages_range(before_ns)

    async def step(txn: Transaction) -> int:
        pairs = await txn.range(begin, end, STEP)
        for key, _ in pairs:
            txn.delete(schema.answer_key(schema.split_age_key(key)[1]))
            txn.delete(key)
        return len(pairs)

    forgotten = 0
    while True:
        count = await kv.transact(step)
        forgotten += count
        if count < STEP:
            return forgotten
