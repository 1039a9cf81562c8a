"""Plain sockets in the place of a chain: each process receives the bytes, keeps them, passes them on, and answers last.

Request: uint64 length, then the bytes. Response: one byte, sent once the successor has answered and, for `SYNC`, once
the process's own file is synced. Bytes are passed on as they come, so all links and disks work at the same time.

Where the bytes are kept is the mode: `MEMORY` in a buffer of the whole size, `FILE` in the page cache (pwrite), `SYNC`
in a file that is synced once at the end (one sync for all is less than any server that answers earlier can do).
"""

import os
import socket
import struct
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.limits.process import Worker, accept_one, connect, receive_exactly, touched

MEMORY, FILE, SYNC = "memory", "file", "sync"
_PIECE = 1 << 20
_HEAD = struct.Struct("<Q")


def serve(pipe: Connection, size: int, successor: int | None, mode: str, path: str) -> None:
    """A worker: one link of the chain. `successor`: the next one's port, None for the tail."""
    following = connect(successor) if successor is not None else None
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600) if mode != MEMORY else -1
    buffer = memoryview(touched(size if mode == MEMORY else _PIECE))
    try:
        with accept_one(pipe) as connection:
            head = memoryview(bytearray(_HEAD.size))
            while receive_exactly(connection, head):
                _pass_on(connection, following, file, buffer, bytes(head))
                if mode == SYNC:
                    os.fdatasync(file)
                if following is not None:
                    receive_exactly(following, memoryview(bytearray(1)))
                connection.sendall(b"\x01")
    finally:
        if following is not None:
            following.close()
        if file >= 0:
            os.close(file)
            Path(path).unlink()


def _pass_on(
    connection: socket.socket, following: socket.socket | None, file: int, buffer: memoryview, head: bytes
) -> None:
    (length,) = _HEAD.unpack(head)
    if following is not None:
        following.sendall(head)
    position = 0
    while position < length:
        at = position if file < 0 else 0
        piece = buffer[at : at + min(_PIECE, length - position)]
        received = connection.recv_into(piece)
        if received == 0:
            raise ConnectionError("the predecessor closed")
        if following is not None:
            following.sendall(piece[:received])
        if file >= 0:
            os.pwrite(file, piece[:received], position)
        position += received


class Chain:
    """`links` processes in a row; a context manager that ends them."""

    def __init__(self, links: int, size: int, mode: str, directory: Path) -> None:
        self._workers: list[Worker] = []
        self._head: socket.socket | None = None
        successor: int | None = None
        try:
            for i in reversed(range(links)):
                worker = Worker(serve, size, successor, mode, str(directory / f"chain-{mode}-{i}"))
                self._workers.append(worker)
                successor = worker.port
            assert successor is not None, "a chain has at least one link"
            self._head = connect(successor)
        except BaseException:
            self.stop()
            raise

    def send(self, data: memoryview) -> float:
        """Send all of `data` down the chain and wait for the answer; seconds."""
        assert self._head is not None
        start = time.perf_counter()
        self._head.sendall(_HEAD.pack(len(data)))
        self._head.sendall(data)
        receive_exactly(self._head, memoryview(bytearray(1)))
        return time.perf_counter() - start

    def stop(self) -> None:
        if self._head is not None:
            self._head.close()
            self._head = None
        for worker in reversed(self._workers):
            worker.stop()
        self._workers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
