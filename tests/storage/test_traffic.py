"""Where the bytes of a write go: from the client to the head, from each replica to the next, once each."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from fs_common.records.routing import Routing
from tests.storage.chain import CHUNK, ChainOfDaemons, chain_of, eventually
from tests.support import run

CLIENT = 0
WRITES = 12
OVERHEAD = 0.01
"""Headers, checksums and answers, of the bytes written."""


class Links:
    """Who sent whom how much: each source has a relay of its own to each destination."""

    def __init__(self) -> None:
        self.sent: Counter[tuple[int, int]] = Counter()
        """(from, to), 0 being the client: bytes, the answers to what the other asked among them."""
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def relay(self, source: int, destination: int, port: int) -> AsyncIterator[int]:
        """Gives the port on which `source` reaches `destination`."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            its_reader, its_writer = await asyncio.open_connection("127.0.0.1", port)
            for one, other, link in (
                (reader, its_writer, (source, destination)),
                (its_reader, writer, (destination, source)),
            ):
                task = asyncio.create_task(self._copy(one, other, link))
                self._tasks.add(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: tuple[int, int]) -> None:
        try:
            while data := await reader.read(1 << 20):
                self.sent[link] += len(data)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


def through(routing: Routing, ports: dict[int, int]) -> Routing:
    """The same, in which each node is reached at another port."""
    nodes = [
        msgspec.structs.replace(node, port=ports[node.node]) if node.node in ports else node for node in routing.nodes
    ]
    return msgspec.structs.replace(routing, version=routing.version + 1, nodes=nodes)


async def by_relays(chain: ChainOfDaemons, links: Links, stack: AsyncExitStack) -> None:
    assert chain.routing is not None
    real = dict(chain.ports)
    for source in (CLIENT, *real):
        ports = {
            node: await stack.enter_async_context(links.relay(source, node, port))
            for node, port in real.items()
            if node != source
        }
        if source == CLIENT:
            chain.ports.update(ports)
        else:
            chain.managers[source].publish(through(chain.routing, ports))


@pytest.mark.parametrize("length", [CHUNK, CHUNK - 4096])
def test_a_write_goes_down_the_chain_and_nowhere_else(tmp_path: Path, length: int) -> None:
    async def scenario() -> None:
        links = Links()
        async with chain_of(tmp_path) as chain, AsyncExitStack() as stack:
            await by_relays(chain, links, stack)
            for index in range(WRITES):
                await chain.update(bytes([index]) * length, index=index)
            payload = WRITES * length
            most = payload * (1 + OVERHEAD)
            way = [(CLIENT, 1), (1, 2), (2, 3)]
            await eventually(lambda: all(links.sent[link] >= payload for link in way))
            assert all(payload <= links.sent[link] <= most for link in way), links.sent
            rest = {link: sent for link, sent in links.sent.items() if link not in way}
            assert sum(rest.values()) <= payload * OVERHEAD, rest
            for index in range(WRITES):
                for place in range(3):
                    assert await chain.read(index=index, place=place, length=length) == bytes([index]) * length
            for node in (1, 2, 3):
                read = links.sent[(node, CLIENT)]
                assert payload <= read <= most, "whoever is asked has it, and asks nobody"
            assert all(links.sent[link] <= most for link in way)

    run(scenario())
