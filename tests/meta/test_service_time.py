"""The service's time: it alone decides what is forgotten and freed, whatever wall clocks do."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from fs_common import methods
from fs_common.errors import EmberError
from fs_common.layout import Layout
from fs_common.records import meta
from fs_meta import schema, server
from fs_meta.config import MetaConfig
from fs_meta.kv.interface import Transaction
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.service_time import ServiceTime, stored_ns
from tests.meta.test_service import cluster
from tests.meta.world import CHUNK, CLIENT, GC_DELAY_NS, KEEP_NS, ROOT, Clock, new_request, world
from tests.support import run

DAY_NS = 24 * 3600 * 10**9


async def _begun(kv: MemoryStore, clock_ns: int = 0) -> tuple[ServiceTime, Clock]:
    """Of a process that starts; the clock stands still between looks but for a millisecond."""
    clock = Clock(clock_ns)
    made = ServiceTime(kv, clock)
    await made.begin(KEEP_NS, GC_DELAY_NS)
    return made, clock


async def _put(kv: MemoryStore, *keys: bytes) -> None:
    async def put(txn: Transaction) -> None:
        for key in keys:
            txn.put(key, b"")

    await kv.transact(put)


def test_it_passes_while_a_service_runs_and_goes_on_over_restarts() -> None:
    async def body() -> None:
        kv = MemoryStore()
        first, clock = await _begun(kv, 5 * DAY_NS)
        begun_ns = first.now_ns()
        clock.now_ns += 7 * 10**9
        assert 7 * 10**9 <= first.now_ns() - begun_ns < 8 * 10**9
        await first.keep()
        kept_ns = await kv.read(stored_ns)
        clock.now_ns += 10**9  # lost: the process dies
        second, _ = await _begun(kv, 3)  # the machine was started anew, so its clock is
        assert kept_ns <= second.now_ns() < kept_ns + 10**9
        second, _ = await _begun(kv, 50 * DAY_NS)
        assert kept_ns <= second.now_ns() < kept_ns + 10**9

    run(body())


def test_servers_of_one_store_go_forward_to_each_other() -> None:
    async def body() -> None:
        kv = MemoryStore()
        first, clock = await _begun(kv)
        second, _ = await _begun(kv)
        clock.now_ns += 10**12
        await first.keep()
        await second.keep()
        assert second.now_ns() >= await kv.read(stored_ns) >= 10**12
        before_ns = await kv.read(stored_ns)
        third, _ = await _begun(MemoryStore())
        third._kv = kv
        await third.keep()
        assert await kv.read(stored_ns) >= before_ns, "never backwards"

    run(body())


@pytest.mark.parametrize(
    ("keys", "at_least", "at_most"),
    [
        ([schema.age_key(DAY_NS, b"r" * 16), schema.age_key(DAY_NS - KEEP_NS, b"s" * 16)], 0, DAY_NS - KEEP_NS),
        ([schema.age_key(DAY_NS, b"r" * 16), schema.garbage_key(DAY_NS, 5)], DAY_NS - KEEP_NS, DAY_NS - GC_DELAY_NS),
        ([schema.garbage_key(DAY_NS, 5), schema.garbage_key(5, 6)], DAY_NS - GC_DELAY_NS, DAY_NS - GC_DELAY_NS),
        ([], 0, 0),
    ],
    ids=["answers", "both", "garbage", "nothing"],
)
def test_a_store_of_before_forgets_nothing_early_and_frees_everything(
    keys: list[bytes], at_least: int, at_most: int
) -> None:
    """Its stamps are of a wall clock: what was just made has all of its time, and nothing waits for ever."""

    async def body() -> None:
        kv = MemoryStore()
        await _put(kv, *keys)
        begun, _ = await _begun(kv)
        assert at_least <= begun.now_ns() <= at_most + 10**9

    run(body())


def test_what_makes_a_file_due_is_stored_before_its_chunks_go() -> None:
    """A process that comes after a crash must not take it for kept."""

    async def body() -> None:
        async with world() as w:
            opened = await w.create_open(b"f")
            inode = opened.attributes.inode
            assert opened.attributes.layout is not None
            w.chunks.write(inode, opened.attributes.layout, CHUNK)
            await w.close(inode, opened.session, CHUNK)
            await w.unlink(b"f")
            w.monotonic.now_ns += GC_DELAY_NS
            remove = w.chunks.remove
            stored: list[int] = []

            async def remove_and_look(files: Sequence[tuple[int, Layout]]) -> list[EmberError | None]:
                stored.append(await w.kv.read(stored_ns))
                return await remove(files)

            w.chunks.remove = remove_and_look  # type: ignore[method-assign]
            [(key, _)] = await w.table(b"G")
            assert await w.collector.collect() == 1
            assert stored[0] >= schema.split_garbage_key(key)[0]

    run(body())


@pytest.mark.parametrize("days", [1, -1])
def test_a_step_of_the_wall_clock_at_a_restart_forgets_and_frees_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    async def body() -> None:
        made = meta.Mkdir(ROOT, b"d", 0o755, new_request())
        removed = meta.Unlink(ROOT, b"f", new_request())
        async with cluster(tmp_path) as c:
            first = await c.call(methods.MKDIR, made)
            opened = await c.call(
                methods.CREATE, meta.Create(ROOT, b"f", 0o644, new_request(), True, False, True, CLIENT)
            )
            inode, session = opened.attributes.inode, opened.session
            c.daemons[0].lengths[1, inode, 0] = CHUNK
            await c.call(methods.CLOSE, meta.Close(inode, session, new_request(), CHUNK))
            await c.call(methods.UNLINK, removed)
        real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real() + days * DAY_NS)
        async with cluster(tmp_path) as c:
            assert await c.running._collector.collect() == 0
        async with cluster(tmp_path) as c:  # the upkeep of the one before has ended
            assert await c.running._collector.collect() == 0
            assert await c.call(methods.MKDIR, made) == first
            await c.call(methods.MKDIR, meta.Mkdir(ROOT, b"f", 0o755, new_request()))
            await c.call(methods.UNLINK, removed)  # not EISDIR: it was answered
            later = (await c.call(methods.STAT, meta.Stat(ROOT, b"f"))).attributes
            assert (later.mtime_ns > first.attributes.mtime_ns) == (days > 0), "what people see is the wall clock"

    run(body())


@pytest.mark.parametrize("days", [1, -1])
def test_a_step_of_the_wall_clock_under_a_running_service_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """Set forward, what was just removed stays; set back, it is freed when its delay is over."""
    stepped_ns = 0
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + stepped_ns)

    async def body(gc_delay_ms: int) -> int:
        nonlocal stepped_ns
        async with cluster(tmp_path, gc_delay_ms) as c:
            c.running._stop.set()
            await asyncio.gather(*c.running._tasks)
            await c.call(methods.CREATE, meta.Create(ROOT, b"f", 0o644, new_request()))
            await c.call(methods.UNLINK, meta.Unlink(ROOT, b"f", new_request()))
            stepped_ns = days * DAY_NS
            freed = await c.running._collector.collect()
            while days < 0 and not freed:
                await asyncio.sleep(0)
                freed = await c.running._collector.collect()
        return freed

    assert run(body(1 if days < 0 else 3_600_000), 20) == (1 if days < 0 else 0)


def test_a_running_service_stores_it_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a crash loses of it is bounded."""
    monkeypatch.setattr(server, "UPKEEP_INTERVAL_S", 0.001)

    async def body() -> None:
        async with cluster(tmp_path) as c:
            begun_ns = await c.running._kv.read(stored_ns)
            while await c.running._kv.read(stored_ns) <= begun_ns:
                await asyncio.sleep(0.001)

    run(body(), 20)


def test_the_configured_times_are_those_of_the_service(tmp_path: Path) -> None:
    config = MetaConfig(cluster="test", directory=str(tmp_path), port=0)
    assert config.request_keep_ms * 10**6 == KEEP_NS and config.gc_delay_ms * 10**6 == GC_DELAY_NS
