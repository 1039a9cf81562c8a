"""Killed in the middle of everything: what was acknowledged, relaxed or not, is there; each transaction is whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fs_meta.kv.interface import Transaction
from fs_meta.kv.open import open_store
from tests.support import run

_WRITER = """
import asyncio, os, sys
from pathlib import Path
from fs_meta.kv.lmdb_engine import Bounds, LmdbStore

async def main():
    bounds = Bounds(changes=int(sys.argv[3]), journal_bytes=1 << 20, interval_s=0.01)
    kv = LmdbStore.open(Path(sys.argv[1]), map_size_bytes=1 << 20, bounds=bounds)
    first = int(sys.argv[2])
    async def worker(worker):
        number = first
        while True:
            async def put(txn):
                txn.put(b"a%03d.%08d" % (worker, number), b"x" * (number * 37 % 500))
                txn.delete(b"b%03d.%08d" % (worker, number - 1))
                txn.put(b"b%03d.%08d" % (worker, number), b"")
            await kv.transact(put, relaxed=worker % 4 != 0)
            os.write(1, b"%d %d\\n" % (worker, number))
            number += 1
    await asyncio.gather(*(worker(number) for number in range(16)))

asyncio.run(main())
"""


def _write_and_kill(directory: Path, first: int, lines: int, changes: int) -> dict[int, int]:
    """The last acknowledged number of each worker, of a writer killed after `lines` acknowledgements."""
    command = [sys.executable, "-c", _WRITER, directory, str(first), str(changes)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    acknowledged: dict[int, int] = {}
    try:
        told = [writer.stdout.readline() for _ in range(lines)]
        os.kill(writer.pid, signal.SIGKILL)
        told += writer.stdout.read().splitlines()  # what it said before the signal reached it
        for line in told:
            worker, number = line.split()
            acknowledged[int(worker)] = int(number)
    finally:
        writer.kill()
        writer.stdout.close()
        writer.wait()
    return acknowledged


async def _check(directory: Path, first: int, acknowledged: dict[int, int]) -> int:
    """Every acknowledged transaction is there, each is whole, none is missing in between; the highest number."""
    kv = open_store(f"lmdb://{directory}")
    try:

        async def keys(txn: Transaction) -> tuple[list[bytes], list[bytes]]:
            return (
                [key for key, _ in await txn.range(b"a", b"b")],
                [key for key, _ in await txn.range(b"b", b"c")],
            )

        firsts, lasts = await kv.read(keys)
        highest = 0
        for worker, number in acknowledged.items():
            mine = [int(key[5:]) for key in firsts if key.startswith(b"a%03d." % worker) and int(key[5:]) >= first]
            assert mine == list(range(first, first + len(mine))), "no hole"
            assert mine[-1] in (number, number + 1), "all that was told, and at most the one in flight"
            newest = max(int(key[5:]) for key in lasts if key.startswith(b"b%03d." % worker))
            assert newest == mine[-1], "both keys of a transaction, or none"
            highest = max(highest, mine[-1])
        return highest
    finally:
        await kv.close()


@pytest.mark.parametrize("lines, changes", [(1, 20_000), (200, 20_000), (1500, 20_000), (1500, 50)])
def test_acknowledged_transactions_survive_kill(tmp_path: Path, lines: int, changes: int) -> None:
    first = 1
    for _ in range(3):
        acknowledged = _write_and_kill(tmp_path / "kv", first, lines, changes)
        first = run(_check(tmp_path / "kv", first, acknowledged)) + 2
