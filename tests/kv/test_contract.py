"""What every key-value engine does alike."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fs_common.checks import InvariantViolation
from fs_common.errors import Code, EmberError
from fs_meta.kv.interface import KEY_BYTES_MAX, KeyValueStore, Transaction
from tests.kv.engines import Engine, each_durable_engine, each_engine
from tests.support import run

Scenario = Callable[[KeyValueStore], Awaitable[None]]


def on(engine: Engine, directory: Path, scenario: Scenario) -> None:
    async def opened() -> None:
        kv = engine.open(directory)
        try:
            await scenario(kv)
        finally:
            await kv.close()

    run(opened())


def putting(*pairs: tuple[bytes, bytes]) -> Callable[[Transaction], Awaitable[None]]:
    async def put(txn: Transaction) -> None:
        for key, value in pairs:
            txn.put(key, value)

    return put


async def everything(txn: Transaction) -> list[tuple[bytes, bytes]]:
    return await txn.range(b"", b"\xff" * (KEY_BYTES_MAX + 1))


@each_engine
def test_what_was_put_is_read_and_what_was_deleted_is_not(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        await kv.transact(putting((b"a", b"1"), (b"b", b""), (b"\x00\xff", b"\x00")))
        assert await kv.read(lambda txn: txn.get(b"a")) == b"1"
        assert await kv.read(lambda txn: txn.get(b"b")) == b""
        assert await kv.read(lambda txn: txn.get(b"c")) is None

        async def change(txn: Transaction) -> None:
            txn.put(b"a", b"2")
            txn.delete(b"b")
            txn.delete(b"never there")

        await kv.transact(change)
        assert await kv.read(everything) == [(b"\x00\xff", b"\x00"), (b"a", b"2")]

    on(engine, tmp_path, scenario)


@each_engine
def test_the_function_s_result_is_returned(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        async def fn(txn: Transaction) -> tuple[int, bytes | None]:
            txn.put(b"a", b"1")
            return 7, await txn.get(b"a")

        assert await kv.transact(fn) == (7, b"1")

    on(engine, tmp_path, scenario)


@each_engine
@pytest.mark.parametrize("snapshot", [False, True])
def test_a_transaction_reads_its_own_writes(engine: Engine, tmp_path: Path, snapshot: bool) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        await kv.transact(putting(*((b"k%d" % i, b"old") for i in range(5))))

        async def fn(txn: Transaction) -> None:
            get = txn.snapshot_get if snapshot else txn.get
            scan = txn.snapshot_range if snapshot else txn.range
            txn.put(b"k1", b"new")
            txn.put(b"k15", b"new")
            txn.delete(b"k2")
            assert await get(b"k1") == b"new"
            assert await get(b"k2") is None
            assert await get(b"k3") == b"old"
            expected = [(b"k0", b"old"), (b"k1", b"new"), (b"k15", b"new"), (b"k3", b"old"), (b"k4", b"old")]
            assert await scan(b"k0", b"k9") == expected
            assert await scan(b"k0", b"k9", reverse=True) == expected[::-1]
            assert await scan(b"k1", b"k4", limit=2) == expected[1:3]
            assert await scan(b"k1", b"k4", limit=2, reverse=True) == expected[3:1:-1]
            txn.put(b"k2", b"again")
            txn.delete(b"k15")
            assert await get(b"k2") == b"again"
            assert [key for key, _ in await scan(b"k", b"l")] == [b"k%d" % i for i in range(5)]

        await kv.transact(fn)

    on(engine, tmp_path, scenario)


@each_engine
def test_range_bounds_limits_and_order(engine: Engine, tmp_path: Path) -> None:
    keys = [b"\x00", b"a", b"a\x00", b"aa", b"b", b"\xfe\xff", b"\xff" * KEY_BYTES_MAX]

    async def scenario(kv: KeyValueStore) -> None:
        await kv.transact(putting(*((key, key[:9]) for key in reversed(keys))))

        async def fn(txn: Transaction) -> None:
            async def names(*args: Any, **kw: Any) -> list[bytes]:
                found = await txn.range(*args, **kw)
                assert all(value == key[:9] for key, value in found)
                return [key for key, _ in found]

            above = b"\xff" * (KEY_BYTES_MAX + 1)
            assert await names(b"", above) == keys
            assert await names(b"", above, reverse=True) == keys[::-1]
            assert await names(b"a", b"b") == [b"a", b"a\x00", b"aa"]
            assert await names(b"a", b"b", reverse=True) == [b"aa", b"a\x00", b"a"]
            assert await names(b"a", b"a\x00") == [b"a"]
            assert await names(b"a0", b"a0\x00") == []
            assert await names(b"a", b"a") == []
            assert await names(b"b", b"a") == []
            assert await names(b"c", b"d", reverse=True) == []
            assert await names(b"", b"\x00", reverse=True) == []
            assert await names(b"", above, 3) == keys[:3]
            assert await names(b"", above, 3, True) == keys[:-4:-1]
            assert await names(b"b", above, 0, True) == keys[:-4:-1]
            assert await names(b"", above, 100) == keys

        await kv.read(fn)
        await kv.transact(fn)

    on(engine, tmp_path, scenario)


@each_engine
def test_delete_range_takes_what_lies_in_it_and_what_this_transaction_put_there(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        await kv.transact(putting(*((b"%d" % i, b"") for i in range(10))))

        async def fn(txn: Transaction) -> None:
            txn.put(b"35", b"before")
            txn.delete(b"4")
            txn.delete_range(b"3", b"6")
            assert [key for key, _ in await txn.range(b"2", b"7")] == [b"2", b"6"]
            txn.put(b"5", b"after")
            txn.put(b"55", b"after")
            assert await txn.range(b"3", b"6") == [(b"5", b"after"), (b"55", b"after")]
            assert await txn.get(b"35") is None

        await kv.transact(fn)
        remaining = [key for key, _ in await kv.read(everything)]
        assert remaining == [b"0", b"1", b"2", b"5", b"55", b"6", b"7", b"8", b"9"]

        async def empty(txn: Transaction) -> None:
            txn.delete_range(b"a", b"b")
            txn.delete_range(b"9", b"0")

        await kv.transact(empty)
        assert len(await kv.read(everything)) == 9

    on(engine, tmp_path, scenario)


class _Refused(Exception):
    pass


@each_engine
def test_a_transaction_that_raises_leaves_no_trace_among_its_neighbours(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        await kv.transact(putting((b"shared", b"start"), (b"gone", b"start")))

        async def one(txn: Transaction, number: int) -> int:
            txn.put(b"own%02d" % number, b"")
            txn.put(b"shared", b"%d" % number)
            txn.delete_range(b"gone", b"gone\xff")
            if number % 3 != 0:
                raise _Refused(number)
            txn.put(b"gone", b"%d" % number)
            return number

        results = await asyncio.gather(
            *(kv.transact(lambda txn, number=number: one(txn, number)) for number in range(20)),  # type: ignore[misc]
            return_exceptions=True,
        )
        for number, result in enumerate(results):
            if number % 3 == 0:
                assert result == number
            else:
                assert isinstance(result, _Refused) and result.args == (number,)
        found = dict(await kv.read(everything))
        assert [key for key in sorted(found) if key.startswith(b"own")] == [b"own%02d" % i for i in range(0, 20, 3)]
        assert found[b"shared"] in {b"%d" % i for i in range(0, 20, 3)}
        assert found[b"gone"] == found[b"shared"]

    on(engine, tmp_path, scenario)


@each_engine
def test_concurrent_counters_lose_no_update(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        async def add(txn: Transaction, key: bytes) -> int:
            count = int(await txn.get(key) or b"0") + 1
            txn.put(key, b"%d" % count)
            total = int(await txn.get(b"total") or b"0") + 1
            txn.put(b"total", b"%d" % total)
            return count

        async def worker(number: int) -> list[int]:
            key = b"counter%d" % (number % 4)
            return [await kv.transact(lambda txn: add(txn, key)) for _ in range(25)]

        seen = await asyncio.gather(*(worker(number) for number in range(32)))
        for number in range(4):
            counts = sorted(count for counts in seen[number::4] for count in counts)
            assert counts == list(range(1, 201)), "each increment saw the one before it"
        assert await kv.read(lambda txn: txn.get(b"total")) == b"800"

    on(engine, tmp_path, scenario)


@each_engine
def test_transactions_are_serial_under_write_skew(engine: Engine, tmp_path: Path) -> None:
    """Two transactions that each read what the other writes: one of them must see the other's write."""

    async def scenario(kv: KeyValueStore) -> None:
        async def take(txn: Transaction, mine: bytes, other: bytes) -> bool:
            if await txn.range(other, other + b"\xff"):
                return False
            txn.put(mine, b"taken")
            return True

        for turn in range(20):
            one, two = b"one%d" % turn, b"two%d" % turn
            outcome = await asyncio.gather(
                kv.transact(lambda txn, one=one, two=two: take(txn, one, two)),  # type: ignore[misc]
                kv.transact(lambda txn, one=one, two=two: take(txn, two, one)),  # type: ignore[misc]
            )
            assert sorted(outcome) == [False, True]

    on(engine, tmp_path, scenario)


@each_engine
def test_a_read_sees_all_that_was_acknowledged_and_nothing_half_done(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        acknowledged = 0
        done = False

        async def write() -> None:
            nonlocal acknowledged, done
            for number in range(1, 200):
                await kv.transact(putting((b"left", b"%d" % number), (b"right", b"%d" % number)))
                acknowledged = number
            done = True

        async def both(txn: Transaction) -> tuple[bytes | None, bytes | None]:
            return await txn.get(b"left"), await txn.get(b"right")

        async def watch() -> None:
            while not done:
                least = acknowledged
                left, right = await kv.read(both)
                assert left == right
                assert int(left or b"0") >= least
                await asyncio.sleep(0)

        await asyncio.gather(write(), watch())

    on(engine, tmp_path, scenario)


@each_engine
def test_a_transaction_runs_after_those_acknowledged_before_it_started(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        for number in range(50):
            await kv.transact(putting((b"k", b"%d" % number)))
            assert await kv.transact(lambda txn: txn.get(b"k")) == b"%d" % number

    on(engine, tmp_path, scenario)


@each_engine
def test_a_read_may_not_write(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        async def delete(txn: Transaction) -> None:
            txn.delete(b"a")

        for fn in (putting((b"a", b"")), delete):
            with pytest.raises(InvariantViolation, match=r"use transact\(\)"):
                await kv.read(fn)
        assert await kv.read(everything) == []

    on(engine, tmp_path, scenario)


@each_engine
def test_a_function_that_suspends_is_a_violation_and_writes_nothing(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        async def suspends(txn: Transaction) -> None:
            txn.put(b"a", b"")
            await asyncio.sleep(0)

        def no_coroutine(txn: Transaction) -> Any:
            return 1

        for call in (kv.transact, kv.read):
            with pytest.raises(InvariantViolation):
                await call(no_coroutine)
        with pytest.raises(InvariantViolation, match="suspended"):
            await kv.transact(suspends)
        assert await kv.read(everything) == []

        async def suspends_in_read(txn: Transaction) -> None:
            await asyncio.sleep(0)

        with pytest.raises(InvariantViolation, match="suspended"):
            await kv.read(suspends_in_read)

    on(engine, tmp_path, scenario)


@each_engine
@pytest.mark.parametrize("key", [b"", b"k" * (KEY_BYTES_MAX + 1)], ids=["empty", "too long"])
def test_keys_out_of_bounds_are_refused(engine: Engine, tmp_path: Path, key: bytes) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        async def delete(txn: Transaction) -> None:
            txn.delete(key)

        for fn in (putting((key, b"")), delete, lambda txn: txn.get(key)):
            with pytest.raises(InvariantViolation, match="510"):
                await kv.transact(fn)
        await kv.transact(putting((b"k" * KEY_BYTES_MAX, b"fits")))
        assert await kv.read(lambda txn: txn.get(b"k" * KEY_BYTES_MAX)) == b"fits"

    on(engine, tmp_path, scenario)


@each_engine
def test_big_values_and_big_transactions(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        big = bytes(range(256)) * 16_384
        await kv.transact(putting((b"big", big), (b"other", big[::-1])))
        assert await kv.read(lambda txn: txn.get(b"big")) == big
        assert await kv.read(lambda txn: txn.get(b"other")) == big[::-1]
        many = [(b"many%06d" % number, b"v" * 100) for number in range(5000)]
        await kv.transact(putting(*many))
        assert await kv.read(lambda txn: txn.range(b"many", b"many\xff")) == many

        async def clear(txn: Transaction) -> None:
            txn.delete_range(b"", b"\xff")

        await kv.transact(clear)
        assert await kv.read(everything) == []

    on(engine, tmp_path, scenario)


@each_engine
def test_a_cancelled_caller_s_transaction_is_whole_or_absent(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        async def pair(number: int) -> None:
            await kv.transact(putting((b"left%03d" % number, b""), (b"right%03d" % number, b"")))

        applied = 0
        for number in range(100):
            tasks = [asyncio.create_task(pair(number * 2)), asyncio.create_task(pair(number * 2 + 1))]
            for _ in range(number % 5):
                await asyncio.sleep(0)
            tasks[0].cancel()
            outcome = await asyncio.gather(*tasks, return_exceptions=True)
            assert outcome[1] is None, "the neighbour of a cancelled one is not touched"
        found = {key for key, _ in await kv.read(everything)}
        for number in range(200):
            left, right = b"left%03d" % number in found, b"right%03d" % number in found
            assert left == right
            applied += left
            assert left or number % 2 == 0
        assert applied >= 100

    on(engine, tmp_path, scenario)


@each_engine
def test_relaxed_and_other_transactions_are_one_history(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        async def add(txn: Transaction) -> int:
            count = int(await txn.get(b"count") or b"0") + 1
            txn.put(b"count", b"%d" % count)
            return count

        counts = await asyncio.gather(*(kv.transact(add, relaxed=number % 3 != 0) for number in range(60)))
        assert counts == list(range(1, 61))
        for number in range(61, 80):
            assert await kv.transact(add, relaxed=number % 2 == 0) == number
            assert await kv.read(lambda txn: txn.get(b"count")) == b"%d" % number
            if number % 5 == 0:
                await kv.sync()

    on(engine, tmp_path, scenario)


@each_engine
def test_a_relaxed_transaction_that_raises_leaves_no_trace(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        async def refuse(txn: Transaction) -> None:
            txn.put(b"k", b"never")
            raise _Refused

        with pytest.raises(_Refused):
            await kv.transact(refuse, relaxed=True)
        await kv.sync()
        assert await kv.read(everything) == []

    on(engine, tmp_path, scenario)


@each_durable_engine
def test_relaxed_transactions_are_there_after_reopening(engine: Engine, tmp_path: Path) -> None:
    async def write(kv: KeyValueStore) -> None:
        for number in range(10):
            await kv.transact(putting((b"k%d" % number, b"")), relaxed=True)

    async def look(kv: KeyValueStore) -> None:
        assert len(await kv.read(everything)) == 10

    on(engine, tmp_path, write)
    on(engine, tmp_path, look)


@each_engine
def test_close_finishes_what_is_in_flight_and_refuses_the_rest(engine: Engine, tmp_path: Path) -> None:
    async def scenario(kv: KeyValueStore) -> None:
        running = [asyncio.create_task(kv.transact(putting((b"k%02d" % i, b"")))) for i in range(20)]
        await asyncio.sleep(0)
        await kv.close()
        await asyncio.gather(*running)
        for call in (kv.transact, kv.read):
            with pytest.raises(EmberError) as refused:
                await call(everything)
            assert refused.value.code is Code.CLOSING
        with pytest.raises(EmberError) as refused:
            await kv.sync()
        assert refused.value.code is Code.CLOSING
        await kv.close()
        if engine.durable:
            again = engine.open(tmp_path)
            assert len(await again.read(everything)) == 20
            await again.close()

    on(engine, tmp_path, scenario)


@each_durable_engine
def test_what_was_acknowledged_is_there_after_reopening(engine: Engine, tmp_path: Path) -> None:
    def write(round_number: int) -> None:
        async def scenario(kv: KeyValueStore) -> None:
            assert len(await kv.read(everything)) == round_number * 10
            for number in range(10):
                await kv.transact(putting((b"%d.%d" % (round_number, number), b"v" * 1000)))

        on(engine, tmp_path, scenario)

    for round_number in range(3):
        write(round_number)
