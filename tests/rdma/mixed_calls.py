"""Calls of all kinds, beside one another, some of them given up: what is true of them over any device."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from fs_common.errors import Code, EmberError
from fs_common.limits import MIB
from fs_common.methods import PING, READ_CHUNKS, UPDATE_CHUNKS
from fs_common.records.session import Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Allocation, Call, FileRange, Part, Peer, Reply
from tests.common.loopback import TIMEOUT, memory, pattern, read_request, service
from tests.common.services import CLIENT

SIZE = 3 * MIB
ROUNDS = 8
AT_ONCE = 12


class Mixed:
    """A service, and callers of it. All is chosen by the seed."""

    def __init__(self, seed: int, directory: Path) -> None:
        self._random = Random(seed)
        self._data = pattern(SIZE, seed)
        path = directory / "block"
        path.write_bytes(self._data)
        self._file = os.open(path, os.O_RDONLY)
        self.taken = self.released = 0
        """Memory of the server: of answers, and for payloads of requests."""
        self.answered = self.given_up = self.failed = 0
        self.service = service()
        self.service.register(READ_CHUNKS, self._read)
        self.service.register(UPDATE_CHUNKS, self._store, allocate=self._allocate)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        os.close(self._file)

    def check(self) -> None:
        """All connections are gone."""
        assert self.released == self.taken
        assert self.answered > 20

    def _parts(self, length: int) -> list[Part]:
        random = self._random
        found: list[Part] = []
        at = 0
        while at < length:
            size = min(length - at, random.choice([1, 700, 4096, 65_536, 2 * MIB]))
            in_file = random.random() < 0.5
            found.append(FileRange(self._file, at, size) if in_file else memoryview(self._data)[at : at + size])
            at += size
        return found

    async def _read(self, call: Call) -> Reply:
        lengths = [item.length for item in call.request.items]
        if self._random.random() < 0.3:
            await asyncio.sleep(0)
        self.taken += 1
        return Reply(ReadChunksReply(lengths, []), self._parts(sum(lengths)), self._release)

    def _release(self) -> None:
        self.released += 1

    def _store(self, call: Call) -> Reply:
        assert b"".join(call.payload) == self._data[: sum(map(len, call.payload))]
        return Reply(UpdateChunksReply([], []))

    def _allocate(self, request: UpdateChunks, length: int) -> Allocation:
        self.taken += 1
        cut = self._random.randrange(length)
        return Allocation([view for view in memory(cut, length - cut) if view], self._release)

    async def calls(self, peer: Peer, reconnect: Callable[[], Awaitable[Peer]]) -> None:
        """All of them; every connection is closed at the end."""
        peers = [peer]
        for _ in range(ROUNDS):
            if peers[-1].closed:
                peers.append(await reconnect())
            await asyncio.gather(*(self._one(peers[-1]) for _ in range(AT_ONCE)))
        for peer in peers:
            await peer.close()

    async def _one(self, peer: Peer) -> None:
        random = self._random
        into: list[memoryview] = []
        match random.randrange(4):
            case 0:
                text = self._data[: random.choice([10, 9000, 100_000])]
                call = peer.call(PING, Ping(text), timeout=TIMEOUT)
            case 1:
                send = self._parts(random.choice([1, 5000, 300_000, SIZE]))
                call = peer.call(UPDATE_CHUNKS, UpdateChunks(CLIENT, []), send=send, timeout=TIMEOUT)
            case _:
                lengths = [random.choice([1, 4096, 100_000]) for _ in range(random.choice([1, 3, 30]))]
                into = memory(*lengths)
                call = peer.call(READ_CHUNKS, read_request(*lengths), into=into, timeout=TIMEOUT)
        task = asyncio.ensure_future(call)
        if random.random() < 0.06:
            for _ in range(random.randrange(8)):
                await asyncio.sleep(0)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            self.given_up += 1
            for view in into:
                view[:] = b"\xee" * len(view)
            for _ in range(50):
                await asyncio.sleep(0)
            assert all(bytes(view) == b"\xee" * len(view) for view in into), "memory of a call that is over"
        except EmberError as error:
            assert error.code in (Code.PEER_GONE, Code.UNREACHABLE), error
            self.failed += 1
        else:
            self.answered += 1
            got = b"".join(into)
            assert got == self._data[: len(got)]
