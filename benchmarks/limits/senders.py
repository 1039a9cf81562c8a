"""Plain sockets in the place of storage daemons: processes that send pieces of their memory when asked.

Request: uint32 count, uint32 length, then `count` items of 32 bytes (about what a read item takes on our wire), each
beginning with a uint64 offset. Response: `count` pieces of `length` bytes, nothing else. No checksums, no records, no
event loop on the sending side: what is left is what the kernel needs to move the same bytes between the same number of
processes.
"""

import selectors
import struct
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from benchmarks.limits.process import Workers, accept_one, receive_exactly, touched

_HEAD = struct.Struct("<II")
ITEM_SIZE = 32
_PIECES_PER_SEND = 1024
"""IOV_MAX."""


def serve(pipe: Connection, size: int) -> None:
    """A worker: `size` bytes of memory, sent piece by piece until the peer closes."""
    memory = memoryview(touched(size))
    with accept_one(pipe) as connection:
        head = memoryview(bytearray(_HEAD.size))
        while receive_exactly(connection, head):
            count, length = _HEAD.unpack(head)
            items = memoryview(bytearray(count * ITEM_SIZE))
            receive_exactly(connection, items)
            offsets = [struct.unpack_from("<Q", items, i * ITEM_SIZE)[0] for i in range(count)]
            if count == 1:
                connection.sendall(memory[offsets[0] : offsets[0] + length])
                continue
            pieces = [memory[offset : offset + length] for offset in offsets]
            while pieces:
                sent = connection.sendmsg(pieces[:_PIECES_PER_SEND])
                while pieces and sent >= len(pieces[0]):
                    sent -= len(pieces.pop(0))
                if sent:
                    pieces[0] = pieces[0][sent:]


def request(offsets: Sequence[int], length: int) -> bytes:
    """A request for pieces of `length` bytes at these offsets."""
    return _HEAD.pack(len(offsets), length) + b"".join(struct.pack("<Q24x", offset) for offset in offsets)


class Senders(Workers):
    """`count` sending processes with `size` bytes of memory each."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__([(serve, (size,))] * count)
        self._size = size

    def stream(self, into: memoryview, piece: int) -> float:
        """Receive all of `into`, the n-th part of it from the n-th of the senders; seconds.

        One thread, epoll, `recv_into` of at most `piece` bytes at a time into successive places of each part.
        """
        share = len(into) // len(self.sockets)
        parts = [into[i * share : (i + 1) * share] for i in range(len(self.sockets))]
        start = time.perf_counter()
        with selectors.EpollSelector() as selector:
            for i, connection in enumerate(self.sockets):
                connection.sendall(request([0], share))
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ, i)
            while selector.get_map():
                for key, _ in selector.select():
                    i = key.data
                    received = self.sockets[i].recv_into(parts[i][:piece])
                    if received == 0:
                        raise ConnectionError("a sender closed")
                    parts[i] = parts[i][received:]
                    if not parts[i]:
                        selector.unregister(self.sockets[i])
        elapsed = time.perf_counter() - start
        for connection in self.sockets:
            connection.setblocking(True)
        return elapsed

    def batches(self, offsets: Sequence[Sequence[int]], length: int, into: memoryview) -> float:
        """One batch after another: each is split over all senders, asked for at once, and received whole; seconds."""
        count = len(self.sockets)
        start = time.perf_counter()
        for batch in offsets:
            for i, connection in enumerate(self.sockets):
                connection.sendall(request(batch[i::count], length))
            position = 0
            for i, connection in enumerate(self.sockets):
                end = position + len(batch[i::count]) * length
                receive_exactly(connection, into[position:end])
                position = end
        return time.perf_counter() - start

    def ping_pong(self, offsets: Sequence[int], length: int, into: memoryview) -> list[float]:
        """One piece at a time from the first sender; seconds of each."""
        connection = self.sockets[0]
        times = []
        for offset in offsets:
            start = time.perf_counter()
            connection.sendall(request([offset], length))
            receive_exactly(connection, into[:length])
            times.append(time.perf_counter() - start)
        return times
