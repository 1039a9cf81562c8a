"""A store on a simulated disk, updates of every kind, and crashes at any step; what is found afterwards is judged.

Each chunk has one actor that updates it, and a history of what it did:

    PREPARE, COMMIT, ABANDON of a version, with the content it makes; FORGET of the chunk

After a crash the chunk has to be exactly what some prefix of its history made of it: the same committed and pending
versions, bytes and answer. The prefix is at least as long as

* after a power loss: up to the last PREPARE acknowledged with durability `disk` (or an acknowledged ABANDON or
  FORGET), or what a checkpoint held that was complete;
* after the death of the process: up to the last acknowledged PREPARE, ABANDON or FORGET of any durability.

Reproducible: everything is chosen by the seed, on a loop with virtual time.
"""

import asyncio
import enum
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.layout import Durability
from fs_common.records.storage import UpdateKind
from fs_storage.engine.interface import Answer, ChunkState, Update
from fs_storage.engine.store import EngineStore, open_store
from tests.storage.engine.audit import audit
from tests.storage.engine.simulated_disk import SimulatedDisk, SimulatedIndex
from tests.storage.engine.updates import disk_reader, take, update
from tests.storage.engine.virtual_loop import run_virtual

DIRECTORY = Path("/simulated/target-101")
CHUNK_SIZE = 256 * 1024
LENGTHS = (1, 10, 4095, 4096, 4097, 9000, 33_000, 70_000, 200_000)


class Step(enum.Enum):
    PREPARE = "prepare"
    COMMIT = "commit"
    ABANDON = "abandon"
    FORGET = "forget"


class Content(NamedTuple):
    version: int
    data: bytes
    removed: bool


class Event(NamedTuple):
    step: Step
    content: Content
    sequence: int
    """Of the update that prepared it."""


class View(NamedTuple):
    """What a chunk is, seen from outside."""

    committed: Content | None
    pending: Content | None
    answer: Answer | None


@dataclass
class History:
    chunk: bytes
    client: bytes
    start: View = field(default_factory=lambda: View(None, None, None))
    """As it was found when the store was opened."""
    events: list[Event] = field(default_factory=list)
    durable: int = 0
    """So many events survive a power loss."""
    stored: int = 0
    """So many events survive the death of the process."""
    done: int = 0
    """So many events are acknowledged."""

    def view(self, count: int) -> View:
        """After the first `count` events."""
        committed, pending, answer = self.start
        for step, content, sequence in self.events[:count]:
            if step is Step.PREPARE:
                pending = content
                answer = Answer(sequence, self.chunk, content.version, len(content.data), False)
            elif step is Step.COMMIT:
                committed, pending = content, None
                if answer is not None and answer.version:
                    answer = answer._replace(committed=True)
            elif step is Step.FORGET:
                if pending is not None and answer is not None:
                    answer = answer._replace(version=0, length=0)
                committed = pending = None
            else:
                pending = None
                if answer is not None and answer.sequence == sequence:
                    answer = answer._replace(version=0, length=0)
        return View(committed, pending, answer)

    @property
    def now(self) -> View:
        return self.view(len(self.events))


class World:
    def __init__(self, seed: int, *, total_bytes: int = 1 << 30) -> None:
        self.seed = seed
        self.choose = random.Random(seed)
        self.disk = SimulatedDisk(total_bytes)
        self.durabilities = self.choose.choice(
            [(Durability.DISK,), (Durability.MEMORY,), (Durability.DISK, Durability.MEMORY)]
        )
        count = self.choose.randrange(1, 7)
        self.histories = [
            History(bytes(chunk_id(1 + index % 2, index)), b"client %d" % index) for index in range(count)
        ]
        self.sequence = 0
        self.clock = 0.0
        self.refused_for_space = 0
        self.forgotten = 0
        self.power_lost = False
        """Since the store was last found in order."""

    # -- a life between two crashes ----------------------------------------------------------------------------

    async def open(self) -> EngineStore:
        return await open_store(
            DIRECTORY,
            target=101,
            disk=self.disk,
            open_index=lambda path: SimulatedIndex(self.disk),
            clock=lambda: self.clock,
            records_cached=self.choose.choice([1, 4, 1000]),
            checkpoint_interval_s=self.choose.choice([0.05, 1.0, 1000.0]),
            threaded=False,
        )

    async def live(self, updates: int) -> None:
        """Open, judge what is there, update until the disk dies or `updates` are done by each actor; close."""
        try:
            store = await self.open()
        except EmberError:
            assert self.disk.dead, f"seed {self.seed}: the store opens while the machine lives"
            return
        try:
            self.judge(store)
            async with asyncio.TaskGroup() as group:
                for history in self.histories:
                    group.create_task(self.act(store, history, random.Random(self.choose.random()), updates))
                group.create_task(self.disturb(store, random.Random(self.choose.random()), updates))
        finally:
            await store.close()

    async def act(self, store: EngineStore, history: History, choose: random.Random, updates: int) -> None:
        for _ in range(updates):
            try:
                await self.update(store, history, choose)
            except EmberError as error:
                assert error.code is Code.DISK_FAILED and self.disk.dead, (self.seed, error)
                return
            if choose.random() < 0.3:
                await asyncio.sleep(choose.choice([0.0, 0.001, 0.02]))

    async def disturb(self, store: EngineStore, choose: random.Random, updates: int) -> None:
        for _ in range(updates // 4):
            await asyncio.sleep(choose.choice([0.0, 0.001, 0.03]))
            before = [(history, history.done) for history in self.histories]
            how = choose.random()
            if how < 0.4:
                await store.settle()
                continue
            try:
                await (store.sync() if how < 0.7 else store.checkpoint())
            except EmberError as error:
                if error.code is Code.NO_SPACE:
                    continue
                assert error.code is Code.DISK_FAILED and self.disk.dead, (self.seed, error)
                return
            for history, count in before:
                history.durable = max(history.durable, count)
                history.stored = max(history.stored, count)

    async def update(self, store: EngineStore, history: History, choose: random.Random) -> None:
        view = history.now
        if view != View(None, None, view.answer) and choose.random() < 0.04:
            await self.forget(store, history)
        elif view.pending is not None and choose.random() < 0.1:
            await self.prepare(store, history, choose, replaces=True)
        elif view.pending is not None:
            if choose.random() < 0.15:
                event = Event(Step.ABANDON, view.pending, history.now.answer.sequence if history.now.answer else 0)
                history.events.append(event)
                await store.abandon(history.chunk, view.pending.version)
                history.durable = history.stored = history.done = len(history.events)
            else:
                history.events.append(Event(Step.COMMIT, view.pending, 0))
                await store.commit([(history.chunk, view.pending.version)])
                history.done = len(history.events)
            self.check(store, history, history.now)
        else:
            await self.prepare(store, history, choose)

    async def forget(self, store: EngineStore, history: History) -> None:
        history.events.append(Event(Step.FORGET, Content(0, b"", True), 0))
        try:
            await store.forget([history.chunk])
        except EmberError as error:
            if error.code is not Code.NO_SPACE:
                raise
            history.events.pop()
            self.refused_for_space += 1
            return
        self.forgotten += 1
        history.durable = history.stored = history.done = len(history.events)
        self.check(store, history, history.now)

    async def prepare(
        self, store: EngineStore, history: History, choose: random.Random, *, replaces: bool = False
    ) -> None:
        """`replaces`: the new version takes the place of the pending one."""
        view = history.now
        self.sequence += 1
        sequence = self.sequence
        durability = choose.choice(self.durabilities)
        one, content = self.invent(history, view.committed, choose, durability, sequence, replaces)
        history.events.append(Event(Step.PREPARE, content, sequence))
        (result,) = await store.prepare([one])
        if isinstance(result, EmberError):
            if result.code is Code.NO_SPACE:
                history.events.pop()
                self.refused_for_space += 1
                return
            raise result
        history.stored = history.done = len(history.events)
        if durability == Durability.DISK:
            history.durable = len(history.events)
        self.check(store, history, history.now)
        if one.kind != UpdateKind.REPLACE and choose.random() < 0.1:
            (again,) = await store.prepare([one])
            if isinstance(again, EmberError):
                raise again
            assert again == result, "sent again, it changes nothing"
            self.check(store, history, history.now)

    def invent(
        self,
        history: History,
        committed: Content | None,
        choose: random.Random,
        durability: int,
        sequence: int,
        replaces: bool,
    ) -> tuple[Update, Content]:
        data = b"" if committed is None or committed.removed else committed.data
        version = (committed.version if committed is not None else 0) + 1
        kind = choose.choices(
            [UpdateKind.WRITE, UpdateKind.TRUNCATE, UpdateKind.REMOVE, UpdateKind.REPLACE],
            [0, 0, 0, 1] if replaces else [12, 2, 1, 2],
        )[0]
        offset = 0
        payload = b""
        if kind == UpdateKind.WRITE:
            payload = choose.randbytes(choose.choice(LENGTHS))
            place = choose.randrange(4)
            if place == 1:
                offset = len(data)
            elif place == 2:
                offset = choose.randrange(len(data) + 1)
            elif place == 3:
                offset = choose.choice([0, 4096, 100_000])
            offset = min(offset, CHUNK_SIZE - len(payload))
            new = data.ljust(offset, b"\0")
            new = new[:offset] + payload + new[offset + len(payload) :]
        elif kind == UpdateKind.TRUNCATE:
            offset = choose.choice([0, choose.randrange(len(data) + 1), min(CHUNK_SIZE, len(data) + 5000)])
            new = data[:offset].ljust(offset, b"\0")
        elif kind == UpdateKind.REPLACE:
            payload = choose.randbytes(choose.choice((0, *LENGTHS)))
            version = choose.choice([version, version + 3])
            new = payload
        else:
            new = b""
        one = update(
            kind,
            version,
            chunk=history.chunk,
            offset=offset,
            payload=payload,
            chunk_size=CHUNK_SIZE,
            durability=durability,
            client=history.client,
            channel=1,
            sequence=sequence,
        )
        return one, Content(version, new, kind == UpdateKind.REMOVE)

    # -- judgement ---------------------------------------------------------------------------------------------

    def check(self, store: EngineStore, history: History, expected: View) -> None:
        found = self.observe(store, history)
        assert found == expected, (
            f"seed {self.seed}, chunk {history.chunk.hex()}: {_short(found)}, not {_short(expected)}"
        )

    def observe(self, store: EngineStore, history: History) -> View:
        """What the store says of a chunk; every byte is read, and verified by its checksums."""
        state: ChunkState | None = store.state(history.chunk)
        answer = store.answer(history.client, 1)
        if state is None:
            return View(None, None, answer)
        committed = pending = None
        if state.version:
            data = b"" if state.removed else self.bytes_of(store, history.chunk, pending=False)
            assert len(data) == state.length
            committed = Content(state.version, data, state.removed)
        if state.pending_version:
            made = store.pending_update(history.chunk)
            assert made is not None
            data = b"" if made.removed else self.bytes_of(store, history.chunk, pending=True)
            pending = Content(state.pending_version, data, made.removed)
        return View(committed, pending, answer)

    def bytes_of(self, store: EngineStore, chunk: bytes, *, pending: bool) -> bytes:
        reader = disk_reader(self.disk)
        return take(store, chunk, 0, CHUNK_SIZE, pending=pending, chunk_size=CHUNK_SIZE, read_range=reader)

    def judge(self, store: EngineStore) -> None:
        """After opening: every chunk is what a long enough prefix of its history made of it."""
        for history in self.histories:
            found = self.observe(store, history)
            least = history.durable if self.power_lost else history.stored
            views = [history.view(count) for count in range(least, len(history.events) + 1)]
            event = "a power loss" if self.power_lost else "a kill"
            assert found in views, (
                f"seed {self.seed}, chunk {history.chunk.hex()} after {event}: "
                f"{_short(found)}, not one of {[_short(view) for view in views]}"
            )
            history.start = found
            history.events.clear()
            history.durable = history.stored = history.done = 0
        self.power_lost = False
        audit(store)
        pending = {history.chunk for history in self.histories if history.start.pending is not None}
        assert set(store.pending()) == pending

    def crash(self) -> None:
        """End this life; the next one finds what is left."""
        if self.choose.random() < 0.3:
            self.disk = self.disk.after_process_death()
        else:
            self.power_lost = True
            self.disk = self.disk.after_power_loss(self.choose.randrange(1 << 30))


def _short(view: View) -> str:
    parts = [
        f"{name} {content.version}:{len(content.data)}{'x' if content.removed else ''}"
        for name, content in (("committed", view.committed), ("pending", view.pending))
        if content is not None
    ]
    return f"<{' '.join(parts)} {view.answer}>"


def run_seed(seed: int, *, lives: int = 6, updates: int = 12, total_bytes: int = 1 << 30) -> World:
    """Some lives of one store, each ended by a crash at a random step, then a last one that ends in peace."""
    world = World(seed, total_bytes=total_bytes)
    for life in range(lives):
        if life < lives - 1:
            world.disk.crash_at = world.disk.steps + world.choose.choice([5, 20, 60, 150]) + world.choose.randrange(60)
            world.disk.tear = random.Random(world.choose.random())
        run_virtual(world.live(updates))
        world.crash()
    run_virtual(world.live(0))
    return world
