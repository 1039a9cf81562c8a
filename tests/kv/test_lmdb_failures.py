"""The embedded store when its disk fails or fills, and what it makes of a batch."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import lmdb
import pytest

from fs_common.errors import Code, EmberError
from fs_common.limits import MIB
from fs_meta.kv.interface import Transaction
from fs_meta.kv.lmdb_engine import LmdbStore
from tests.support import run


class FaultyStore(LmdbStore):
    """A store whose next commits raise what `faults` says, without being done; counts those that are done."""

    faults: list[Exception]
    commits = 0

    def _commit_transaction(self, write: lmdb.Transaction) -> None:
        if self.faults:
            raise self.faults.pop(0)
        super()._commit_transaction(write)
        self.commits += 1


def _with(directory: Path, use: Callable[[FaultyStore], Awaitable[None]], *faults: Exception) -> None:
    async def scenario() -> None:
        kv = FaultyStore.open(directory, map_size_bytes=4 * MIB)
        assert isinstance(kv, FaultyStore)
        kv.faults = list(faults)
        try:
            await use(kv)
        finally:
            await kv.close()

    run(scenario())


def _put(key: bytes, value: bytes = b"") -> Callable[[Transaction], Awaitable[None]]:
    async def put(txn: Transaction) -> None:
        txn.put(key, value)

    return put


async def _codes(*calls: Awaitable[object]) -> list[Code | None]:
    """The error of each call; None where it succeeded."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    codes = []
    for result in results:
        assert not isinstance(result, BaseException) or isinstance(result, EmberError), result
        codes.append(result.code if isinstance(result, EmberError) else None)
    return codes


def test_transactions_in_flight_together_share_a_commit(tmp_path: Path) -> None:
    async def use(kv: FaultyStore) -> None:
        await asyncio.gather(*(kv.transact(_put(b"%d" % number)) for number in range(50)))
        assert kv.commits == 1

        async def look(txn: Transaction) -> bytes | None:
            return await txn.get(b"1")

        await asyncio.gather(*(kv.transact(look) for _ in range(10)))
        assert kv.commits == 1, "what writes nothing commits nothing"

    _with(tmp_path, use)


def test_a_caller_that_is_cancelled_before_its_turn_costs_nothing(tmp_path: Path) -> None:
    async def use(kv: FaultyStore) -> None:
        await kv.transact(_put(b"before"))
        ran = False

        async def fn(txn: Transaction) -> None:
            nonlocal ran
            ran = True

        task = asyncio.create_task(kv.transact(fn))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await kv.transact(_put(b"after"))
        assert not ran

    _with(tmp_path, use)


def test_a_full_disk_fails_the_batch_and_the_store_goes_on(tmp_path: Path) -> None:
    async def use(kv: FaultyStore) -> None:
        assert await _codes(*(kv.transact(_put(b"%d" % number)) for number in range(3))) == [Code.KV_FULL] * 3
        assert await kv.read(lambda txn: txn.range(b"", b"\xff")) == []
        await kv.transact(_put(b"later"))
        assert await kv.read(lambda txn: txn.range(b"", b"\xff")) == [(b"later", b"")]

    _with(tmp_path, use, lmdb.DiskError("commit"))

    async def reopened(kv: FaultyStore) -> None:
        assert await kv.read(lambda txn: txn.range(b"", b"\xff")) == [(b"later", b"")]

    _with(tmp_path, reopened)


def test_a_failed_sync_is_told_as_unknown_and_fences_the_store(tmp_path: Path) -> None:
    async def use(kv: FaultyStore) -> None:
        await kv.transact(_put(b"before"))
        kv.faults = [lmdb.Error("mdb_txn_commit: Input/output error")]
        batch = [kv.transact(_put(b"%d" % number)) for number in range(3)]
        assert await _codes(*batch) == [Code.KV_MAYBE_COMMITTED] * 3
        assert await _codes(kv.transact(_put(b"after")), kv.read(lambda txn: txn.get(b"before"))) == [
            Code.DISK_FAILED,
            Code.DISK_FAILED,
        ]

    _with(tmp_path, use)

    async def reopened(kv: FaultyStore) -> None:
        assert await kv.read(lambda txn: txn.get(b"before")) == b""
        await kv.transact(_put(b"after"))

    _with(tmp_path, reopened)


def test_those_that_wait_behind_a_failed_commit_are_told_too(tmp_path: Path) -> None:
    async def use(kv: FaultyStore) -> None:
        await kv.transact(_put(b"before"))
        kv.faults = [lmdb.PanicError("commit")]
        first = asyncio.create_task(kv.transact(_put(b"first")))
        while not kv._committing:
            await asyncio.sleep(0)
        second = asyncio.create_task(kv.transact(_put(b"second")))
        assert await _codes(first, second) == [Code.KV_MAYBE_COMMITTED, Code.DISK_FAILED]

    _with(tmp_path, use)


def test_a_map_that_is_full_grows_and_the_batch_runs_again(tmp_path: Path) -> None:
    async def use(kv: FaultyStore) -> None:
        runs = 0

        async def big(txn: Transaction, number: int) -> int:
            nonlocal runs
            runs += 1
            count = int(await txn.get(b"count") or b"0") + 1
            txn.put(b"count", b"%d" % count)
            txn.put(b"big%03d" % number, os.urandom(MIB // 4))
            return count

        calls = [kv.transact(lambda txn, number=number: big(txn, number)) for number in range(40)]  # type: ignore[misc]
        counts = await asyncio.gather(*calls)
        assert counts == list(range(1, 41)), "each took effect once, in the order they came"
        assert runs > 40, "10 MiB do not fit in a map of 4 MiB"

        async def sizes(txn: Transaction) -> list[int]:
            return [len(value) for _, value in await txn.range(b"big", b"bih")]

        assert await kv.read(sizes) == [MIB // 4] * 40

    _with(tmp_path, use)
    # A smaller map than the data is no obstacle to the next open.
    _with(tmp_path, lambda kv: kv.transact(_put(b"more", b"x" * MIB)))


def test_a_map_that_is_full_at_the_commit_grows_too(tmp_path: Path) -> None:
    async def use(kv: FaultyStore) -> None:
        await kv.transact(_put(b"k", b"v"))
        assert await kv.read(lambda txn: txn.get(b"k")) == b"v"
        assert kv._map_size_bytes == 8 * MIB

    _with(tmp_path, use, lmdb.MapFullError("commit"))


def test_a_map_that_cannot_grow_is_a_full_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(kv: FaultyStore) -> None:
        real = os.statvfs(tmp_path)
        fields = list(real)
        fields[4] = 0  # blocks free to users
        monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))
        assert await _codes(kv.transact(_put(b"k", b"x" * 8 * MIB))) == [Code.KV_FULL]
        await kv.transact(_put(b"small"))
        assert await kv.read(lambda txn: txn.range(b"", b"\xff")) == [(b"small", b"")]

    _with(tmp_path, use)


_FILL = """
import asyncio, sys
from fs_common.errors import EmberError
from fs_meta.kv.open import open_store

async def main():
    kv = open_store("lmdb://" + sys.argv[1])
    acknowledged = 0
    while True:
        async def put(txn):
            txn.put(b"k%06d" % acknowledged, b"x" * 50_000)
        try:
            await kv.transact(put)
        except EmberError as error:
            print(error.code.name)
            break
        acknowledged += 1
    async def keys(txn):
        return len(await txn.range(b"k", b"l"))
    assert await kv.read(keys) == acknowledged > 5
    async def remove(txn):
        txn.delete_range(b"k", b"k000004")
    await kv.transact(remove)
    async def put(txn):
        txn.put(b"k", b"x" * 20_000)
    await kv.transact(put)
    await kv.close()
    kv = open_store("lmdb://" + sys.argv[1])
    assert await kv.read(keys) == acknowledged - 4 + 1
    await kv.close()

asyncio.run(main())
"""


def _can_mount() -> bool:
    probe = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _can_mount(), reason="needs the right to mount a small file system of its own")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=2100k none "$1" && exec "$2" -c "$3" "$1/kv"'
    filled = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "-", tmp_path, sys.executable, _FILL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert filled.returncode == 0, filled.stderr
    assert filled.stdout == "KV_FULL\n"
