"""truncate against a writer: every order of the steps that the two take at the storage daemons and in the store.

The daemons are a dict of bytes. Each request of the service is one step, and so is its transaction, each write and the
report of the writer. All orders are tried, depth first.
"""

import asyncio
import dataclasses
from typing import Any

import msgspec
import pytest

from fs_common.layout import Layout, stripe_chains
from fs_common.methods import Method
from fs_common.records import storage
from fs_common.records.meta import OpenReply
from fs_meta.chunks import ChunkClient
from fs_meta.kv.interface import Transaction
from fs_meta.ops.inodes import put_inode
from fs_meta.ops.resolve import get_inode
from tests.meta.world import CHUNK, World, make_routing, world
from tests.support import run

OLD, NEW = b"o", b"n"
CHAINS = 2
LAYOUT = Layout(CHUNK, CHAINS, 1, 1)
_SETTLED = 20
"""Turns of the loop after which nothing moves without a turn of the schedule: more than a call has awaits."""


class Schedule:
    """Who wants to take a step waits until it is let."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def step(self, who: str) -> None:
        turn = self._waiting[who] = asyncio.get_running_loop().create_future()
        await turn

    async def ready(self) -> list[str]:
        for _ in range(_SETTLED):
            await asyncio.sleep(0)
        return sorted(self._waiting)

    def let(self, who: str) -> None:
        self._waiting.pop(who).set_result(None)


class Daemons:
    """The heads of all chains; chunks by (chain, inode, index)."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._chunks: dict[tuple[int, int, int], bytearray] = {}

    async def call(
        self, address: tuple[str, int], method: Method, request: Any, *, timeout: float, ticket: Any = None
    ) -> msgspec.Struct:
        chain = request.items[0].chain if isinstance(request, storage.UpdateChunks) else request.chain
        await self._schedule.step(f"truncate, at chain {chain}")
        match request:
            case storage.RemoveChunks():
                found = self._of(chain, request.inode, request.first)
                for key in found[: request.limit]:
                    del self._chunks[key]
                return storage.RemoveChunksReply(len(found[: request.limit]), len(found) > request.limit)
            case storage.ListChunks():
                found = self._of(chain, request.inode, request.first)
                listed = found[: request.limit]
                lengths = [len(self._chunks[key]) for key in listed]
                return storage.ListChunksReply([key[2] for key in listed], lengths, len(found) > len(listed))
            case storage.QueryLastChunk():
                found = self._of(chain, request.inode, 0)
                last = found[-1] if found else (0, 0, -1)
                return storage.QueryLastChunkReply(last[2], len(self._chunks.get(last, b"")), len(found), 0)
            case storage.UpdateChunks():
                [item] = request.items
                assert item.kind == storage.UpdateKind.TRUNCATE
                data = self._chunks.setdefault((chain, item.inode, item.index), bytearray())
                del data[item.offset :]
                data += bytes(item.offset - len(data))
                return storage.UpdateChunksReply([1], [item.offset])
        raise AssertionError(method)

    def write(self, inode: int, offset: int, data: bytes) -> None:
        """Within one chunk."""
        index, within = divmod(offset, CHUNK)
        chain = stripe_chains(LAYOUT, range(1, CHAINS + 1))[index % CHAINS]
        chunk = self._chunks.setdefault((chain, inode, index), bytearray())
        chunk += bytes(max(within - len(chunk), 0))
        chunk[within : within + len(data)] = data

    def read(self, inode: int, length: int) -> bytes:
        content = bytearray(length)
        for (_, owner, index), data in self._chunks.items():
            if owner == inode and index * CHUNK < length:
                content[index * CHUNK : index * CHUNK + len(data)] = data[: length - index * CHUNK]
        return bytes(content)

    def end(self, inode: int) -> int:
        return max(index * CHUNK + len(data) for (_, owner, index), data in self._chunks.items() if owner == inode)

    def _of(self, chain: int, inode: int, first: int) -> list[tuple[int, int, int]]:
        return sorted(key for key in self._chunks if key[:2] == (chain, inode) and key[2] >= first)


class SteppedChunks(ChunkClient):
    """The transaction behind a cut is a step of its own; a measurement is none (`tests.meta.test_length` has its
    races)."""

    def __init__(self, daemons: Daemons, schedule: Schedule) -> None:
        routing = make_routing(CHAINS)
        super().__init__(daemons, lambda: routing, b"m" * 16, timeout_s=60)
        self._daemons = daemons
        self._schedule = schedule

    async def cut(self, inode: int, layout: Layout, length: int) -> None:
        await super().cut(inode, layout, length)
        await self._schedule.step("truncate, in the store")

    async def measure(self, inode: int, layout: Layout) -> int:
        return self._daemons.end(inode)


async def _open_file(w: World) -> OpenReply:
    """A file on chains 1 and 2 in turn."""
    opened = await w.create_open(b"f")

    async def place(txn: Transaction) -> None:
        record = await get_inode(txn, opened.attributes.inode)
        record.layout = LAYOUT
        put_inode(txn, opened.attributes.inode, record)

    await w.kv.transact(place)
    return opened


async def _one_order(choices: list[int], length: int, writes: list[int]) -> list[int]:
    """Take the steps that `choices` says (of those that are ready, in order), then always the first. Returns how many
    were ready each time."""
    ready_counts: list[int] = []
    schedule = Schedule()
    daemons = Daemons(schedule)
    async with world() as w:
        w.context = dataclasses.replace(w.context, chunks=SteppedChunks(daemons, schedule))
        opened = await _open_file(w)
        inode, session = opened.attributes.inode, opened.session
        for index in range(3):
            daemons.write(inode, index * CHUNK, OLD * CHUNK)
        await w.fsync(inode, session, 3 * CHUNK)
        later: list[int] = []
        """Where the writer wrote after the truncate was answered."""

        async def write() -> None:
            for offset in writes:
                await schedule.step("writer")
                daemons.write(inode, offset, NEW * 50)
                if truncating.done():
                    later.append(offset)
            await schedule.step("writer")
            await w.fsync(inode, session, max(writes) + 50)

        truncating = asyncio.ensure_future(w.truncate(inode, length))
        writing = asyncio.ensure_future(write())
        while ready := await schedule.ready():
            place = len(ready_counts)
            ready_counts.append(len(ready))
            schedule.let(ready[choices[place] if place < len(choices) else 0])
        await truncating
        await writing
        seen = await w.close(inode, session, max(writes) + 50, exact=True)
        content = daemons.read(inode, seen.length)
        assert OLD not in content[length:], f"order {choices}"
        for offset in later:
            assert content[offset : offset + 50] == NEW * 50, f"order {choices}"
    return ready_counts


@pytest.mark.parametrize(
    ("length", "writes"),
    [
        (10, [2 * CHUNK + 7]),
        (10, [5000, 2 * CHUNK + 7]),
        (CHUNK, [2 * CHUNK + 7]),
        (CHUNK + 10, [3 * CHUNK + 7]),
    ],
    ids=["behind", "in and behind the boundary", "between chunks", "other chain"],
)
def test_no_byte_of_before_a_truncate_comes_back(length: int, writes: list[int]) -> None:
    async def body() -> None:
        choices: list[int] = []
        orders = 0
        while True:
            ready_counts = await _one_order(choices, length, writes)
            orders += 1
            choices += [0] * (len(ready_counts) - len(choices))
            while choices and choices[-1] + 1 == ready_counts[len(choices) - 1]:
                choices.pop()
            if not choices:
                break
            choices[-1] += 1
        assert orders > 20

    run(body())
