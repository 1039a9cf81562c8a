"""Which store a target has: verdicts, and that they outlive the manager."""

import asyncio
from collections.abc import Awaitable, Callable

from fs_common.records.routing import StoreVerdict
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.manager.manager import NodeStream
from fs_meta.manager.membership import Beat
from fs_meta.manager.records import STORES, Store, decode, encode, store_key
from fs_meta.manager.stores import StoreReport, judge
from tests.manager.cluster import Bench, Config
from tests.support import run

OURS, OTHER = bytes(range(16)), bytes(16)
ONE = Config(storage_nodes=1, replicas=1)
FORMAT, SERVE, FOREIGN, ROLLED_BACK = (
    StoreVerdict.FORMAT,
    StoreVerdict.SERVE,
    StoreVerdict.FOREIGN,
    StoreVerdict.ROLLED_BACK,
)
NOTHING = StoreReport(b"", 0, 0)


def said(
    report: StoreReport, known: Store | None, process: int = 7, before: StoreReport | None = None
) -> tuple[StoreVerdict, Store | None]:
    judged = judge(101, report, process, known, before)
    assert (not judged.reason) == (judged.verdict in (FORMAT, SERVE)) and "\n" not in judged.reason
    return judged.verdict, judged.learned


def test_golden_bytes() -> None:
    assert encode(Store(101, OURS, 3, 2, 9, 7)) == b"\x01\x97\x65\xc4\x10" + OURS + b"\x03\x02\x09\x07\xc2"
    assert store_key(101) == b"\x02manager/store/\x00\x00\x00\x65"


def test_a_target_that_never_had_a_store_gets_one() -> None:
    placed = Store(101, b"", 0, 0, 0)
    assert said(NOTHING, placed) == (FORMAT, None)
    assert said(StoreReport(OURS, 1, 1), placed) == (SERVE, Store(101, OURS, 1, 1, 7))


def test_a_target_that_had_one_and_has_none_has_lost_it() -> None:
    assert said(NOTHING, Store(101, OURS, 3, 1, 7)) == (FOREIGN, None)


def test_another_store_is_foreign() -> None:
    assert said(StoreReport(OTHER, 9, 9), Store(101, OURS, 3, 1, 7)) == (FOREIGN, None)


def test_a_newer_opening_serves_and_is_kept() -> None:
    assert said(StoreReport(OURS, 4, 2), Store(101, OURS, 3, 1, 7), 8) == (SERVE, Store(101, OURS, 4, 2, 8))


def test_the_same_opening_serves_only_the_process_that_reported_it() -> None:
    known = Store(101, OURS, 3, 1, 7)
    assert said(StoreReport(OURS, 3, 1), known, 7) == (SERVE, None)
    assert said(StoreReport(OURS, 3, 1), known, 8) == (ROLLED_BACK, None)
    assert said(StoreReport(OURS, 2, 1), known, 7) == (ROLLED_BACK, None)


def test_a_copy_of_what_was_open_counts_on_from_there_and_is_found_all_the_same() -> None:
    known, before = Store(101, OURS, 3, 1, 7), StoreReport(OURS, 3, 1, position=50, recovered=20)

    def opened(opening: int, incarnation: int, recovered: int) -> StoreVerdict:
        return said(StoreReport(OURS, opening, incarnation, recovered + 1, recovered), known, 8, before)[0]

    assert opened(4, 1, 50) is SERVE and opened(4, 1, 60) is SERVE
    assert opened(4, 1, 49) is ROLLED_BACK
    assert opened(4, 2, 49) is SERVE, "it knows that it has lost something"
    assert said(StoreReport(OURS, 3, 1, 55, 20), known, 7, before)[0] is SERVE, "the same process"


def test_a_copy_of_what_was_open_is_found_by_what_was_kept_as_well() -> None:
    known = Store(101, OURS, 3, 1, 7, 90)
    assert said(StoreReport(OURS, 4, 1, 81, 80), known, 8) == (ROLLED_BACK, None)
    assert said(StoreReport(OURS, 4, 1, 91, 90), known, 8) == (SERVE, Store(101, OURS, 4, 1, 8, 91))
    assert said(StoreReport(OURS, 4, 2, 81, 80), known, 8) == (SERVE, Store(101, OURS, 4, 2, 8, 81))
    assert said(StoreReport(OURS, 3, 1, 85, 10), known, 7) == (SERVE, None), "the same life goes on"


def test_a_target_of_a_release_without_these_records_keeps_what_it_has_and_gets_nothing_new() -> None:
    assert said(StoreReport(OURS, 1, 1), None) == (SERVE, Store(101, OURS, 1, 1, 7))
    assert said(NOTHING, None) == (FOREIGN, None)


async def says(stream: NodeStream, target: int, report: StoreReport) -> list[StoreVerdict]:
    await stream.heartbeat(Beat(1000, 10, {}, 0, {target: report}))
    return [judged.verdict for judged in stream.verdicts]


def scenario(*lives: Callable[[Bench], Awaitable[None]], config: Config = ONE) -> MemoryStore:
    """Each on a manager of its own, over the same store."""
    kv = MemoryStore()
    for life in lives:
        run(Bench(kv, config).use(life))
    return kv


def test_what_serves_is_known_to_the_next_manager() -> None:
    async def first(bench: Bench) -> None:
        stream = await bench.join(1)
        assert await says(stream, 101, NOTHING) == [FORMAT]
        assert await says(stream, 101, StoreReport(OURS, 1, 1)) == [SERVE]
        found = await bench.kv.read(lambda txn: txn.range(*STORES))
        assert [decode(key, value, Store) for key, value in found] == [Store(101, OURS, 1, 1, 1001)]

    async def second(bench: Bench) -> None:
        stream = await bench.join(1, incarnation=5)
        assert await says(stream, 101, NOTHING) == [FOREIGN]
        assert await says(stream, 101, StoreReport(OTHER, 9, 1)) == [FOREIGN]
        assert await says(stream, 101, StoreReport(OURS, 1, 1)) == [ROLLED_BACK]
        known = stream.verdicts[0].known
        assert known is not None and (known.opening, known.incarnation) == (1, 1)
        assert await says(stream, 101, StoreReport(OURS, 2, 2)) == [SERVE]

    async def third(bench: Bench) -> None:
        stream = await bench.join(1, incarnation=5)
        assert await says(stream, 101, StoreReport(OURS, 2, 2)) == [SERVE]

    scenario(first, second, third)


def test_a_manager_remembers_how_far_a_store_had_come() -> None:
    async def life(bench: Bench) -> None:
        stream = await bench.join(1)
        assert await says(stream, 101, StoreReport(OURS, 1, 1, 10, 0)) == [SERVE]
        assert await says(stream, 101, StoreReport(OURS, 1, 1, 20, 0)) == [SERVE]
        assert await says(stream, 101, StoreReport(OURS, 2, 1, 16, 15)) == [ROLLED_BACK]
        # It has been renewed, and its chain has given it back what was gone.
        assert await says(stream, 101, StoreReport(OURS, 3, 2, 16, 15)) == [SERVE]
        assert await says(stream, 101, StoreReport(OURS, 4, 2, 30, 16)) == [SERVE]

    scenario(life)


def test_a_report_of_a_target_on_no_chain_or_of_another_node_is_not_judged() -> None:
    async def life(bench: Bench) -> None:
        one, two = await bench.join(1), await bench.join(2)
        assert await says(one, 999, StoreReport(OURS, 1, 1)) == []
        assert await says(two, 101, StoreReport(OURS, 1, 1)) == []
        assert await says(one, 101, NOTHING) == [FORMAT]

    scenario(life, config=Config(storage_nodes=2, replicas=1))


def test_a_store_that_was_judged_once_costs_no_transaction_at_each_heartbeat() -> None:
    async def life(bench: Bench) -> None:
        stream = await bench.join(1)
        await says(stream, 101, StoreReport(OURS, 1, 1))
        version = bench.manager.routing.version
        transact = bench.kv.transact

        async def none(*arguments: object, **rest: object) -> object:
            raise AssertionError("nothing is to be kept")

        bench.kv.transact = none  # type: ignore[method-assign, assignment]
        assert await says(stream, 101, StoreReport(OURS, 1, 1)) == [SERVE]
        bench.kv.transact = transact  # type: ignore[method-assign]
        assert bench.manager.routing.version == version

    scenario(life)


def test_verdicts_are_told_only_after_they_are_kept() -> None:
    async def life(bench: Bench) -> None:
        stream = await bench.join(1)
        transact = bench.kv.transact
        begun, released = asyncio.Event(), asyncio.Event()

        async def slow(*arguments: object, **rest: object) -> object:
            begun.set()
            await released.wait()
            return await transact(*arguments, **rest)  # type: ignore[arg-type]

        bench.kv.transact = slow  # type: ignore[method-assign, assignment]
        asked = asyncio.create_task(says(stream, 101, StoreReport(OURS, 1, 1)))
        await begun.wait()
        assert not asked.done() and not stream.verdicts
        released.set()
        assert await asked == [SERVE]
        bench.kv.transact = transact  # type: ignore[method-assign]

    scenario(life)


def test_how_far_a_store_had_come_is_known_to_the_next_manager() -> None:
    async def first(bench: Bench) -> None:
        stream = await bench.join(1)
        assert await says(stream, 101, StoreReport(OURS, 1, 1, 5, 0)) == [SERVE]
        assert await says(stream, 101, StoreReport(OURS, 1, 1, 50, 0)) == [SERVE]
        stream.close()
        bench.ports.refusing.add(9701)
        await bench.manager.look()

    async def second(bench: Bench) -> None:
        stream = await bench.join(1, incarnation=6)
        assert await says(stream, 101, StoreReport(OURS, 2, 1, 41, 40)) == [ROLLED_BACK]
        assert await says(stream, 101, StoreReport(OURS, 2, 1, 51, 50)) == [SERVE]

    scenario(first, second)
