"""The other end of /dev/fuse, played through a socket that keeps messages apart.

What the kernel does beyond passing messages (taking requests back, ending) is tested with the real device.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from fs_client.fuse import abi
from fs_client.fuse.abi import Opcode
from fs_client.fuse.channel import Channel
from fs_client.fuse.kernel_request import Handler
from fs_client.fuse.negotiation import Negotiated, Wanted

KIB = 1024
MAX_WRITE = 64 * KIB
MESSAGE_MAX = 1 << 20
AGREED = Negotiated(45, abi.INIT_SETXATTR_EXT, MAX_WRITE, 0, 12, 9)


class Answer(NamedTuple):
    unique: int
    """0: a notification, whose code is in place of the error."""
    error: int
    """Positive errno; 0: success."""
    body: bytes


class FakeKernel:
    """Sends requests, takes answers."""

    def __init__(self) -> None:
        self._socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._socket, self._theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_MAX)
        self._socket.setblocking(False)
        self._last = 0

    def descriptor(self) -> int:
        """The daemon's end, which now belongs to the caller."""
        return self._theirs.detach()

    def send(
        self,
        opcode: int,
        body: bytes = b"",
        *,
        data: bytes = b"",
        node: int = 1,
        unique: int = 0,
        extensions: bytes = b"",
    ) -> int:
        """One request; returns its `unique`."""
        if not unique:
            self._last += 2
            unique = self._last
        length = abi.IN_HEADER.size + len(body) + len(data) + len(extensions)
        header = abi.IN_HEADER.pack(length, opcode, unique, node, 1000, 100, 77, len(extensions) // 8)
        self.send_raw(header + body + data + extensions)
        return unique

    def send_raw(self, message: bytes) -> None:
        self._socket.send(message)

    async def answer(self) -> Answer:
        """The next message of the daemon."""
        message = await asyncio.get_running_loop().sock_recv(self._socket, MESSAGE_MAX)
        length, error, unique = abi.OUT_HEADER.unpack_from(message)
        assert length == len(message)
        return Answer(unique, -error if unique else error, message[abi.OUT_HEADER.size :])

    def nothing(self) -> bool:
        """No message of the daemon is waiting."""
        try:
            message = self._socket.recv(MESSAGE_MAX)
        except BlockingIOError:
            return True
        raise AssertionError(f"the daemon sent {message!r}")

    async def settled(self) -> None:
        """Everything sent so far was looked at, and what became of it without waiting for anything has happened.

        An operation that nobody handles is answered at once, behind everything before it.
        """
        unique = self.send(Opcode.REMOVEMAPPING)
        assert (await self.answer()).unique == unique

    def write(self, data: bytes, offset: int = 0, fh: int = 1) -> int:
        return self.send(Opcode.WRITE, abi.WRITE_IN.pack(fh, offset, len(data), 0, 0, 0), data=data, node=2)

    def interrupt(self, unique: int) -> None:
        self.send(Opcode.INTERRUPT, abi.INTERRUPT_IN.pack(unique), unique=unique | 1)

    def close(self) -> None:
        self._socket.close()
        self._theirs.close()


@contextlib.asynccontextmanager
async def connected(
    handlers: Mapping[int, Handler], *, negotiated: Negotiated | None = AGREED, start: bool = True, **settings: Any
) -> AsyncIterator[tuple[Channel, FakeKernel]]:
    """A channel and the kernel at its other end."""
    kernel = FakeKernel()
    settings.setdefault("wanted", Wanted(max_write=MAX_WRITE))
    channel = Channel(kernel.descriptor(), handlers, negotiated=negotiated, **settings)
    try:
        if start:
            channel.start()
        yield channel, kernel
    finally:
        await channel.close(grace_s=0.0)
        kernel.close()
