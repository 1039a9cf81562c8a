"""The engine and the store in memory, side by side, whatever is done to them."""

import asyncio
import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.records.storage import UpdateKind
from fs_storage.engine.interface import Update
from fs_storage.engine.memory_store import MemoryStore
from tests.storage.engine.audit import audit
from tests.storage.engine.simulated import open_simulated, take_simulated
from tests.storage.engine.simulated_disk import SimulatedDisk
from tests.storage.engine.updates import take, update
from tests.storage.engine.virtual_loop import VirtualLoop

SIZE = 128 * 1024
CHUNKS = [bytes(chunk_id(1, 0)), bytes(chunk_id(1, 1)), bytes(chunk_id(2, 0))]
chunks = st.sampled_from(CHUNKS)
lengths = st.one_of(
    st.sampled_from([0, 1, 4095, 4096, 4097, 8192, 32_768, 65_536, SIZE]), st.integers(min_value=0, max_value=SIZE)
)
durabilities = st.integers(0, 1)


class Stores(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.now = 0.0
        self.disk = SimulatedDisk()
        self.model = MemoryStore()
        self.store = self.open()
        self.sequence = 0

    def open(self) -> Any:
        return self.runner.run(open_simulated(self.disk, clock=lambda: self.now, records_cached=1))

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()

    def both(self, name: str, *arguments: object) -> None:
        """Call a coroutine method of both; they do the same."""
        outcomes = []
        for store in (self.store, self.model):
            try:
                outcome = self.runner.run(getattr(store, name)(*arguments))
            except EmberError as error:
                outcome = error.code
            if isinstance(outcome, list):
                outcome = [one.code if isinstance(one, EmberError) else one for one in outcome]
            outcomes.append(outcome)
        assert outcomes[0] == outcomes[1]

    def next_version(self, chunk: bytes, offset: int) -> int:
        state = self.model.state(chunk)
        return (state.version if state is not None else 0) + 1 + offset

    def updated(self, kind: UpdateKind, chunk: bytes, skip: int, durability: int, **rest: Any) -> Update:
        self.sequence += 1
        return update(
            kind,
            max(1, self.next_version(chunk, skip)),
            chunk=chunk,
            chunk_size=SIZE,
            durability=durability,
            client=b"client",
            channel=chunk[11],
            sequence=self.sequence,
            **rest,
        )

    @rule(chunk=chunks, offset=lengths, length=lengths, durability=durabilities, seed=st.integers(0, 255))
    def write(self, chunk: bytes, offset: int, length: int, durability: int, seed: int) -> None:
        payload = random.Random(seed).randbytes(min(length, SIZE - offset))
        one = self.updated(UpdateKind.WRITE, chunk, 0, durability, offset=offset, payload=payload)
        self.both("prepare", [one])
        self.both("prepare", [one])

    @rule(chunk=chunks, length=lengths, durability=durabilities, seed=st.integers(0, 255))
    def append(self, chunk: bytes, length: int, durability: int, seed: int) -> None:
        state = self.model.state(chunk)
        offset = state.length if state is not None else 0
        payload = random.Random(seed).randbytes(min(length, SIZE - offset))
        self.both("prepare", [self.updated(UpdateKind.WRITE, chunk, 0, durability, offset=offset, payload=payload)])

    @rule(chunk=chunks, length=lengths, durability=durabilities)
    def truncate(self, chunk: bytes, length: int, durability: int) -> None:
        self.both("prepare", [self.updated(UpdateKind.TRUNCATE, chunk, 0, durability, offset=length)])

    @rule(chunk=chunks, skip=st.integers(-1, 3), durability=durabilities)
    def remove(self, chunk: bytes, skip: int, durability: int) -> None:
        self.both("prepare", [self.updated(UpdateKind.REMOVE, chunk, skip, durability)])

    @rule(chunk=chunks, skip=st.integers(-2, 3), length=lengths, durability=durabilities, seed=st.integers(0, 255))
    def replace(self, chunk: bytes, skip: int, length: int, durability: int, seed: int) -> None:
        payload = random.Random(seed).randbytes(length)
        self.both("prepare", [self.updated(UpdateKind.REPLACE, chunk, skip, durability, payload=payload)])

    @precondition(lambda self: self.model.pending())
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        chunk = data.draw(st.sampled_from(self.model.pending()))
        state = self.model.state(chunk)
        assert state is not None
        self.both("commit", [(chunk, state.pending_version)])

    @precondition(lambda self: self.model.pending())
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        chunk = data.draw(st.sampled_from(self.model.pending()))
        state = self.model.state(chunk)
        assert state is not None
        self.both("abandon", chunk, state.pending_version)

    @rule(some=st.lists(chunks))
    def forget(self, some: list[bytes]) -> None:
        self.both("forget", some)

    @rule()
    def settle(self) -> None:
        self.runner.run(self.store.settle())

    @rule()
    def checkpoint(self) -> None:
        self.runner.run(self.store.checkpoint())

    @rule()
    def time_passes(self) -> None:
        self.now += 400

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        """Cleanly; or killed just after every commit was in the log."""
        if not clean:
            self.runner.run(self.store.settle())
            self.disk.crash_at = self.disk.steps
        self.runner.run(self.store.close())
        self.disk = self.disk.after_process_death()
        self.store = self.open()

    @rule(chunk=chunks, offset=lengths, length=lengths)
    def read(self, chunk: bytes, offset: int, length: int) -> None:
        for pending in (False, True):
            outcomes: list[object] = []
            for store in (self.store, self.model):
                try:
                    outcomes.append(self.bytes_of(store, chunk, offset, max(1, length), pending))
                except EmberError as error:
                    assert error.code is Code.CHUNK_NOT_FOUND
                    outcomes.append(error.code)
            assert outcomes[0] == outcomes[1]

    def bytes_of(self, store: Any, chunk: bytes, offset: int, length: int, pending: bool) -> bytes:
        if store is self.model:
            return take(store, chunk, offset, length, pending=pending, chunk_size=SIZE)
        return take_simulated(store, self.disk, chunk, offset, length, pending=pending, chunk_size=SIZE)

    @invariant()
    def they_agree(self) -> None:
        for chunk in CHUNKS:
            removed = self.model.state(chunk)
            if removed is not None and removed.removed and not removed.pending_version and not self.store.state(chunk):
                self.model.forget_removal(chunk)
                assert self.store.floor >= self.model.floor
            assert self.store.state(chunk) == self.model.state(chunk)
            assert self.store.pending_update(chunk) == self.model.pending_update(chunk)
            assert self.store.answer(b"client", chunk[11]) == self.model.answer(b"client", chunk[11])
        for inode in (1, 2):
            assert self.store.last_chunk(inode) == self.model.last_chunk(inode)
            assert self.store.chunks_of(inode, 0, 9) == self.model.chunks_of(inode, 0, 9)
        assert sorted(self.store.pending()) == sorted(self.model.pending())
        assert self.store.space().chunks == self.model.space().chunks
        audit(self.store)


Stores.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestStores = Stores.TestCase
