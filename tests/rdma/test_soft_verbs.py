"""Verbs in memory beyond what every binding does: what a seed can bring about, and what a test can ask for."""

import asyncio
import errno

import pytest

from fs_common.transports.rdma.verbs import AsyncEvent, Capacity, Kind, Receive, Status, VerbsError
from tests.rdma.adaptors import ALL, HASTY, Memory, ends
from tests.rdma.soft_verbs import Fabric

KIB = 1 << 10


def test_a_write_that_ends_in_the_middle_has_changed_a_part() -> None:
    seen = set()
    for seed in range(20):
        fabric = Fabric(seed=seed)
        fabric.held = True
        with ends(fabric.binding(), size=256 * KIB) as (one, other):
            one.memory[0 : 256 * KIB] = b"x" * 256 * KIB
            one.pair.post([one.work(Kind.WRITE, other, 256 * KIB)])
            for _ in range(5):
                fabric.turn()
            one.pair.fail()
            changed = other.memory[0 : 256 * KIB].count(b"x")
            seen.add(changed)
            assert one.wait()[0].status is Status.WR_FLUSH_ERR
            fabric.let_go()
            fabric.settle()
            assert other.memory[0 : 256 * KIB].count(b"x") == changed, "nothing is written after"
    assert any(0 < changed < 256 * KIB for changed in seen)


def test_the_bytes_of_a_read_may_land_after_a_later_message() -> None:
    orders = set()
    for seed in range(40):
        fabric = Fabric(seed=seed)
        fabric.held = True
        with ends(fabric.binding(), size=64 * KIB) as (one, other):
            other.memory[0:8] = b"the read"
            other.pair.receive([Receive(1, other.memory.address + KIB, KIB, other.region.lkey)])
            one.pair.post([one.work(Kind.READ, other, 8, id=1), one.work(Kind.SEND, length=8, offset=KIB, id=2)])
            while not other.completions.poll(1):
                assert fabric.turn()
            orders.add(one.memory[0:8] == b"the read")
            fabric.settle()
            assert [done.id for done in one.wait(2)] == [1, 2], "completions keep the order"
    assert orders == {True, False}


def test_the_same_seed_is_the_same_order() -> None:
    def story(seed: int) -> list[tuple[int, int]]:
        fabric = Fabric(seed=seed, late_turns=10)
        with ends(fabric.binding()) as (one, other):
            for n in range(8):
                one.pair.post([one.work(Kind.WRITE, other, 8, id=n)])
                other.pair.post([other.work(Kind.WRITE, one, 8, id=100 + n)])
            told = []
            while len(told) < 16:
                fabric.turn()
                told += [(fabric.turns, done.id) for end in (one, other) for done in end.completions.poll(4)]
            return told

    assert story(5) == story(5)
    assert story(5) != story(6)


def test_a_completion_queue_that_overflows_fails_all_that_report_into_it() -> None:
    fabric = Fabric()
    with ends(fabric.binding(), depth=4) as (one, other):
        one.pair.post([one.work(Kind.WRITE, other, 8, id=n) for n in range(5)])
        fabric.settle()
        assert one.context.take_async_events() == [AsyncEvent.COMPLETION_QUEUE_FAILED]
        assert len(one.completions.poll(16)) == 4
        one.pair.post([one.work(Kind.WRITE, other, 8)])
        fabric.settle()
        assert one.completions.poll(16) == []


def test_a_link_that_comes_back_in_time_is_not_noticed() -> None:
    fabric = Fabric({"soft0": "10.77.0.1", "soft1": "10.77.1.1"})
    fabric.held = True
    with ends(fabric.binding()) as (one, other):
        fabric.port_down("soft1")
        one.pair.post([one.work(Kind.WRITE, other, 8)])
        fabric.port_down("soft0")
        for _ in range(20):
            fabric.turn()
        assert one.completions.poll(1) == []
        fabric.port_up("soft0")
        fabric.settle()
        assert one.wait()[0].ok


def test_calls_that_shall_fail_do() -> None:
    fabric = Fabric(locked_bytes_max=10 * KIB)
    fabric.refuse("queue_pair", errno.ENOMEM, after=1)
    context = fabric.binding().open("soft0")
    queue = context.completion_queue(4)
    context.queue_pair(queue, Capacity(1, 1))
    with pytest.raises(VerbsError) as refused:
        context.queue_pair(queue, Capacity(1, 1))
    assert refused.value.number == errno.ENOMEM
    context.queue_pair(queue, Capacity(1, 1))
    memory = Memory(8 * KIB)
    region = context.register(memory.address, 8 * KIB, ALL)
    with pytest.raises(VerbsError, match="may be locked"):
        context.register(memory.address, 4 * KIB, ALL)
    region.close()
    context.register(memory.address, 4 * KIB, ALL)
    context.close()
    assert fabric.counts() == (0, 0, 0) and fabric.locked_bytes == 0


def test_memory_that_goes_before_its_region_is_found_out() -> None:
    fabric = Fabric()
    context = fabric.binding().open("soft0")
    memory = Memory(256 * KIB)
    context.register(memory.address, 256 * KIB, ALL)
    memory.close()
    context.close()
    assert len(fabric.faults) == 1 and "went before their region" in fabric.faults[0]


def test_in_a_loop_time_goes_by_itself() -> None:
    async def story(seed: int | None) -> None:
        fabric = Fabric(seed=seed, late_turns=30)
        with ends(fabric.binding(), persistence=HASTY) as (one, other):
            come = asyncio.Event()
            asyncio.get_running_loop().add_reader(one.completions.fileno(), come.set)
            one.completions.arm()
            other.pair.close()
            one.pair.post([one.work(Kind.WRITE, other, 8)])
            await come.wait()
            asyncio.get_running_loop().remove_reader(one.completions.fileno())
            assert one.completions.poll(4)[0].status is Status.RETRY_EXC_ERR

    for seed in (None, 1, 2):
        asyncio.run(story(seed))


def test_what_moved_is_counted() -> None:
    fabric = Fabric()
    with ends(fabric.binding()) as (one, other):
        one.pair.post([one.work(Kind.WRITE, other, 100, signalled=False), one.work(Kind.READ, other, 50)])
        one.wait()
    assert fabric.moved_bytes == {Kind.WRITE: 100, Kind.READ: 50}
    assert (fabric.posts, fabric.signalled, fabric.posted) == (1, 1, {Kind.WRITE: 1, Kind.READ: 1})
