"""Client processes that write and read registers: one block of one chunk each, whose content is a value.

`python -m tests.storm.registers KIND SETTINGS`, started by the storm. KIND:

* `clients`: several tasks of one client that write and read any of them through the public API.
* `pinned`: a reader with a routing that is as old as its servers let it be: it asks each replica of a register by
  itself, and looks for a newer routing only some time after a replica has refused it. A replica that goes on answering
  with what it had, after the others went on without it, is found by this one.

A block is its value again and again, so bytes of two values in one block are seen at once.
"""

import asyncio
import json
import os
import random
import sys
import time

from fs_client import aio
from fs_common.checksums import matches
from fs_common.errors import EmberError
from fs_common.layout import stripe_chains
from fs_common.methods import GET_ROUTING, READ_CHUNKS
from fs_common.peers import PeerPool
from fs_common.records.routing import GetRouting, PublicState, Routing
from fs_common.records.session import Hello
from fs_common.records.storage import ReadChunks, ReadItem
from tests.storm.talk import Orders, say

PATH = "/registers"
CHUNK_BYTES = 64 << 10
SIZES = (512, 4096, 24 << 10, CHUNK_BYTES)
TASKS = 4
STALE_S = 3.0
"""How long a pinned reader keeps a routing that a replica has refused: a client that does not learn."""
TIMEOUT_S = 20.0
PAUSE_S = 0.005
"""Between two operations of a task, so that a storm has processor time for its daemons."""


def block(register: int, value: int) -> bytes:
    return value.to_bytes(8, "big") * (SIZES[register % len(SIZES)] // 8)


def value_of(register: int, data: bytes | memoryview) -> int:
    """Ends the process with "wrong" if it is no value's."""
    found = bytes(data[:8])
    if bytes(data) != found * (SIZES[register % len(SIZES)] // 8):
        parts = sorted({bytes(data[at : at + 8]).hex() for at in range(0, len(data), 8)})
        wrong(f"register {register}: a block of {len(data)} bytes has parts of several values: {parts[:8]}")
    return int.from_bytes(found, "big")


def wrong(text: str) -> None:
    say("wrong", text)
    sys.stdout.flush()
    os._exit(3)


async def connected(address: str) -> aio.AsyncFileSystem:
    """Sooner or later: a client may be started while nobody answers."""
    while True:
        try:
            return await aio.connect(address, timeout_s=TIMEOUT_S)
        except OSError as error:
            say("refused", f"connect: {error}")
            await asyncio.sleep(PAUSE_S * 20)


async def clients(settings: dict) -> None:  # type: ignore[type-arg]
    orders = Orders()
    async with await connected(settings["address"]) as fs:
        idle = [False] * TASKS

        async def work(number: int) -> None:
            chance = random.Random(f"{settings['seed']}/{settings['name']}/{number}")
            file = None
            counter = 0
            while not orders.over:
                if orders.paused:
                    idle[number] = True
                    if all(idle):
                        say("paused")
                    await orders.wait_soon()
                    idle[number] = False
                    continue
                register = chance.randrange(settings["registers"])
                start = time.monotonic()
                try:
                    if file is None:
                        file = await fs.open(PATH, "r+b")
                    if chance.random() < 0.45:
                        counter += 1
                        value = settings["client"] << 40 | number << 32 | counter
                        say("begin", register, value, start)
                        data = block(register, value)
                        written = 0
                        while written < len(data):
                            written += await file.write_at(register * CHUNK_BYTES + written, data[written:])
                        say("write", register, value, start, time.monotonic())
                    else:
                        size = SIZES[register % len(SIZES)]
                        (view,) = await fs.read_ranges([(file.ref, register * CHUNK_BYTES, size)])
                        end = time.monotonic()
                        say("read", register, value_of(register, view), start, end, "api")
                except OSError as error:
                    say("refused", f"{time.monotonic() - start:.1f} s: {type(error).__name__}: {error}")
                    if file is not None and chance.random() < 0.3:
                        broken, file = file, None
                        try:
                            await broken.close()
                        except OSError as failure:
                            say("refused", f"close: {failure}")
                await asyncio.sleep(PAUSE_S)
            if file is not None:
                try:
                    await file.close()
                except OSError as failure:
                    say("refused", f"close: {failure}")

        await asyncio.gather(*(work(number) for number in range(TASKS)))
    say("ended")


async def pinned(settings: dict) -> None:  # type: ignore[type-arg]
    orders = Orders()
    host, _, port = settings["address"].rpartition(":")
    pool = PeerPool(Hello([1], "client", os.urandom(16)))
    routing: Routing | None = None
    chance = random.Random(f"{settings['seed']}/pinned")

    async def fetch() -> None:
        nonlocal routing
        try:
            reply = await pool.call((host, int(port)), GET_ROUTING, GetRouting(), timeout=2.0)
            routing = reply.routing
        except EmberError as error:
            say("refused", f"routing: {error}")

    async with await connected(settings["address"]) as fs:
        ref = await fs.ref(PATH)
    refused: dict[int, float] = {}
    """Target -> since when the routing is known to be old for it."""

    async def read(register: int, place: int) -> None:
        assert routing is not None
        (table,) = [t for t in routing.tables if (t.table, t.version) == (ref.layout.table, ref.layout.table_version)]
        chains = stripe_chains(ref.layout, table.chains)
        (chain,) = [c for c in routing.chains if c.chain == chains[register % len(chains)]]
        targets = [target for target in chain.targets if target.state is PublicState.SERVING]
        if not targets:
            refused.setdefault(-chain.chain, time.monotonic())
            return
        target = targets[place % len(targets)]
        (node,) = [node for node in routing.nodes if node.node == target.node]
        size = SIZES[register % len(SIZES)]
        into = memoryview(bytearray(size))
        item = ReadItem(chain.chain, chain.version, ref.inode, register, 0, size, CHUNK_BYTES)
        start = time.monotonic()
        reply = await pool.call(
            (node.host, node.port), READ_CHUNKS, ReadChunks([item]), into=[into], timeout=settings["patience_s"]
        )
        end = time.monotonic()
        if reply.errors:
            refused.setdefault(target.target, end)
            return
        data = into[: reply.lengths[0]]
        if not matches(data, 0, CHUNK_BYTES, reply.checksums[0]):
            return  # the block was changed while it was sent; a client reads again
        refused.pop(target.target, None)
        say("read", register, value_of(register, data), start, end, f"target {target.target} of {chain.version}")

    async def work(number: int) -> None:
        while not orders.over:
            if orders.paused:
                idle[number] = True
                if all(idle):
                    say("paused")
                await orders.wait_soon()
                idle[number] = False
                continue
            if routing is None or any(time.monotonic() - since > STALE_S for since in refused.values()):
                refused.clear()
                await fetch()
            if routing is not None:
                try:
                    await read(chance.randrange(settings["registers"]), chance.randrange(8))
                except EmberError:
                    refused.setdefault(0, time.monotonic())
            await asyncio.sleep(PAUSE_S)

    idle = [False] * TASKS
    await asyncio.gather(*(work(number) for number in range(TASKS)))
    await pool.close()
    say("ended")


if __name__ == "__main__":
    asyncio.run({"clients": clients, "pinned": pinned}[sys.argv[1]](json.loads(sys.argv[2])))
