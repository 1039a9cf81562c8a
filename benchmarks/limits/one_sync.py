"""Files and LMDB alone, in this process: the records of one create stored and synced, one after the other."""

import os
import statistics
import time
from pathlib import Path

from benchmarks.limits.lmdb_groups import RECORDS

_FILE_BYTES = 4 << 20
_CREATE_BYTES = sum(len(prefix) + 8 + size for prefix, size in RECORDS)


def append_us(directory: Path, count: int) -> float:
    """Append the bytes of a create to a file that has its blocks, and sync: the median, in us."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "append"
    data = bytes(_CREATE_BYTES)
    times = []
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        os.pwrite(file, bytes(_FILE_BYTES), 0)
        os.fsync(file)
        for i in range(count):
            start = time.perf_counter()
            os.pwrite(file, data, i * len(data) % (_FILE_BYTES - len(data)))
            os.fdatasync(file)
            times.append(time.perf_counter() - start)
    finally:
        os.close(file)
        path.unlink()
    return statistics.median(times) * 1e6


def commit_us(directory: Path, count: int) -> float:
    """One LMDB transaction for each create: the median, in us."""
    import lmdb

    directory.mkdir(parents=True, exist_ok=True)
    times = []
    with lmdb.open(str(directory), map_size=1 << 30, sync=True) as environment:
        for i in range(count):
            start = time.perf_counter()
            with environment.begin(write=True) as transaction:
                for prefix, size in RECORDS:
                    transaction.put(prefix + i.to_bytes(8, "big"), bytes(size))
            times.append(time.perf_counter() - start)
        with environment.begin(write=True) as transaction:
            transaction.drop(environment.open_db(None, txn=transaction), delete=False)
    return statistics.median(times) * 1e6
