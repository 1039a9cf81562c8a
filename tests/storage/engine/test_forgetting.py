"""What a store forgets, when, and what it has to remember of it: by its odometer, whatever clocks are set to."""

import time
from pathlib import Path

import pytest

from fs_common.ids import chunk_id
from fs_storage.engine.index import ANSWER_S, FORGOTTEN_MIN, TOMBSTONE_S, Expiry, LmdbIndex
from fs_storage.engine.index_format import StoredAnswer, answer_key, encode_record
from fs_storage.engine.interface import Answer
from fs_storage.engine.odometer import Odometer
from fs_storage.engine.versions import NOBODY, Record, Version
from tests.storage.engine.quick import QuickIndex, open_quick_store
from tests.storage.engine.updates import CHUNK, apply, remove, write
from tests.support import run

CLIENT = b"client"
OTHER = bytes(chunk_id(7, 1))


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def test_a_removal_is_forgotten_in_time_and_its_version_is_never_given_again(tmp_path: Path) -> None:
    async def body() -> None:
        clock = Clock()
        store = await open_quick_store(tmp_path / "target", clock=clock)
        await apply(store, write(1, b"x"), write(1, b"y", chunk=OTHER))
        await apply(store, remove(9))
        await store.checkpoint()
        clock.now += TOMBSTONE_S
        await store.checkpoint()
        assert store.state(CHUNK) is not None and store.floor == 0
        clock.now += 1
        await store.checkpoint()
        assert store.floor == 9
        await store.close()
        store = await open_quick_store(tmp_path / "target", clock=Clock())
        assert store.state(CHUNK) is None and store.floor == 9
        assert store.state(OTHER) is not None
        await apply(store, write(10, b"again"))
        await store.close()

    run(body())


def test_a_store_that_may_have_lost_something_forgets_nothing_before_it_is_whole(tmp_path: Path) -> None:
    async def body() -> None:
        clock = Clock()
        store = await open_quick_store(tmp_path / "target", clock=clock)
        await apply(store, write(1, b"x"))
        await apply(store, remove(9))
        await store.checkpoint()
        await store.renew(store.opening, store.incarnation)
        clock.now += TOMBSTONE_S + 1
        await store.checkpoint()
        assert store.state(CHUNK) is not None and store.floor == 0
        await store.close()
        clock.now += TOMBSTONE_S + 1
        store = await open_quick_store(tmp_path / "target", clock=clock)
        assert store.state(CHUNK) is not None and not store.whole
        await store.declare_whole()
        clock.now += 1
        await store.checkpoint()
        assert store.floor == 9
        await store.close()

    run(body())


@pytest.mark.parametrize("step_s", [-1e9, -3700.0, 3700.0, 1e9])
def test_the_machines_clock_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float) -> None:
    async def body() -> None:
        store = await open_quick_store(tmp_path / "target")
        await apply(store, write(1, b"x", client=CLIENT, channel=1, sequence=1), remove(1, chunk=OTHER))
        set_clock = time.time
        monkeypatch.setattr(time, "time", lambda: set_clock() + step_s)
        for _ in range(2):
            await store.checkpoint()
            await store.close()
            store = await open_quick_store(tmp_path / "target")
            assert store.state(OTHER) is not None
            assert store.answer(CLIENT, 1) == Answer(1, CHUNK, 1, 1, True)
        await store.close()

    run(body())


def test_time_that_a_store_is_closed_does_not_count(tmp_path: Path) -> None:
    async def body() -> None:
        clock = Clock()
        for life in range(4):
            store = await open_quick_store(tmp_path / "target", clock=clock)
            if life == 0:
                await apply(store, remove(3))
            clock.now += TOMBSTONE_S * 0.4
            await apply(store, write(life + 1, b"x", chunk=OTHER))
            await store.checkpoint()
            assert (store.floor == 3) == (life >= 2)
            await store.close()
            clock.now += 1e6

    run(body())


def test_a_removal_with_something_pending_is_forgotten_once_that_is_dropped(tmp_path: Path) -> None:
    async def body() -> None:
        clock = Clock()
        store = await open_quick_store(tmp_path / "target", clock=clock)
        await apply(store, remove(1))
        await store.checkpoint()
        await store.prepare([write(2, b"x")])
        for _ in range(2):
            clock.now += TOMBSTONE_S + 1
            await store.checkpoint()
            assert store.floor == 0
        await store.abandon(CHUNK, 2)
        await store.checkpoint()
        await store.checkpoint()
        assert store.floor == 1
        await store.close()

    run(body())


def test_a_silent_channels_answer_is_kept_for_a_day_of_running(tmp_path: Path) -> None:
    async def body() -> None:
        clock = Clock()
        store = await open_quick_store(tmp_path / "target", clock=clock)
        await apply(store, write(1, b"x", client=CLIENT, channel=1, sequence=7))
        await store.checkpoint()
        clock.now += ANSWER_S
        await store.checkpoint()
        assert store.answer(CLIENT, 1) is not None
        clock.now += 2
        await store.checkpoint()
        assert store.answer(CLIENT, 1) is None
        await store.close()

    run(body())


def tombstone(now: int) -> bytes:
    return encode_record(Record(Version(2, 1, 16, 0, 0, True, now, None, b"", b"", ()), None, NOBODY))


def test_forgetting_keeps_up_with_removing_and_with_new_channels(tmp_path: Path) -> None:
    """However many more are removed in an hour than a checkpoint looks at."""
    index = QuickIndex(tmp_path)
    step_s, removals = 100, 2 * FORGOTTEN_MIN
    number = 0
    for checkpoint in range(1, 26):
        now = checkpoint * step_s
        records: dict[bytes, bytes | None] = {}
        answers = {}
        for _ in range(removals):
            number += 1
            records[number.to_bytes(12, "big")] = tombstone(now)
            answers[answer_key(b"%d" % number, 1)] = StoredAnswer(bytes(12), 1, 1, 1, now)
        index.apply(records, answers, checkpoint, Expiry(now, now - TOMBSTONE_S, now - TOMBSTONE_S))
    kept = (TOMBSTONE_S // step_s + 1) * removals
    with index._environment.begin() as transaction:
        assert transaction.stat(index._records)["entries"] == kept
        assert transaction.stat(index._tombstones)["entries"] == kept
        assert transaction.stat(index._answers)["entries"] <= 2 * kept + 2 * FORGOTTEN_MIN
    assert index.floor == 2
    index.close()


def test_an_index_of_before_the_queue_goes_on_from_where_the_clock_was(tmp_path: Path) -> None:
    then = 1_800_000_000
    index = LmdbIndex(tmp_path, 1 << 30, durable=False)
    live = encode_record(Record(Version(7, 1, 16, 0, 0, False, 0, None, b"", b"", ()), None, NOBODY))
    index.apply({CHUNK: tombstone(then), OTHER: live}, {}, 5, Expiry(then, then - TOMBSTONE_S, 0))
    with index._environment.begin(write=True) as transaction:
        transaction.drop(index._tombstones, delete=False)
        transaction.delete(b"odometer", db=index._meta)
        transaction.delete(b"floor", db=index._meta)
    index.close()
    index = LmdbIndex(tmp_path, 1 << 30, durable=False)
    assert index.odometer() == then and index.floor == 7
    odometer = Odometer(index.odometer(), Clock())
    index.apply({}, {}, 6, Expiry(odometer.now(), then + 1, 0))
    assert index.get(CHUNK) is None and index.get(OTHER) == live
    index.close()
