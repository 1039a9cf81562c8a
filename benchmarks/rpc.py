"""What a call costs, beside plain blocking sockets that move the same bytes: `python -m benchmarks.rpc`.

One server process, one client process. The plain sockets stream: they wait for no request.
"""

import argparse
import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import uvloop

from benchmarks.limits.process import Worker, accept_one, connect, receive_exactly
from benchmarks.measure import Series, alternate
from fs_common.buffers import BufferPool
from fs_common.methods import PING, READ_CHUNKS, UPDATE_CHUNKS
from fs_common.records.session import Hello, Ping
from fs_common.records.storage import ReadChunks, ReadChunksReply, ReadItem, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Allocation, Call, FileRange, Peer, Reply, Service
from fs_common.transports import tcp

MIB = 1 << 20
DEPTH = 64
READS_IN_FLIGHT = 8
FROM_FILE, FROM_MEMORY, SMALL = 1, 2, 3
"""Stand-ins for a chain id: where the server takes the payload from."""


def serve(pipe: Connection) -> None:
    """A worker: an RPC server that ends with its pipe."""
    uvloop.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    with tempfile.TemporaryFile() as file:
        memory = memoryview(os.urandom(MIB))
        file.write(memory)
        file.flush()
        pool = BufferPool()

        def read(call: Call) -> Reply:
            items = call.request.items
            lengths = [item.length for item in items]
            checksums = [b""] * len(items)
            source = items[0].chain
            if source == FROM_FILE:
                parts: list[FileRange | memoryview] = [FileRange(file.fileno(), 0, size) for size in lengths]
            else:
                parts = [memory[item.offset : item.offset + item.length] for item in items]
            return Reply(ReadChunksReply(lengths, checksums), parts)

        def allocate(request: UpdateChunks, length: int) -> Allocation:
            buffer = pool.take(length)
            return Allocation([buffer.view], buffer.release)

        service = Service("storage", "bench", 1)
        service.register(READ_CHUNKS, read)
        service.register(UPDATE_CHUNKS, lambda call: Reply(UpdateChunksReply([1], [1])), allocate=allocate)
        server = await tcp.serve(service, "127.0.0.1", 0)
        pipe.send(server.port)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), ended.set)
        await ended.wait()
        asyncio.get_running_loop().remove_reader(pipe.fileno())
        await server.close(1.0)


def stream(pipe: Connection, from_file: bool) -> None:
    """A worker: asked for n by 8 bytes, sends n MiB."""
    with tempfile.TemporaryFile() as file:
        memory = os.urandom(MIB)
        file.write(memory)
        file.flush()
        with accept_one(pipe) as connection:
            request = memoryview(bytearray(8))
            while receive_exactly(connection, request):
                for _ in range(int.from_bytes(request, "little")):
                    if from_file:
                        offset = 0
                        while offset < MIB:
                            offset += os.sendfile(connection.fileno(), file.fileno(), offset, MIB - offset)
                    else:
                        connection.sendall(memory)


class Bench:
    """The client's side."""

    def __init__(self, runner: asyncio.Runner, peer: Peer) -> None:
        self._runner = runner
        self._peer = peer
        self._buffers = [memoryview(bytearray(MIB)) for _ in range(READS_IN_FLIGHT)]

    def echo_us(self, count: int) -> float:
        """Median of one call at a time."""

        async def calls() -> float:
            taken = []
            request = Ping(b"x" * 16)
            for _ in range(count):
                start = time.perf_counter()
                await self._peer.call(PING, request, timeout=5.0)
                taken.append(time.perf_counter() - start)
            taken.sort()
            return taken[count // 2] * 1e6

        return self._runner.run(calls())

    def pipelined_per_s(self, count: int, depth: int = DEPTH) -> float:
        request = Ping(b"x" * 16)

        async def caller(_: int) -> None:
            for _ in range(count // depth):
                await self._peer.call(PING, request, timeout=5.0)

        return count / self._in_parallel(depth, caller)

    def payload_gb_per_s(self, source: int, count: int, depth: int = READS_IN_FLIGHT) -> float:
        request = ReadChunks([ReadItem(source, 1, 1, 0, 0, MIB)])

        async def caller(index: int) -> None:
            into = [self._buffers[index]]
            for _ in range(count // depth):
                await self._peer.call(READ_CHUNKS, request, into=into, timeout=5.0)

        return count * MIB / 1e9 / self._in_parallel(depth, caller)

    def send_gb_per_s(self, count: int, depth: int = READS_IN_FLIGHT) -> float:
        request = UpdateChunks(b"x" * 16, [])

        async def caller(index: int) -> None:
            for _ in range(count // depth):
                await self._peer.call(UPDATE_CHUNKS, request, send=[self._buffers[index]], timeout=5.0)

        return count * MIB / 1e9 / self._in_parallel(depth, caller)

    def small_reads_per_s(self, count: int, batch: int = 256, depth: int = 2) -> float:
        """4-KiB reads, `batch` in one call."""
        request = ReadChunks([ReadItem(SMALL, 1, 1, i, i * 4096 % MIB, 4096) for i in range(batch)])

        async def caller(index: int) -> None:
            buffer = self._buffers[index]
            into = [buffer[i * 4096 : i * 4096 + 4096] for i in range(batch)]
            for _ in range(count // batch // depth):
                await self._peer.call(READ_CHUNKS, request, into=into, timeout=5.0)

        return count / self._in_parallel(depth, caller)

    def _in_parallel(self, depth: int, caller: Callable[[int], Awaitable[None]]) -> float:
        """Seconds for `depth` callers at once."""

        async def callers() -> float:
            start = time.perf_counter()
            await asyncio.gather(*(caller(index) for index in range(depth)))
            return time.perf_counter() - start

        return self._runner.run(callers())


def _plain_gb_per_s(connection: socket.socket, buffers: list[memoryview], count: int) -> float:
    """Into as many buffers as the calls use: one that stays in the processor's cache would be another measurement."""
    start = time.perf_counter()
    connection.sendall(count.to_bytes(8, "little"))
    for i in range(count):
        receive_exactly(connection, buffers[i % len(buffers)])
    return count * MIB / 1e9 / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of calls in one run")
    options = parser.parse_args()
    calls = int(20_000 * options.scale)
    mib = int(2048 * options.scale)
    server = Worker(serve)
    plain_file, plain_memory = Worker(stream, True), Worker(stream, False)
    buffers = [memoryview(bytearray(MIB)) for _ in range(READS_IN_FLIGHT)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        hello = Hello([1], "client", bytes(16))
        peer: Peer = runner.run(tcp.connect("127.0.0.1", server.port, hello, timeout=5.0))
        bench = Bench(runner, peer)
        with connect(plain_file.port) as from_file, connect(plain_memory.port) as from_memory:
            titles = ["plain, sendfile", "plain, memory", "1-MiB reads, file", "1-MiB reads, memory", "1-MiB sends"]
            values = alternate(
                options.repeat,
                lambda: _plain_gb_per_s(from_file, buffers, mib),
                lambda: _plain_gb_per_s(from_memory, buffers, mib),
                lambda: bench.payload_gb_per_s(FROM_FILE, mib),
                lambda: bench.payload_gb_per_s(FROM_MEMORY, mib),
                lambda: bench.send_gb_per_s(mib),
                lambda: bench.echo_us(calls // 4),
                lambda: bench.pipelined_per_s(calls),
                lambda: bench.small_reads_per_s(calls * 10),
            )
        runner.run(peer.close())
    for worker in (server, plain_file, plain_memory):
        worker.stop()
    limits = {2: 0, 3: 1, 4: 1}
    for i, title in enumerate(titles):
        series = Series("GB/s", values[i])
        beside = f"  {series.median / Series('', values[limits[i]]).median:.2f} of plain" if i in limits else ""
        print(f"{title:24} {series.median:8.2f} GB/s{beside}")
    for title, unit, taken in zip(
        ("one call at a time", f"calls, {DEPTH} in flight", "4-KiB reads, 256 a call"),
        ("us (median)", "calls/s", "reads/s"),
        values[5:],
        strict=True,
    ):
        print(f"{title:24} {Series(unit, taken).median:8,.0f} {unit}")


if __name__ == "__main__":
    main()
