"""A store on a simulated disk, transactions of every kind, and crashes at any step; what is left is judged.

Every transaction counts one up, so the count says after which of them a state is. While the store lives, what a crash
would leave is remembered at many steps (the journal's files, LMDB's file as of its last commit, what callers had been
told until then). Each of these is opened again, after the death of the process or of the machine. What is found has to
be exactly the state after some transaction, not earlier than

* after the death of the machine: the last that was acknowledged and not relaxed, or that a `sync` has covered;
* after the death of the process: the last that was acknowledged.

Then the world goes on from one of them. Reproducible: everything is chosen by the seed, on a loop with virtual time.
`python -m tests.kv.crash_world --seeds N` runs many.
"""

import argparse
import asyncio
import logging
import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from fs_common.errors import Code, EmberError
from fs_common.limits import MIB
from fs_meta.kv.directory import DATA_FILE
from fs_meta.kv.interface import Transaction
from fs_meta.kv.lmdb_engine import Bounds, LmdbStore
from fs_meta.kv.lmdb_file import LmdbFile
from tests.kv.simulated import SimulatedDisk, SimulatedWorker
from tests.storage.engine.virtual_loop import run_virtual

State = dict[bytes, bytes]
COUNT = b"count"
KEYS = [b"%c%d" % (letter, number) for letter in b"abc" for number in range(8)]


@dataclass(frozen=True, slots=True)
class Moment:
    """What a crash now would leave, and what callers have been told."""

    disk: SimulatedDisk
    data: bytes
    """LMDB's file."""
    states: dict[int, State]
    durable: int
    acknowledged: int


class World:
    def __init__(self, seed: int, directory: Path) -> None:
        self.seed = seed
        self.choose = random.Random(seed)
        self.directory = directory
        self.disk = SimulatedDisk()
        self.data = b""
        self.states: dict[int, State] = {0: {}}
        """By the count of transactions."""
        self.durable = 0
        self.acknowledged = 0
        self.moments: list[Moment] = []
        self.now_s = 0.0
        self.refused_for_space = 0
        self.lost = 0
        """Transactions that were acknowledged as relaxed and are gone with the machine."""

    # -- a life between two crashes ----------------------------------------------------------------------------

    def open(self) -> LmdbStore:
        world = self

        class File(LmdbFile):
            """Remembers what it looks like after each commit."""

            def _commit_transaction(self, write: Any) -> None:
                world.remember()
                if world.disk.full and world.choose.random() < 0.7:
                    raise lmdb.DiskError("commit")
                super()._commit_transaction(write)
                world.data = (world.directory / DATA_FILE).read_bytes()
                world.remember()

        bounds = Bounds(
            changes=self.choose.choice([1, 4, 20, 1000]),
            journal_bytes=self.choose.choice([300, 3000, 1 << 20]),
            interval_s=self.choose.choice([0.001, 1.0, 1000.0]),
        )
        store = LmdbStore.open(
            self.directory,
            map_size_bytes=MIB,
            bounds=bounds,
            disk=self.disk,
            lmdb_file=File,
            new_thread=lambda name: SimulatedWorker(self.choose, self.disk),
            clock=self._look_at_the_clock,
        )
        if not self.data:
            self.data = (self.directory / DATA_FILE).read_bytes()
        self.disk.on_step = self.remember
        return store

    def _look_at_the_clock(self) -> float:
        """The machine may stand still at any time."""
        self.now_s += self.choose.choice([0, 0, 0, 0.0003, 0.01])
        return self.now_s

    def remember(self) -> None:
        if self.choose.random() < 0.2:
            self.moments.append(Moment(self.disk.copy(), self.data, dict(self.states), self.durable, self.acknowledged))

    async def live(self, transactions: int) -> None:
        store = self.open()
        actors = self.choose.randrange(1, 6)
        try:
            await asyncio.gather(*(self._act(store, transactions // actors + 1) for _ in range(actors)))
        finally:
            self.disk.full = False
            await store.close()
        self.durable = self.acknowledged
        self.disk.on_step = lambda: None

    async def _act(self, store: LmdbStore, transactions: int) -> None:
        choose = self.choose
        for _ in range(transactions):
            await asyncio.sleep(choose.choice([0, 0, 0, 0.0005, 0.01]))
            if choose.random() < 0.06:
                self.disk.full = not self.disk.full
            if choose.random() < 0.1:
                covered = self.acknowledged
                await store.sync()
                self.durable = max(self.durable, covered)
            if choose.random() < 0.2:
                await self.look(store)
            relaxed = choose.random() < 0.6
            try:
                count = await store.transact(self._transaction(random.Random(choose.random())), relaxed=relaxed)
            except EmberError as error:
                assert error.code is Code.KV_FULL, error
                self.refused_for_space += 1
                continue
            self.acknowledged = max(self.acknowledged, count)
            if not relaxed:
                self.durable = max(self.durable, count)

    def _transaction(self, choose: random.Random) -> Callable[[Transaction], Any]:
        changes: State = {}
        deleted = {choose.choice(KEYS) for _ in range(choose.randrange(3))}
        for key in choose.sample(KEYS, choose.randrange(1, 6)):
            changes[key] = choose.randbytes(choose.choice([0, 1, 20, 20, 700, 5000]))

        async def transaction(txn: Transaction) -> int:
            count = int(await txn.get(COUNT) or b"0") + 1
            for key in deleted:
                txn.delete(key)
            for key, value in changes.items():
                txn.put(key, value)
            txn.put(COUNT, b"%d" % count)
            before = self.states[count - 1]
            self.states[count] = {key: value for key, value in before.items() if key not in deleted} | changes
            return count

        return transaction

    async def look(self, store: LmdbStore) -> int:
        """What is readable is exactly the state after one transaction; returns which."""
        begin, end = sorted((self.choose.choice(KEYS), self.choose.choice(KEYS)))
        reverse = self.choose.random() < 0.5

        async def read(txn: Transaction) -> tuple[int, State, list[tuple[bytes, bytes]], bytes | None]:
            everything = dict(await txn.range(b"", b"\xff" * 600))
            count = int(everything.pop(COUNT, b"0"))
            return count, everything, await txn.range(begin, end, 3, reverse), await txn.get(begin)

        count, state, some, one = await store.read(read)
        expected = self.states[count]
        assert state == expected, f"seed {self.seed}: the state of transaction {count}"
        pairs = sorted((pair for pair in expected.items() if begin <= pair[0] < end), reverse=reverse)
        assert some == pairs[:3] and one == expected.get(begin)
        return count

    # -- crashes -----------------------------------------------------------------------------------------------

    def crash(self, moment: Moment, *, power: bool) -> int:
        """Go on from `moment`; returns how many transactions are left."""
        self.disk = moment.disk.after_power_loss(self.choose) if power else moment.disk.copy()
        (self.directory / DATA_FILE).write_bytes(moment.data)
        self.data = moment.data
        self.states = dict(moment.states)
        self.durable, self.acknowledged = moment.durable, moment.acknowledged
        self.moments = []
        count = run_virtual(self._judge(moment.durable if power else moment.acknowledged))
        self.lost += max(self.acknowledged - count, 0)
        self.acknowledged = count
        if power:
            self.durable = count
        # The death of the process loses nothing yet: the machine may still die before the next sync.
        self.states = {known: state for known, state in self.states.items() if self.durable <= known <= count}
        return count

    async def _judge(self, least: int) -> int:
        store = self.open()
        self.disk.on_step = lambda: None
        try:
            count = await self.look(store)
        finally:
            # The process dies again: `close` would make a checkpoint.
            store._journal.close()
            store._below.close()
            store._directory.close()
        assert count >= least, f"seed {self.seed}: {count} transactions are left, {least} were promised"
        return count


def run_seed(seed: int, *, lives: int = 4, transactions: int = 40, crashes: int = 12) -> World:
    with tempfile.TemporaryDirectory() as directory:
        world = World(seed, Path(directory) / "kv")
        for _ in range(lives):
            run_virtual(world.live(transactions))
            moments = world.moments
            for moment in world.choose.sample(moments, min(crashes, len(moments))):
                world.crash(moment, power=world.choose.random() < 0.7)
        shutil.rmtree(world.directory)
    return world


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=int(time.time()) * 1000)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failed = []
    started = time.monotonic()
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        try:
            run_seed(seed)
        except Exception:
            failed.append(seed)
            print(f"seed {seed} fails", flush=True)
            if len(failed) == 1:
                traceback.print_exc()
    print(f"{arguments.seeds} seeds from {arguments.first} in {time.monotonic() - started:.0f} s; failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
