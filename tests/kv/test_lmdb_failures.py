"""The embedded store when its disk fails or fills, who is answered when, and what it makes of a batch."""

import asyncio
import errno
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from fs_common.errors import Code, EmberError
from fs_common.limits import MIB
from fs_meta.kv.interface import Transaction
from fs_meta.kv.journal import Journal
from fs_meta.kv.lmdb_engine import Bounds, LmdbStore
from fs_meta.kv.lmdb_file import LmdbFile
from tests.kv.simulated import SimulatedDisk, SimulatedWorker
from tests.storage.engine.virtual_loop import run_virtual

NEVER = Bounds(changes=1_000_000, journal_bytes=1 << 40, interval_s=1e9)


class Bench:
    """A store on a simulated disk over a real LMDB whose commits can be made to fail; opened again and again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.disk = SimulatedDisk()
        self.commit_faults: list[Exception] = []
        """What the next commits of LMDB raise, without being done."""
        self.commits = 0
        self.clock: Callable[[], float] = time.monotonic
        self.workers: dict[str, SimulatedWorker] = {}

    def use(self, scenario: Callable[[LmdbStore], Awaitable[None]], bounds: Bounds = NEVER) -> None:
        """Open, run, close."""
        bench = self

        class File(LmdbFile):
            def _commit_transaction(self, write: Any) -> None:
                if bench.commit_faults:
                    raise bench.commit_faults.pop(0)
                super()._commit_transaction(write)
                bench.commits += 1

        def new_worker(name: str) -> SimulatedWorker:
            bench.workers[name] = SimulatedWorker(random.Random(1), bench.disk)
            return bench.workers[name]

        async def opened() -> None:
            kv = LmdbStore.open(
                self.directory,
                map_size_bytes=4 * MIB,
                bounds=bounds,
                disk=self.disk,
                lmdb_file=File,
                new_thread=new_worker,
                clock=self.clock,
            )
            self.disk.writes = self.disk.syncs = 0
            try:
                await asyncio.wait_for(scenario(kv), 1000)
            finally:
                await kv.close()

        run_virtual(opened())

    @property
    def syncer(self) -> SimulatedWorker:
        return self.workers["kv-syncer"]

    @property
    def writer(self) -> SimulatedWorker:
        return self.workers["kv-writer"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "kv")


def _put(key: bytes, value: bytes = b"") -> Callable[[Transaction], Awaitable[None]]:
    async def put(txn: Transaction) -> None:
        txn.put(key, value)

    return put


LARGE = bytes(300_000)
"""Larger than what a new journal has left: it has to grow."""


async def _keys(kv: LmdbStore) -> list[bytes]:
    return [key for key, _ in await kv.read(lambda txn: txn.range(b"", b"\xff"))]


async def _codes(*calls: Awaitable[object]) -> list[Code | None]:
    """The error of each call; None where it succeeded."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    codes = []
    for result in results:
        assert not isinstance(result, BaseException) or isinstance(result, EmberError), result
        codes.append(result.code if isinstance(result, EmberError) else None)
    return codes


async def _turns(count: int = 50) -> None:
    """Let everything happen that does not wait for something that is held."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- who is answered when ---------------------------------------------------------------------------------------------


def test_transactions_in_flight_together_share_a_write_and_a_sync(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        await kv.transact(_put(b"first"))  # the file grows
        bench.disk.writes = bench.disk.syncs = 0
        await asyncio.gather(*(kv.transact(_put(b"%d" % number)) for number in range(50)))
        assert (bench.disk.writes, bench.disk.syncs) == (1, 1)
        await asyncio.gather(*(kv.transact(lambda txn: txn.get(b"1")) for _ in range(10)))
        assert (bench.disk.writes, bench.disk.syncs) == (1, 1), "what writes nothing costs nothing"
        assert bench.commits == 0

    bench.use(use)


def test_relaxed_transactions_wait_for_no_sync_and_sync_is_for_all_of_them(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        bench.syncer.held = True
        for number in range(20):
            await kv.transact(_put(b"one by one %d" % number), relaxed=True)
        bench.disk.writes = 0
        await asyncio.gather(*(kv.transact(_put(b"together %d" % number), relaxed=True) for number in range(20)))
        assert bench.disk.writes == 2, "the first of a turn at once, the others together"
        synced = asyncio.create_task(kv.sync())
        await _turns()
        assert not synced.done() and bench.disk.syncs == 0
        bench.syncer.release()
        await synced
        assert bench.disk.syncs == 1
        await kv.sync()
        assert bench.disk.syncs == 1, "nothing has come since"

    bench.use(use)


def test_what_others_see_of_a_transaction_does_not_wait_for_its_sync(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        bench.syncer.held = True
        durable = asyncio.create_task(kv.transact(_put(b"durable")))
        await _turns()
        assert await _keys(kv) == [b"durable"]
        assert await kv.transact(lambda txn: txn.get(b"durable"), relaxed=True) == b""
        assert not durable.done()
        bench.syncer.release()
        await durable

    bench.use(use)


@pytest.mark.parametrize("refused", [False, True], ids=["told", "refused"])
def test_a_durable_transaction_is_told_nothing_that_is_not_durable(bench: Bench, refused: bool) -> None:
    async def look(txn: Transaction) -> None:
        if await txn.get(b"relaxed") is not None and refused:
            raise EmberError(Code.EXISTS)

    async def use(kv: LmdbStore) -> None:
        bench.syncer.held = True
        await kv.transact(_put(b"relaxed"), relaxed=True)
        looking = asyncio.create_task(kv.transact(look))
        await _turns()
        assert not looking.done()
        bench.syncer.release()
        assert await _codes(looking) == [Code.EXISTS if refused else None]
        assert bench.disk.syncs == 1

    bench.use(use)


def test_on_a_machine_that_stands_still_between_any_two_steps_everything_runs(bench: Bench) -> None:
    bench.clock = itertools.count().__next__

    async def use(kv: LmdbStore) -> None:
        await kv.transact(_put(b"at once"), relaxed=True)
        await asyncio.gather(*(kv.transact(_put(b"%d" % number), relaxed=number % 2 == 0) for number in range(6)))
        assert len(await _keys(kv)) == 7

    bench.use(use)


def test_those_who_come_during_a_sync_share_the_next(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        bench.syncer.held = True
        calls = []
        for number in range(10):
            calls.append(asyncio.create_task(kv.transact(_put(b"%d" % number))))
            await _turns()
        bench.syncer.release()
        await asyncio.gather(*calls)
        assert bench.disk.syncs == 2

    bench.use(use)


def test_a_caller_that_is_cancelled_before_its_turn_costs_nothing(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
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

    bench.use(use)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_by_itself_after_the_interval(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        await kv.transact(_put(b"k", b"v"), relaxed=True)
        await asyncio.sleep(4.9)
        assert bench.commits == 0
        await asyncio.sleep(0.2)
        assert bench.commits == 1 and bench.disk.syncs == 0
        await kv.sync()
        assert bench.disk.syncs == 0, "LMDB's commit has made it durable"
        assert await _keys(kv) == [b"k"]
        await asyncio.sleep(100)
        assert bench.commits == 1, "nothing has come since"

    bench.use(use, Bounds(interval_s=5.0))


def test_transactions_go_on_during_a_checkpoint_and_wait_at_twice_the_bound(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        bench.writer.held = True
        for number in range(29):
            await kv.transact(_put(b"%02d" % number), relaxed=number % 2 == 0)
        waiting = [asyncio.create_task(kv.transact(_put(b"%02d" % number), relaxed=True)) for number in range(29, 40)]
        await _turns()
        assert [task.done() for task in waiting] == [True] + [False] * 10
        assert len(await _keys(kv)) == 30, "reads go on"
        bench.writer.release()
        await asyncio.gather(*waiting)
        assert len(await _keys(kv)) == 40

    bench.use(use, Bounds(changes=10, journal_bytes=1 << 40, interval_s=1e9))


def test_close_leaves_nothing_in_the_journal(bench: Bench) -> None:
    bench.use(lambda kv: kv.transact(_put(b"k", b"v"), relaxed=True))
    assert bench.commits == 1
    journal = Journal(bench.disk, bench.directory)
    journal.open()
    assert list(journal.read(1)) == []

    async def use(kv: LmdbStore) -> None:
        assert await _keys(kv) == [b"k"]

    bench.use(use)
    assert bench.commits == 1, "nor is there anything to do for the next"


# --- no space ---------------------------------------------------------------------------------------------------------


def test_without_room_for_the_journal_a_batch_is_committed_by_lmdb(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        await kv.transact(_put(b"before"), relaxed=True)
        bench.disk.full = True
        bench.disk.writes = 0
        await asyncio.gather(kv.transact(_put(b"1", LARGE)), kv.transact(_put(b"2")))
        assert bench.disk.syncs == 0
        assert bench.commits >= 2, "what was before, then the batch"
        assert await _keys(kv) == [b"1", b"2", b"before"]

    bench.use(use)
    bench.disk = bench.disk.after_power_loss(random.Random(1))

    async def reopened(kv: LmdbStore) -> None:
        assert await _keys(kv) == [b"1", b"2", b"before"]

    bench.use(reopened)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_write_without_space_is_tried_again_after_a_checkpoint(bench: Bench, number: int) -> None:
    async def use(kv: LmdbStore) -> None:
        await kv.transact(_put(b"before"))
        bench.disk.faults["write"] = OSError(number, "no space")
        await kv.transact(_put(b"k"))
        assert bench.commits == 1 and await _keys(kv) == [b"before", b"k"]

    bench.use(use)


def test_a_full_disk_fails_the_batch_and_the_store_goes_on(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        bench.disk.full = True
        bench.commit_faults = [lmdb.DiskError("commit")]
        assert await _codes(*(kv.transact(_put(b"%d" % number)) for number in range(3))) == [Code.KV_FULL] * 3
        assert await _keys(kv) == []
        await kv.transact(_put(b"later"))
        assert await _keys(kv) == [b"later"]

    bench.use(use)

    async def reopened(kv: LmdbStore) -> None:
        assert await _keys(kv) == [b"later"]

    bench.use(reopened)


def test_a_checkpoint_without_space_loses_nothing_and_lets_nothing_new_in(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        await kv.transact(_put(b"old", b"1"), relaxed=True)
        bench.commit_faults = [lmdb.DiskError("commit")] * 3
        await kv.transact(_put(b"old", b"2"), relaxed=True)  # the bound: a checkpoint begins, and fails
        await _turns(200)
        for number in range(2):
            assert await _codes(kv.transact(_put(b"new%d" % number), relaxed=True)) == [Code.KV_FULL]
        assert await kv.read(lambda txn: txn.range(b"", b"\xff")) == [(b"old", b"2")]
        assert bench.commits == 0
        await kv.transact(_put(b"new"))
        assert bench.commits >= 1 and await _keys(kv) == [b"new", b"old"]

    bench.use(use, Bounds(changes=1_000_000, journal_bytes=100, interval_s=1e9))


def test_what_is_in_the_journal_is_readable_after_opening_on_a_full_disk(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        await kv.transact(_put(b"k", b"v"), relaxed=True)
        bench.commit_faults = [lmdb.DiskError("commit")]  # the checkpoint of `close`

    bench.use(use)
    assert bench.commits == 0
    bench.disk.full = True

    async def reopened(kv: LmdbStore) -> None:
        assert await _keys(kv) == [b"k"]
        bench.commit_faults = [lmdb.DiskError("commit")]
        assert await _codes(kv.transact(_put(b"new"))) == [Code.KV_FULL]
        assert await _keys(kv) == [b"k"]

    bench.use(reopened)


def test_a_map_that_is_full_grows(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        async def big(txn: Transaction, number: int) -> int:
            count = int(await txn.get(b"count") or b"0") + 1
            txn.put(b"count", b"%d" % count)
            txn.put(b"big%03d" % number, os.urandom(MIB // 4))
            return count

        calls = [kv.transact(lambda txn, number=number: big(txn, number)) for number in range(40)]  # type: ignore[misc]
        assert sorted(await asyncio.gather(*calls)) == list(range(1, 41)), "each took effect once"

        async def sizes(txn: Transaction) -> list[int]:
            return [len(value) for _, value in await txn.range(b"big", b"bih")]

        assert await kv.read(sizes) == [MIB // 4] * 40

    bench.use(use, Bounds(journal_bytes=5 * MIB))
    # A smaller map than the data is no obstacle to the next open.
    bench.use(lambda kv: kv.transact(_put(b"more", b"x" * MIB)))


def test_a_map_that_is_full_at_the_commit_grows_too(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        await kv.transact(_put(b"k", b"v"))
        assert await kv.read(lambda txn: txn.get(b"k")) == b"v"

    bench.commit_faults = [lmdb.MapFullError("commit")]
    bench.use(use)
    assert bench.commits == 1

    async def reopened(kv: LmdbStore) -> None:
        assert await _keys(kv) == [b"k"]

    bench.use(reopened)


def test_a_map_that_cannot_grow_is_a_full_store(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(kv: LmdbStore) -> None:
        fields = list(os.statvfs(bench.directory))
        fields[4] = 0  # blocks free to users
        monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))
        bench.disk.full = True
        assert await _codes(kv.transact(_put(b"k", b"x" * 8 * MIB))) == [Code.KV_FULL]
        await kv.transact(_put(b"small"))
        assert await _keys(kv) == [b"small"]

    bench.use(use)


# --- failures ---------------------------------------------------------------------------------------------------------


async def _is_fenced(kv: LmdbStore) -> None:
    calls = (kv.transact(_put(b"after")), kv.transact(_put(b"after"), relaxed=True), kv.sync(), _keys(kv))
    assert await _codes(*calls) == [Code.DISK_FAILED] * 4
    assert kv.failure is not None


def test_a_failed_sync_is_told_as_unknown_and_fences_the_store(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        await kv.transact(_put(b"before"))
        await kv.transact(_put(b"relaxed"), relaxed=True)
        bench.disk.faults["sync"] = OSError(errno.EIO, "Input/output error")
        batch = [*(kv.transact(_put(b"%d" % number)) for number in range(3)), kv.sync()]
        assert await _codes(*batch) == [Code.KV_MAYBE_COMMITTED] * 4
        await _is_fenced(kv)

    bench.use(use)

    async def reopened(kv: LmdbStore) -> None:
        assert await _keys(kv) == [b"before"], "the disk never took the rest"
        await kv.transact(_put(b"after"))

    bench.use(reopened)


def test_what_a_failed_sync_lost_is_not_believed_by_the_next_process_in_the_same_boot(bench: Bench) -> None:
    async def scenario(kv: LmdbStore) -> None:
        await kv.transact(_put(b"durable"))
        bench.disk.faults["sync"] = OSError(errno.EIO, "Input/output error")
        assert await _codes(kv.transact(_put(b"lost"))) == [Code.KV_MAYBE_COMMITTED]

    bench.use(scenario)
    assert (bench.directory / "failed").exists()

    async def afterwards(kv: LmdbStore) -> None:
        assert await _keys(kv) == [b"durable"]
        await kv.transact(_put(b"new"))
        assert await _keys(kv) == [b"durable", b"new"]

    bench.use(afterwards)
    assert not (bench.directory / "failed").exists()

    async def later(kv: LmdbStore) -> None:
        assert await _keys(kv) == [b"durable", b"new"]

    bench.use(later)


def test_a_disk_that_still_fails_is_refused_at_the_opening_and_not_believed_after_it(bench: Bench) -> None:
    async def scenario(kv: LmdbStore) -> None:
        await kv.transact(_put(b"durable"))
        bench.disk.faults["sync"] = OSError(errno.EIO, "Input/output error")
        await _codes(kv.transact(_put(b"lost")))

    bench.use(scenario)
    bench.disk.faults["sync"] = OSError(errno.EIO, "Input/output error")

    async def nothing(kv: LmdbStore) -> None: ...

    with pytest.raises(EmberError) as error:
        bench.use(nothing)
    assert error.value.code is Code.INVALID and "check its disk" in str(error.value)
    assert (bench.directory / "failed").exists()

    async def afterwards(kv: LmdbStore) -> None:
        assert await _keys(kv) == [b"durable"]

    bench.use(afterwards)


@pytest.mark.parametrize("relaxed", [False, True], ids=["durable", "relaxed"])
def test_a_failed_write_is_told_as_unknown_and_fences_the_store(bench: Bench, relaxed: bool) -> None:
    async def use(kv: LmdbStore) -> None:
        await kv.transact(_put(b"before"))
        bench.disk.faults["write"] = OSError(errno.EIO, "Input/output error")
        assert await _codes(kv.transact(_put(b"k"), relaxed=relaxed)) == [Code.KV_MAYBE_COMMITTED]
        await _is_fenced(kv)

    bench.use(use)

    async def reopened(kv: LmdbStore) -> None:
        assert await _keys(kv) == [b"before"]

    bench.use(reopened)


def test_a_defect_while_a_batch_is_written_fences_the_store_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memtable must not have what the journal has not."""

    async def use(kv: LmdbStore) -> None:
        await kv.transact(_put(b"before"))
        monkeypatch.setattr(kv._journal, "next_frame", lambda changes: 1 / 0)
        assert await _codes(kv.transact(_put(b"k"), relaxed=True)) == [Code.KV_MAYBE_COMMITTED]
        await _is_fenced(kv)
        assert list(kv._memtables.active.changes) == [b"before"]

    bench.use(use)


def test_a_failed_checkpoint_fences_the_store_and_loses_nothing(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        bench.commit_faults = [lmdb.Error("mdb_txn_commit: Input/output error")]
        await kv.transact(_put(b"k", b"v"), relaxed=True)
        await asyncio.sleep(2)
        await _is_fenced(kv)

    bench.use(use, Bounds(interval_s=1.0))

    async def reopened(kv: LmdbStore) -> None:
        assert await _keys(kv) == [b"k"]

    bench.use(reopened)


def test_those_that_wait_for_a_checkpoint_that_fails_are_told(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        await kv.transact(_put(b"before"))
        bench.disk.full = True
        bench.commit_faults = [lmdb.PanicError("commit")]
        held = asyncio.create_task(kv.transact(_put(b"held", LARGE)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        queued = asyncio.create_task(kv.transact(_put(b"queued")))
        assert await _codes(held, queued) == [Code.KV_MAYBE_COMMITTED, Code.DISK_FAILED]

    bench.use(use)


def test_who_waits_for_a_sync_gets_it_although_a_checkpoint_fails(bench: Bench) -> None:
    async def use(kv: LmdbStore) -> None:
        bench.syncer.held = True
        bench.commit_faults = [lmdb.Error("mdb_txn_commit: Input/output error")]
        waiting = asyncio.create_task(kv.transact(_put(b"k")))
        await asyncio.sleep(2)
        assert kv.failure is not None and not waiting.done()
        bench.syncer.release()
        await waiting

    bench.use(use, Bounds(interval_s=1.0))


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
