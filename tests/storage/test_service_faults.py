"""Daemons that stop, chains that break, leases that end: clear errors, never wrong bytes, nothing twice."""

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fs_common.errors import Code, EmberError, Retry
from fs_common.ids import chunk_id
from fs_common.methods import PING
from fs_common.records.session import Ping
from fs_common.records.storage import UpdateItem, UpdateKind
from fs_storage.engine.interface import ChunkRead, Update
from tests.storage.chain import CHUNK, TIMEOUT_S, ChainOfDaemons, HeldStore, chain_of, eventually
from tests.storage.refusals import refused
from tests.support import run

OTHER = b"client-number-02"


async def persist(chain: ChainOfDaemons, item: UpdateItem, data: bytes) -> tuple[int, int]:
    """Send an update again and again under its identity, as a client does; its answer."""
    while True:
        try:
            reply = await chain.send([item], [data], timeout=2.0)
        except EmberError as error:
            assert error.retry is not Retry.FINAL, error
        else:
            if not reply.errors:
                return reply.versions[0], reply.lengths[0]
            number = reply.errors[0].code
            assert number != Code.UPDATE_STALE.value.number, reply.errors[0]
        await asyncio.sleep(0.01)


def assert_same_stores(chain: ChainOfDaemons, number: int = 1) -> None:
    """Every replica of chain `number` has the same chunks, and nothing is pending."""
    contents = [
        {
            key: (c.committed.number, c.committed.data)
            for key, c in chain.store(number, place)._chunks.items()
            if c.committed
        }
        for place in range(3)
    ]
    assert contents[0] == contents[1] == contents[2]
    assert not any(chain.store(number, place).pending() for place in range(3))


STEPS = ("before_prepare", "after_prepare", "before_commit", "after_commit")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("held", [0, 1, 2])
@pytest.mark.parametrize("killed", [0, 1, 2])
def test_a_replica_stopped_in_the_middle_of_an_update(tmp_path: Path, step: str, held: int, killed: int) -> None:
    """Whoever dies wherever the update is: the retry succeeds, once, and all replicas end equal."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            assert await chain.update(b"first") == (1, 5)
            item = chain.item(b"SECOND!", sequence=50)
            gate = getattr(chain.store(1, held), step)
            gate.hold()
            sent = asyncio.create_task(chain.send([item], [b"SECOND!"], timeout=0.2))
            await gate.reached.wait()
            await chain.crash(chain.node(1, killed))
            gate.release()
            first = (await asyncio.gather(sent, return_exceptions=True))[0]
            if not isinstance(first, EmberError):
                assert first.versions == [2] or first.errors, first
            # Nobody reads anything but the two versions, and none that goes back.
            seen = set()
            for place in {0, 1, 2} - {killed}:
                try:
                    seen.add(await chain.read(place=place))
                except EmberError as error:
                    assert error.code is Code.NOT_SERVING, error
            assert seen <= {b"first", b"SECOND!"}
            await chain.restart(chain.node(1, killed))
            assert await persist(chain, item, b"SECOND!") == (2, 7)
            assert await chain.update(b"third", client=OTHER) == (3, 7)
            assert await persist(chain, item, b"SECOND!") == (2, 7)
            await chain.serving()
            assert await chain.read_everywhere() == b"thirdD!"
            assert_same_stores(chain)

    run(scenario())


def test_a_reader_never_sees_new_then_old(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"old")
            tail, middle, head = (chain.store(1, place) for place in (2, 1, 0))
            tail.before_prepare.hold()
            update = asyncio.create_task(chain.update(b"new"))
            await tail.before_prepare.reached.wait()
            assert [await chain.read(place=place) for place in (0, 1, 2)] == [b"old"] * 3
            assert chain.daemons[1].service.counters["reads_asked"] == 1
            middle.before_commit.hold()
            head.before_commit.hold()
            tail.before_prepare.release()
            await middle.before_commit.reached.wait()
            assert [await chain.read(place=place) for place in (2, 1, 0)] == [b"new"] * 3
            middle.before_commit.release()
            await head.before_commit.reached.wait()
            assert [await chain.read(place=place) for place in (2, 1, 0)] == [b"new"] * 3
            head.before_commit.release()
            await update
            asked = chain.daemons[1].service.counters["reads_asked"]
            assert await chain.read_everywhere() == b"new"
            assert chain.daemons[1].service.counters["reads_asked"] == asked

    run(scenario())


def test_a_pending_removal_and_a_pending_version_that_is_not_cached(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"old")
            await chain.update(b"old", index=1)
            chunk = next(iter(chain.store(1, 1)._chunks))
            chain.store(1, 1).uncached.add(chunk)
            chain.store(1, 1).before_commit.hold()
            update = asyncio.create_task(chain.update(b"new"))
            removal = asyncio.create_task(chain.update(kind=UpdateKind.REMOVE, index=1, channel=2))
            await eventually(lambda: len(chain.store(1, 2).pending()) == 0 and chain.store(1, 2).prepares == 4)
            assert await chain.read(place=1) == b"new"
            with refused(Code.CHUNK_NOT_FOUND):
                await chain.read(place=1, index=1)
            chain.store(1, 1).before_commit.release()
            await asyncio.gather(update, removal)

    run(scenario())


def test_without_the_tail_a_pending_chunk_is_not_guessed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"old")
            await chain.update(b"quiet", index=1)
            chain.store(1, 2).after_prepare.hold()
            update = asyncio.create_task(chain.update(b"new", timeout=1.0))
            await chain.store(1, 2).after_prepare.reached.wait()
            await chain.crash(3)
            for place in (0, 1):
                with refused(Code.NOT_SERVING) as caught:
                    await chain.read(place=place)
                assert "node 3" in str(caught.value)
                assert await chain.read(place=place, index=1) == b"quiet"
            with pytest.raises(EmberError):
                await update
            await chain.restart(3)
            await chain.serving()
            assert await chain.read_everywhere() == b"new"

    run(scenario())


def test_a_chain_without_its_tail_says_who_is_missing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"old")
            await chain.crash(3)
            with refused(Code.CHAIN_BROKEN) as caught:
                await chain.update(b"new", timeout=3)
            message = str(caught.value)
            assert "chain 1" in message and "node 3" in message and f"127.0.0.1:{chain.ports[3]}" in message
            assert "\n" not in message
            # It reached nobody beyond the living, who dropped it: they read on without the tail.
            await eventually(lambda: not any(chain.store(1, place).pending() for place in (0, 1)))
            assert await chain.read(place=0) == b"old"
            assert await chain.read(place=1) == b"old"
            await chain.restart(3)
            await chain.serving()
            assert await chain.update(b"new") == (2, 3)

    run(scenario())


def test_an_update_waits_for_a_successor_that_comes_back_in_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.crash(2)
            update = asyncio.create_task(chain.update(b"patient"))
            await eventually(lambda: chain.daemons[1].service.counters["forward_retries"] > 0)
            await chain.restart(2)
            assert await update == (1, 7)
            assert await chain.read_everywhere() == b"patient"

    run(scenario())


def test_a_full_tail_takes_the_update_back_everywhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"x" * 10)
            chain.store(1, 2)._capacity_bytes = 10
            for _ in range(3):
                with refused(Code.NO_SPACE):
                    await chain.update(b"y" * 100)
            with refused(Code.NO_SPACE):
                await chain.update(b"z", index=1)
            assert_same_stores(chain)
            assert await chain.read_everywhere() == b"x" * 10
            assert await chain.update(kind=UpdateKind.REMOVE) == (2, 0)
            assert await chain.update(b"z", index=1) == (1, 1)

    run(scenario())


def test_a_lease_that_ends_stops_reads_and_updates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"x")
            chain.managers[1].lease = False
            with refused(Code.NOT_SERVING):
                await chain.read(place=0)
            with refused(Code.NOT_SERVING):
                await chain.update(b"y")
            with refused(Code.NOT_SERVING):
                await chain.query()
            chain.managers[1].lease = True
            chain.managers[3].lease = False
            with refused(Code.CHAIN_BROKEN):
                await chain.update(b"y", timeout=3)
            assert "the lease of target 301 is over" in caplog.text
            chain.managers[3].lease = True
            assert await chain.update(b"y") == (2, 1)
            assert await chain.read_everywhere() == b"y"

    run(scenario())


def test_a_lease_that_ends_while_the_tail_prepares(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"x")
            tail = chain.store(1, 2)
            tail.after_prepare.hold()
            update = asyncio.create_task(chain.update(b"y", timeout=0.7))
            await tail.after_prepare.reached.wait()
            chain.managers[3].lease = False
            tail.after_prepare.release()
            with refused(Code.CHAIN_BROKEN):
                await update
            chain.managers[3].lease = True
            await chain.serving()
            assert await chain.read_everywhere() == b"x"

    run(scenario())


def test_other_routing_is_followed_and_both_sides_are_checked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"x")
            newer = chain.make_routing(2, chain_version=2)
            chain.managers[1].publish(newer)
            with refused(Code.CHAIN_VERSION):
                await chain.update(b"y")
            with refused(Code.CHAIN_BROKEN):
                await chain.update(b"y", chain_version=2, timeout=3)
            chain.routing = newer
            for node in (2, 3):
                chain.managers[node].publish(newer)
            assert await chain.update(b"z", chain_version=2) == (2, 1)

    run(scenario())


def test_a_stranger_in_the_predecessors_place_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        from fs_common.methods import UPDATE_CHUNKS
        from fs_common.records.storage import UpdateChunks

        async with chain_of(tmp_path) as chain:
            item = replace(chain.item(b"x"), version=1, digest=1)
            for source in (301, 999):
                request = UpdateChunks(OTHER, [item], source)
                reply = await chain.pool.call(chain.address(2), UPDATE_CHUNKS, request, send=[b"x"], timeout=TIMEOUT_S)
                assert [error.code for error in reply.errors] == [Code.CHAIN_VERSION.value.number]
            for other, code in (
                (replace(item, version=5, base=1), Code.REPLICAS_DIFFER),  # made of what is not here
                (replace(item, version=5), Code.REPLICAS_DIFFER),  # it does not become what it says it is
                (replace(item, digest=0), Code.INVALID),
                (replace(item, version=0), Code.INVALID),
            ):
                request = UpdateChunks(OTHER, [other], 101)
                reply = await chain.pool.call(chain.address(2), UPDATE_CHUNKS, request, send=[b"x"], timeout=TIMEOUT_S)
                assert [error.code for error in reply.errors] == [code.value.number]
                assert chain.store(1, 1).state(chunk_id(7, 0)) is None

    run(scenario())


def test_a_different_update_under_a_pending_version_is_reported(tmp_path: Path) -> None:
    async def scenario() -> None:
        from fs_common.methods import UPDATE_CHUNKS
        from fs_common.records.storage import UpdateChunks

        async with chain_of(tmp_path) as chain:
            middle = chain.store(1, 1)
            chain.store(1, 2).before_prepare.hold()
            update = asyncio.create_task(chain.update(b"mine"))
            await chain.store(1, 2).before_prepare.reached.wait()
            request = UpdateChunks(OTHER, [replace(chain.item(b"else"), version=1, digest=1)], 101)
            other = asyncio.create_task(
                chain.pool.call(chain.address(2), UPDATE_CHUNKS, request, send=[b"else"], timeout=TIMEOUT_S)
            )
            await eventually(lambda: chain.target(1, 1).in_flight == 2)
            await chain.crash(2)
            update.cancel()
            other.cancel()
            await asyncio.gather(update, other, return_exceptions=True)
            assert middle.pending()
            chain.managers.pop(2)
            await chain.crash(3)  # so that nothing settles the pending version
            await chain.restart(2)
            await eventually(lambda: 1 in chain.daemons[2].targets.by_chain)
            reply = await chain.pool.call(chain.address(2), UPDATE_CHUNKS, request, send=[b"else"], timeout=TIMEOUT_S)
            assert [error.code for error in reply.errors] == [Code.REPLICAS_DIFFER.value.number]
            await chain.restart(3)
            await chain.serving()
            assert await chain.read_everywhere() == b"mine"

    run(scenario())


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_replica_that_has_lost_everything_makes_updates_fail_and_none_is_lost(tmp_path: Path, place: int) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"old" * 100)
            node = chain.node(1, place)
            await chain.crash(node)
            chain.stores[node * 100 + 1] = HeldStore()
            await chain.restart(node)
            await eventually(lambda: 1 in chain.daemons[node].targets.by_chain and chain.target(1, place).serves)
            counters = chain.daemons[1].service.counters
            for _ in range(3):
                # The client sends it again, after the background has tried to settle what is pending.
                with refused(Code.CHAIN_BROKEN) as failure:
                    await chain.update(b"new", sequence=9, timeout=5)
                assert chunk_id(7, 0).hex() in failure.value.message
                settles = counters["settles"]
                while counters["settles"] == settles:
                    await asyncio.sleep(0.001)
            assert chain.store(1, 0).pending() == [chunk_id(7, 0)]
            assert chain.target(1, 0).replica.differing.keys() == {chunk_id(7, 0)}
            for other in {0, 1, 2} - {place, 0}:
                if place == 2:
                    with refused(Code.NOT_SERVING):  # what is pending here may be committed: the tail does not know
                        await chain.read(place=other)
                else:
                    assert await chain.read(place=other) == b"old" * 100

    run(scenario())


@pytest.mark.parametrize("forgot", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_replicas_forget_removals_in_any_order(tmp_path: Path, forgot: tuple[int, ...]) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            for index in range(3):
                for _ in range(4 - index):
                    await chain.update(b"old", index=index)
                await chain.update(kind=UpdateKind.REMOVE, index=index)
            for place in forgot:
                for index in range(3):
                    chain.store(1, place).forget_removal(chunk_id(7, index))
            await chain.update(b"short", index=0, offset=5)
            assert await chain.read_everywhere(index=0) == bytes(5) + b"short"
            await chain.update(kind=UpdateKind.TRUNCATE, index=1)
            assert await chain.read_everywhere(index=1) == b""
            await chain.update(kind=UpdateKind.REMOVE, index=2)
            await chain.update(b"again", index=2)
            assert await chain.read_everywhere(index=2) == b"again"
            for index in range(3):
                assert len({chain.store(1, place).digest(chunk_id(7, index)) for place in range(3)}) == 1

    run(scenario())


def test_an_update_fails_where_a_stranger_has_put_another_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"old")
            tail = chain.store(1, 2)
            item = replace(chain.item(b"evil", kind=UpdateKind.REPLACE), version=1 << 62)
            update = Update(
                chunk_id(7, 0),
                item.kind,
                0,
                memoryview(b"evil"),
                item.checksums,
                CHUNK,
                item.version,
                1,
                0,
                OTHER,
                1,
                1,
            )
            await tail.prepare([update])
            await tail.commit([(chunk_id(7, 0), item.version)])
            for _ in range(2):
                with refused(Code.CHAIN_BROKEN) as failure:
                    await chain.update(b"new", sequence=9, timeout=5)
                assert "target 301" in failure.value.message and "target 201" in failure.value.message

    run(scenario())


@pytest.mark.parametrize("code", [Code.BAD_FRAME, Code.BAD_BODY, Code.TOO_LARGE, Code.PEER_GONE])
def test_a_connection_that_fails_leaves_open_whether_an_update_was_applied(tmp_path: Path, code: Code) -> None:
    """A damaged frame may be any other's, and the peer that answers so may have the update already."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            peers = chain.daemons[1]._forwarder._peers
            await chain.update(b"old")
            call = peers[1].call

            async def damaged(*arguments: Any, **rest: Any) -> Any:
                await call(*arguments, **rest)
                raise EmberError(code, "the connection is broken")

            peers[1].call = damaged  # type: ignore[method-assign]
            with refused(Code.CHAIN_BROKEN):
                await chain.update(b"new", sequence=9, timeout=2)
            assert chain.daemons[1].service.counters["abandons"] == 0
            peers[1].call = call  # type: ignore[method-assign]
            await chain.serving()
            assert await chain.read_everywhere() == b"new"

    run(scenario())


@pytest.mark.slow
def test_the_reason_arrives_before_the_caller_gives_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            tail = chain.store(1, 2)
            tail.before_prepare.hold()
            item = chain.item(b"x" * 5000, sequence=9)
            reply = await chain.send([item], [b"x" * 5000], timeout=4.0)
            assert [error.code for error in reply.errors] == [Code.CHAIN_BROKEN.value.number]
            assert "node 3" in reply.errors[0].message
            tail.before_prepare.release()
            await chain.serving()
            assert (await chain.send([item], [b"x" * 5000])).versions == [1]
            assert tail.prepares == 1
            assert await chain.read_everywhere() == b"x" * 5000

    run(scenario())


def test_a_caller_that_gives_up_stops_nothing_half_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            head = chain.store(1, 0)
            head.after_prepare.hold()
            item = chain.item(b"x" * 5000, sequence=9)
            with refused(Code.TIMED_OUT):
                await chain.send([item], [b"x" * 5000], timeout=0.1)
            # The payload is still in use, though nobody waits for the answer.
            assert chain.daemons[1]._memory.used_bytes == 5000
            head.after_prepare.release()
            await eventually(lambda: chain.daemons[1]._memory.used_bytes == 0)
            assert (await chain.send([item], [b"x" * 5000])).versions == [1]
            assert await chain.read_everywhere() == b"x" * 5000

    run(scenario())


def test_what_was_pending_is_committed_while_a_thread_looks_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"old")
            middle = chain.store(1, 1)
            chunk = next(iter(middle._chunks))
            middle.uncached.add(chunk)
            reached, committed = threading.Event(), threading.Event()
            read_blocking = middle.read_blocking

            def late(*arguments: Any, **options: Any) -> ChunkRead:
                reached.set()
                assert committed.wait(TIMEOUT_S)
                return read_blocking(*arguments, **options)

            middle.read_blocking = late  # type: ignore[method-assign]
            middle.before_commit.hold()
            update = asyncio.create_task(chain.update(b"new"))
            await middle.before_commit.reached.wait()
            reader = asyncio.create_task(chain.read(place=1))
            try:
                await eventually(reached.is_set)
                middle.before_commit.release()
                await update
            finally:
                committed.set()
            assert await reader == b"new"

    run(scenario())


def test_a_reader_that_gives_up_while_threads_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"old")
            chain.store(1, 2).before_prepare.hold()
            update = asyncio.create_task(chain.update(b"new"))
            await chain.store(1, 2).before_prepare.reached.wait()
            reader = asyncio.create_task(chain.read(place=0))
            await eventually(lambda: chain.daemons[1].service.counters["reads_asked"] == 1)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            chain.store(1, 2).before_prepare.release()
            await update

    run(scenario())


def test_a_disk_that_fails_ends_its_target_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            await chain.update(b"x")
            await chain.update(b"x", chain=2)

            async def broken(updates: object) -> list[EmberError]:
                return [EmberError(Code.DISK_FAILED, "input/output error")]

            chain.store(1, 1).prepare = broken  # type: ignore[method-assign, assignment]
            with refused(Code.CHAIN_BROKEN):
                await chain.update(b"y", timeout=5)
            with refused(Code.NOT_SERVING) as caught:
                await chain.read(place=1)
            assert "input/output error" in str(caught.value)
            assert await chain.update(b"y", chain=2) == (2, 1)
            await chain.crash(2)
            del chain.store(1, 1).prepare
            await chain.restart(2)
            await chain.serving()
            assert await chain.read_everywhere() == b"y"

    run(scenario())


def test_garbage_on_a_connection_harms_nobody_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            loop = asyncio.get_running_loop()
            for garbage in (b"GET / HTTP/1.1\r\n\r\n" * 10, bytes(64), b"\xff" * 100_000):
                with socket.create_connection(chain.address(1)) as connection:
                    connection.setblocking(False)
                    try:
                        await loop.sock_sendall(connection, garbage)
                        while await loop.sock_recv(connection, 65536):
                            pass
                    except ConnectionError:
                        pass
            assert (await chain.pool.call(chain.address(1), PING, Ping(b"?"), timeout=TIMEOUT_S)).text == b"?"
            assert await chain.update(b"x") == (1, 1)

    run(scenario())


def test_pending_versions_found_at_a_start_are_settled_without_a_client(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:
            items = [chain.item(bytes([65 + n]) * 100, index=n, channel=n) for n in range(20)]
            chain.store(1, 2).before_prepare.hold()
            sent = asyncio.create_task(chain.send(items, [bytes([65 + n]) * 100 for n in range(20)], timeout=1.0))
            await chain.store(1, 2).before_prepare.reached.wait()
            for node in (3, 2, 1):
                await chain.crash(node)
            await asyncio.gather(sent, return_exceptions=True)
            assert len(chain.store(1, 0).pending()) == 20
            for node in (1, 2, 3):
                await chain.restart(node)
            await chain.serving()
            for n in range(20):
                assert await chain.read_everywhere(index=n) == bytes([65 + n]) * 100
            reply = await chain.send(items, [bytes([65 + n]) * 100 for n in range(20)])
            assert reply.versions == [1] * 20
            assert_same_stores(chain)

    run(scenario())
