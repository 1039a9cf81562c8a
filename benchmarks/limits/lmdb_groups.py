"""LMDB alone, in this process: transactions of a group of creates, each group synced."""

import time
from pathlib import Path

GROUP = 64
RECORDS = ((b"inode", 120), (b"dentry", 24), (b"request", 48))
"""Key prefix and value size of what one create stores."""


def creates_per_s(directory: Path, count: int) -> float:
    """Store the records of `count` creates in groups of 64 with one sync each; creates a second."""
    import lmdb

    directory.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(directory), map_size=1 << 30, sync=True) as environment:
        start = time.perf_counter()
        for group in range(0, count, GROUP):
            with environment.begin(write=True) as transaction:
                for i in range(group, min(group + GROUP, count)):
                    for prefix, size in RECORDS:
                        transaction.put(prefix + i.to_bytes(8, "big"), bytes(size))
        elapsed = time.perf_counter() - start
        with environment.begin(write=True) as transaction:
            transaction.drop(environment.open_db(None, txn=transaction), delete=False)
    return count / elapsed
