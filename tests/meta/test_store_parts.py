"""Inode ids, chain allocation, formatting, and the configuration of the process."""

import asyncio
import random
from typing import Any

import msgspec
import pytest

from fs_common.errors import Code, EmberError
from fs_common.layout import Durability, Layout
from fs_common.making import Making
from fs_common.records.routing import Routing
from fs_meta import fsck
from fs_meta.chain_allocator import ChainAllocator
from fs_meta.config import MetaConfig
from fs_meta.format import prepare_store
from fs_meta.inode_ids import BLOCK, InodeIds
from fs_meta.kv.memory_engine import MemoryStore
from tests.meta.world import dump, make_routing
from tests.support import run


class CountingStore(MemoryStore):
    """Counts transactions, and fails them on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions = 0
        self.failing = False

    async def transact(self, fn: Any, *, relaxed: bool = False) -> Any:
        self.transactions += 1
        if self.failing:
            raise EmberError(Code.KV_FULL)
        return await super().transact(fn, relaxed=relaxed)


def test_ids_are_unique_over_processes_and_come_in_blocks() -> None:
    async def body() -> None:
        kv = CountingStore()
        one, other = InodeIds(kv), InodeIds(kv)
        taken: list[int] = []
        for _ in range(BLOCK):
            taken += [await one.take(), await other.take()]
        taken += await one.take_many(10)
        await one.close()
        await other.close()
        restarted = InodeIds(kv)
        taken.append(await restarted.take())
        await restarted.close()
        assert len(set(taken)) == len(taken) and min(taken) == 2
        assert kv.transactions <= 6
        await kv.close()

    run(body())


def test_a_refill_comes_before_it_is_needed() -> None:
    async def body() -> None:
        kv = CountingStore()
        ids = InodeIds(kv)
        for _ in range(BLOCK // 2 + 2):
            await ids.take()
        await ids.close()
        assert kv.transactions == 2
        kv.failing = True
        for _ in range(BLOCK):
            await ids.take()
        await ids.close()
        await kv.close()

    run(body())


def test_running_dry_tells_everyone_who_waits_and_recovers() -> None:
    async def body() -> None:
        kv = CountingStore()
        ids = InodeIds(kv)
        kv.failing = True
        outcomes = await asyncio.gather(*[ids.take() for _ in range(3)], return_exceptions=True)
        assert all(isinstance(outcome, EmberError) for outcome in outcomes)
        kv.failing = False
        waiting = [asyncio.create_task(ids.take()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        assert sorted(await asyncio.gather(*waiting[1:])) == [2, 3]
        await ids.close()
        await kv.close()

    run(body())


def _allocator(routing: Routing | None, seed: int = 1) -> ChainAllocator:
    return ChainAllocator(lambda: routing, random.Random(seed))


def test_files_go_round_the_table() -> None:
    allocator = _allocator(make_routing(chains=6))
    firsts = [allocator.place(Layout(stripe=2)).first for _ in range(6)]
    assert [(first - firsts[0]) % 6 for first in firsts] == [0, 2, 4, 0, 2, 4]
    singles = [allocator.place(Layout(stripe=1)).first for _ in range(7)]
    assert sorted(singles[:6]) == list(range(6)) and singles[6] == singles[0]


def test_servers_start_at_random_places_and_seeds_differ() -> None:
    routing = make_routing(chains=50)
    assert len({_allocator(routing, seed).place(Layout(stripe=1)).first for seed in range(20)}) > 5
    allocator = _allocator(routing)
    assert len({allocator.place(Layout(stripe=4)).seed for _ in range(20)}) == 20


def test_a_place_is_of_the_newest_version_of_its_table() -> None:
    current = make_routing(chains=3, tables={1: 1, 2: 5})
    newer = msgspec.structs.replace(current, tables=[*current.tables, current.tables[0].__class__(1, 4, [1, 2])])
    routing = current
    allocator = ChainAllocator(lambda: routing, random.Random(1))
    assert allocator.place(Layout(stripe=9)).table_version == 1
    assert allocator.place(Layout(stripe=9, table=2)).table_version == 5
    routing = newer
    placed = allocator.place(Layout(stripe=9, durability=Durability.MEMORY))
    assert (placed.table_version, placed.stripe, placed.durability) == (4, 2, Durability.MEMORY)


def test_a_store_is_formatted_once_and_belongs_to_one_cluster() -> None:
    async def body() -> None:
        kv = MemoryStore()
        made = await prepare_store(kv, "mine", Layout(), 5, 6, 1, Making.YES)
        assert made.made and len(made.uuid) == 16
        before = await dump(kv)
        assert not fsck.check(before)
        for making in (Making.NO, Making.IF_MISSING):
            assert await prepare_store(kv, "mine", Layout(), 0, 0, 2, making) == (False, made.uuid)
        with pytest.raises(EmberError, match="formatted already: start without --format"):
            await prepare_store(kv, "mine", Layout(), 0, 0, 2, Making.YES)
        assert await dump(kv) == before
        with pytest.raises(EmberError, match="of cluster 'mine', the configuration says 'other'") as caught:
            await prepare_store(kv, "other", Layout(), 0, 0, 2)
        assert caught.value.code is Code.WRONG_CLUSTER
        await kv.close()

    run(body())


def test_an_empty_store_is_formatted_only_when_asked_for() -> None:
    async def body() -> None:
        kv = MemoryStore()
        with pytest.raises(EmberError, match="is empty: mount its disk or restore it; a new cluster is made once"):
            await prepare_store(kv, "mine", Layout(), 0, 0, 1, Making.NO)
        assert not await dump(kv)
        await kv.close()

    run(body())


def test_a_store_of_a_release_without_a_uuid_gets_one_once() -> None:
    from fs_meta import schema

    async def body() -> None:
        kv = MemoryStore()
        await prepare_store(kv, "mine", Layout(), 0, 0, 1)

        async def change(txn: Any) -> None:
            before = schema.encode(schema.Format("mine", schema.SCHEMA_VERSION, 1))
            txn.put(schema.FORMAT_KEY, b"\x01\x93" + before[2:-2])  # an array of three fields

        await kv.transact(change)
        first = await prepare_store(kv, "mine", Layout(), 0, 0, 2, Making.NO)
        assert len(first.uuid) == 16
        assert await prepare_store(kv, "mine", Layout(), 0, 0, 3, Making.NO) == first
        other = await prepare_store(MemoryStore(), "mine", Layout(), 0, 0, 3)
        assert other.uuid != first.uuid
        await kv.close()

    run(body())


def test_a_store_of_another_schema_is_refused() -> None:
    from fs_meta import schema

    async def body() -> None:
        kv = MemoryStore()
        await prepare_store(kv, "mine", Layout(), 0, 0, 1)

        async def change(txn: Any) -> None:
            txn.put(schema.FORMAT_KEY, schema.encode(schema.Format("mine", 99, 1)))

        await kv.transact(change)
        with pytest.raises(EmberError, match="schema 99") as caught:
            await prepare_store(kv, "mine", Layout(), 0, 0, 2)
        assert caught.value.code is Code.VERSION_MISMATCH
        await kv.close()

    run(body())


GOOD = {"cluster": "c", "directory": "d"}


def test_a_configuration_with_defaults() -> None:
    config = msgspec.convert({**GOOD, "durability": "memory", "stripe": 4}, MetaConfig)
    assert config.store_url == "lmdb://d/kv"
    assert config.root_layout == Layout(1 << 20, 4, durability=Durability.MEMORY)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"cluster": ""}, "cluster"),
        ({"directory": ""}, "directory"),
        ({"port": 70_000}, "port"),
        ({"grpc_port": 9700}, "grpc_port"),
        ({"replicas": 0}, "replicas"),
        ({"replicas": 4}, "storage_nodes"),
        ({"chunk_size_bytes": 100_000}, "chunk_size_bytes"),
        ({"stripe": 0}, "stripe"),
        ({"durability": "none"}, "durability"),
        ({"lease_ms": 1_500}, "lease_ms"),
        ({"failure_ms": 8_000}, "failure_ms"),
        ({"request_keep_ms": 1_000}, "request_keep_ms"),
        ({"gc_delay_ms": -1}, "gc_delay_ms"),
        ({"gc_interval_ms": 0}, "gc_interval_ms"),
        ({"log_level": "loud"}, "log_level"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_by_name(values: dict[str, Any], text: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=text):
        msgspec.convert({**GOOD, **values}, MetaConfig)
