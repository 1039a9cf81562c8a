"""A cluster of real processes whose chains move: hurt daemon by daemon, looked at from outside.

`HealingCluster` gives each daemon a line of its own to the manager, which a test can cut, and reads each replica by
itself, at whatever chain version a client would have that learned nothing.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from fs_client import aio
from fs_common.errors import EmberError, code_of
from fs_common.layout import stripe_chains
from fs_common.methods import GET_ROUTING, READ_CHUNKS
from fs_common.peers import PeerPool
from fs_common.records.routing import Chain, GetRouting, PublicState, Routing
from fs_common.records.session import Hello
from fs_common.records.storage import ReadChunks, ReadItem
from tests.storm import replicas
from tests.storm.cluster import CHUNK_BYTES, Member, Place, StormCluster

SETTINGS = {"heartbeat_interval_ms": 300, "lease_ms": 5000, "failure_ms": 6000, "gc_delay_ms": 0, "gc_interval_ms": 200}
"""A process that is gone is noticed at once, and a daemon that is only late on a busy machine is not taken for one that
hangs: what is public after each step is what the step made of it."""
WAIT_S = 60.0
SHORT = {
    PublicState.SERVING: "S",
    PublicState.LASTSRV: "L",
    PublicState.SYNCING: "Y",
    PublicState.WAITING: "W",
    PublicState.OFFLINE: "O",
}


class Line:
    """A TCP relay. Cut, it takes nothing and gives nothing, and lets nobody in, as a network that has no way."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.target = ("", 0)

    async def listen(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _ending(writer):
            await self._open.wait()
            there, back = await asyncio.open_connection(*self.target)
            async with _ending(back):
                ways = [
                    asyncio.create_task(self._pass_on(reader, back)),
                    asyncio.create_task(self._pass_on(there, writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._open.wait()
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def _ending(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    except OSError:
        return
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class HealingCluster:
    """Three daemons (or more) with three replicas; chain 1 is on nodes 1, 2, 3, in this order, at first."""

    def __init__(self, path: Path, lines: dict[str, Line], addresses: dict[str, str], **options: object) -> None:
        self.lines = lines

        def manager(member: Member, address: str) -> str:
            host, _, port = address.rpartition(":")
            lines[member.name].target = (host, int(port))
            return addresses[member.name]

        settings = {"storage": len(lines), "replicas": 3, "durability": "disk", "settings": SETTINGS, **options}
        self.cluster = StormCluster(Place(path, isolated=False), power=False, manager=manager, **settings)  # type: ignore[arg-type]
        self.pool = PeerPool(Hello([1], "client", os.urandom(16)))

    def __getitem__(self, node: int) -> Member:
        return self.cluster.member(node)

    @property
    def address(self) -> str:
        return self.cluster.address

    # --- what it is ----------------------------------------------------------------------------------------------

    async def routing(self) -> Routing:
        reply = await self.pool.call(self.cluster.meta_address, GET_ROUTING, GetRouting(), timeout=5.0)
        assert reply.routing is not None
        found: Routing = reply.routing
        return found

    async def chain(self, number: int = 1) -> Chain:
        return next(chain for chain in (await self.routing()).chains if chain.chain == number)

    async def states(self, number: int = 1) -> str:
        """Nodes of a chain in its order, each with its state: `1S 2S 3O`."""
        return " ".join(f"{target.node}{SHORT[target.state]}" for target in (await self.chain(number)).targets)

    async def until(self, condition: Callable[[Routing], bool], what: str) -> Routing:
        """Asks again and again: nobody tells clients."""
        seen = "no answer"
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    try:
                        routing = await self.routing()
                    except EmberError as error:
                        seen = str(error)
                    else:
                        if condition(routing):
                            return routing
                        seen = "; ".join(
                            f"chain {chain.chain}.{chain.version}: "
                            + " ".join(f"{target.node}{SHORT[target.state]}" for target in chain.targets)
                            for chain in routing.chains
                        )
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"waited {WAIT_S:.0f} s in vain until {what}; {seen}") from None

    async def until_states(self, *wanted: str, number: int = 1) -> str:
        """Until the chain has one of these states, as `states` writes them."""

        def there(routing: Routing) -> bool:
            nonlocal seen
            (chain,) = [chain for chain in routing.chains if chain.chain == number]
            seen = " ".join(f"{target.node}{SHORT[target.state]}" for target in chain.targets)
            return seen in wanted

        seen = ""
        await self.until(there, f"chain {number} is {' or '.join(wanted)}")
        return seen

    async def until_whole(self) -> Routing:
        """Every chain serves with all its replicas."""
        return await self.until(
            lambda routing: all(
                target.state is PublicState.SERVING for chain in routing.chains for target in chain.targets
            ),
            "all targets serve",
        )

    async def assert_same(self) -> None:
        """All replicas of all chains are byte for byte the same, which needs nobody who writes."""
        assert await replicas.compare(self.pool, self.routing, WAIT_S) > 0

    # --- a client that learns nothing ----------------------------------------------------------------------------

    async def read_at(
        self, routing: Routing, ref: aio.FileRef, index: int, target: int, length: int, timeout: float = 3 * WAIT_S
    ) -> bytes:
        """One chunk's bytes from one target, at the chain version of `routing`. Raises `EmberError`."""
        table = next(t for t in routing.tables if (t.table, t.version) == (ref.layout.table, ref.layout.table_version))
        chains = stripe_chains(ref.layout, table.chains)
        chain = next(chain for chain in routing.chains if chain.chain == chains[index % len(chains)])
        node = next(member.node for member in chain.targets if member.target == target)
        (host, port) = next((one.host, one.port) for one in routing.nodes if one.node == node)
        into = memoryview(bytearray(length))
        item = ReadItem(chain.chain, chain.version, ref.inode, index, 0, length, CHUNK_BYTES)
        reply = await self.pool.call((host, port), READ_CHUNKS, ReadChunks([item]), into=[into], timeout=timeout)
        if reply.errors:
            raise EmberError(code_of(reply.errors[0].code), reply.errors[0].message)
        return bytes(into[: reply.lengths[0]])


@contextlib.asynccontextmanager
async def healing_cluster(
    path: Path, storage: int = 3, module: str = "fs_storage", words: tuple[str, ...] = (), **options: object
) -> AsyncIterator[HealingCluster]:
    """Started, with all targets serving; ended in the end, whatever became of it. `module`, `words`: what to run
    instead of the daemon, with what before its arguments."""
    path.mkdir(exist_ok=True)
    lines = {f"storage-{node}": Line() for node in range(1, storage + 1)}
    addresses = {name: await line.listen() for name, line in lines.items()}
    cluster = HealingCluster(path, lines, addresses, **options)
    for member in cluster.cluster.storage:
        member.module = module
        member.arguments = [*words, *member.arguments]
    try:
        await cluster.cluster.start()
        await cluster.until_whole()
        yield cluster
        for member in cluster.cluster.members:
            if b"Traceback" in member.log.read_bytes():
                raise AssertionError(f"{member.name}: {member.log.read_text()}")
    finally:
        await cluster.cluster.kill()
        await cluster.pool.close()
        for line in lines.values():
            await line.close()
