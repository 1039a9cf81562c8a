"""The scrub: everything is read, damage is repaired, replicas are compared, restarts do not send it back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from fs_common.errors import Code
from fs_common.ids import chunk_id
from fs_common.methods import SCRUB
from fs_common.records.scrubbing import Scrub, ScrubReply, ScrubStatus
from fs_storage import scrub
from fs_storage.engine.interface import ChunkStore, Update
from tests.storage.chain import CHUNK, TIMEOUT_S, ChainOfDaemons, chain_of, eventually
from tests.storage.engine.quick import open_quick_store
from tests.storage.engine.updates import replace
from tests.storage.refusals import refused
from tests.support import run

PAGE = 4096
CHUNKS = 150
"""More than a page of the scrub."""


@asynccontextmanager
async def engines(directory: Path, replicas: int = 3, **settings: object) -> AsyncIterator[ChainOfDaemons]:
    async def make_store(target: int) -> ChunkStore:
        return await open_quick_store(directory / f"target-{target}", capacity_bytes=1 << 30)

    async with chain_of(directory, nodes=replicas, replicas=replicas, make_store=make_store, **settings) as chain:
        yield chain


async def fill(chain: ChainOfDaemons, count: int = CHUNKS) -> dict[int, bytes]:
    contents = {index: bytes([index % 251 + 1]) * (index * 37 % 9000 + 1) for index in range(count)}
    items = [chain.item(data, index=index) for index, data in contents.items()]
    for start in range(0, count, 50):
        datas = [contents[item.index] for item in items[start : start + 50]]
        reply = await chain.send(items[start : start + 50], datas)
        assert not reply.errors
    for daemon in chain.daemons.values():
        for target in daemon.targets.all():
            await target.store.checkpoint()  # what is small is in the log until then
    return contents


def flip_all(chain: ChainOfDaemons, place: int) -> None:
    """A bit in the first byte of every block that is in use at that replica."""
    for file in (chain.directory / f"target-{chain.target(1, place).id}" / "blocks").iterdir():
        size = int(file.name.partition("k")[0]) * 1024
        data = bytearray(file.read_bytes())
        for start in range(0, len(data), size):
            if data[start]:
                data[start] ^= 0x80
        with open(file, "r+b") as handle:
            handle.write(data)


def bad(chain: ChainOfDaemons, place: int) -> int:
    store = chain.target(1, place).store
    checks = [store.check_stored(held.chunk) for held in store.held(b"", 10_000)]
    return sum(1 for found in checks if found is not None and found.bad_pages)


async def ask(chain: ChainOfDaemons, node: int, **what: object) -> list[ScrubStatus]:
    reply: ScrubReply = await chain.pool.call(chain.address(node), SCRUB, Scrub(**what), timeout=TIMEOUT_S)  # type: ignore[arg-type]
    return reply.targets


async def status_of(chain: ChainOfDaemons, place: int) -> ScrubStatus:
    target = chain.target(1, place).id
    (found,) = [one for one in await ask(chain, chain.node(1, place)) if one.target == target]
    return found


async def ended(chain: ChainOfDaemons, place: int) -> ScrubStatus:
    """A pass over chain 1 at that replica, from now on."""
    before = (await status_of(chain, place)).number
    await ask(chain, chain.node(1, place), start=True, chains=[1], bytes_per_s=1 << 40)
    progress = chain.daemons[chain.node(1, place)]._scrub._progress[chain.target(1, place).id]
    await eventually(lambda: progress.number > before and not progress.running)
    return await status_of(chain, place)


@pytest.mark.parametrize("place", [0, 2])
def test_a_pass_finds_all_that_is_damaged_and_has_it_repaired(tmp_path: Path, place: int) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            contents = await fill(chain)
            flip_all(chain, place)
            assert bad(chain, place) == CHUNKS
            found = await ended(chain, place)
            assert (found.number, found.running, found.chunks, found.repaired) == (1, False, CHUNKS, CHUNKS)
            assert found.bytes == sum(map(len, contents.values())) and found.chunks_total == CHUNKS
            assert not found.damaged and not found.differing and not found.not_compared
            assert bad(chain, place) == 0
            for index, data in contents.items():
                assert await chain.read(place=place, index=index, length=len(data)) == data
            assert (await ended(chain, place)).repaired == 0

    run(scenario())


def test_what_cannot_be_repaired_is_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path, replicas=1) as chain:
            await fill(chain, 3)
            flip_all(chain, 0)
            found = await ended(chain, 0)
            assert found.repaired == 0 and len(found.damaged) == 3
            assert all("does not match its checksum" in line for line in found.damaged)
            assert all("no other replica serves" in line for line in found.damaged)

    run(scenario())


def test_it_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await fill(chain)
            target = chain.target(1, 0)
            looked: list[bytes] = []
            check = target.store.check_stored

            def counting(chunk: bytes):  # type: ignore[no-untyped-def]
                looked.append(chunk)
                return check(chunk)

            target.store.check_stored = counting
            await ask(chain, 1, start=True, chains=[1], bytes_per_s=1 << 40)
            await eventually(lambda: len(looked) > scrub.PAGE)
            await chain.crash(1)
            at = msgspec.json.decode(Path(tmp_path / f"target-{target.id}" / "note").read_bytes())
            assert at["running"] and bytes.fromhex(at["after"]) >= bytes(chunk_id(7, scrub.PAGE - 2))
            await chain.restart(1)
            await eventually(lambda: 1 in chain.daemons[1].targets.by_chain)
            target = chain.target(1, 0)
            await eventually(lambda: target.id in chain.daemons[1]._scrub._progress)
            progress = chain.daemons[1]._scrub._progress[target.id]
            await eventually(lambda: not progress.running)
            assert progress.number == 1 and progress.chunks == CHUNKS

    run(scenario())


def test_a_note_that_cannot_be_read_sends_it_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await fill(chain, 3)
            for note in (b"{", b'{"after": "xyz"}', b"\xff"):
                await chain.crash(1)
                (tmp_path / "target-101" / "note").write_bytes(note)
                await chain.restart(1)
                await chain.serving()
                assert (await ended(chain, 0)).number == 1

    run(scenario())


def test_passes_come_again_by_themselves_in_their_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path, scrub_interval_h=10) as chain:
            await fill(chain, 3)
            daemon = chain.daemons[1]
            target = chain.target(1, 0)
            now = 1e9
            daemon._scrub._now = lambda: now
            daemon._scrub._progress[target.id] = scrub.Progress()
            assert not await daemon._scrub._is_due(target), "what is new is not looked at at once"
            now += 9.9 * 3600
            assert not await daemon._scrub._is_due(target)
            now += 0.2 * 3600
            assert await daemon._scrub._is_due(target)
            daemon._scrub._kicked.set()
            progress = daemon._scrub._progress[target.id]
            await eventually(lambda: progress.number == 1 and not progress.running)
            assert not await daemon._scrub._is_due(target)
            now -= 1e8
            assert await daemon._scrub._is_due(target), "a clock that was set back does not stop it for years"

    run(scenario())


async def plant(store: ChunkStore, one: Update) -> None:
    """As a disk that has lost something does: nobody hears of it."""
    await store.prepare([one])
    await store.commit([(one.chunk, one.version)])


@pytest.mark.parametrize("place", [1, 2])
def test_replicas_that_differ_at_rest_are_reported(tmp_path: Path, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "LOOK_AGAIN_S", 0.01)

    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            contents = await fill(chain)
            store = chain.target(1, place).store
            await plant(store, replace(1, b"something else", chunk=bytes(chunk_id(7, 70)), chunk_size=CHUNK))
            await plant(store, replace(4, b"not there elsewhere", chunk=bytes(chunk_id(7, 999)), chunk_size=CHUNK))
            await store.forget([bytes(chunk_id(7, 3))])
            found = await ended(chain, 0)
            assert len(found.differing) == 3
            assert sorted(line[:30] for line in found.differing) == sorted(
                f"chunk {bytes(chunk_id(7, index)).hex()}" for index in (3, 70, 999)
            )
            assert all(f"target {chain.target(1, place).id} has " in line for line in found.differing)
            assert not (await ended(chain, 1)).differing, "the head alone compares"
            assert chain.daemons[1]._stats()["chunks_differing"] == 3
            # It is gone when it is gone.
            for index in (3, 70):
                await plant(store, replace(1, contents[index], chunk=bytes(chunk_id(7, index)), chunk_size=CHUNK))
            found = await ended(chain, 0)
            assert [line[6:30] for line in found.differing] == [bytes(chunk_id(7, 999)).hex()]

    run(scenario())


def test_updates_under_way_are_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "LOOK_AGAIN_S", 0.01)

    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await fill(chain, 20)
            daemon = chain.daemons[1]
            before = daemon._scrub._list

            async def changing(position, member, after, last):  # type: ignore[no-untyped-def]
                """Between the two lists chunks change."""
                for index in range(5):
                    await chain.update(b"again", index=index)
                return await before(position, member, after, last)

            daemon._scrub._list = changing  # type: ignore[method-assign]
            assert not (await ended(chain, 0)).differing

    run(scenario())


def test_a_replica_that_does_not_answer_is_counted_and_holds_nobody_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            await fill(chain, 20)
            await chain.crash(3)
            found = await ended(chain, 0)
            assert found.chunks == 20 and found.not_compared == 20

    run(scenario())


def test_it_reads_no_faster_than_it_may(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path) as chain:
            daemon = chain.daemons[1]
            waits: list[float] = []
            progress = scrub.Progress(bytes_per_s=1000)

            async def sleep(seconds: float) -> None:
                waits.append(round(seconds, 1))

            scrub_module_sleep = scrub.asyncio.sleep
            scrub.asyncio.sleep = sleep  # type: ignore[assignment]
            try:
                for _ in range(3):
                    await daemon._scrub._wait_for_bandwidth(progress, 500)
                for _ in range(10_000):
                    daemon.service.counters.add("reads")
                for _ in range(2):
                    await daemon._scrub._wait_for_bandwidth(progress, 500)
            finally:
                scrub.asyncio.sleep = scrub_module_sleep  # type: ignore[assignment]
            assert waits == [0.0, 0.5, 1.0, 1.5, 3.5], "a quarter while the daemon is busy"

    run(scenario())


def test_a_strange_wish_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path, replicas=1) as chain:
            with refused(Code.INVALID):
                await ask(chain, 1, bytes_per_s=-1)

    run(scenario())
