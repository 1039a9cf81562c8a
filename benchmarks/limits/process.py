"""Processes that play the servers' part in a limit: started fresh, told their work once, stopped and waited for.

They are spawned, never forked: the benchmark's process has a client with threads, and a limit measured in a copy of
its memory would pay for that copy.
"""

import multiprocessing
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0


class Worker:
    """One process that runs `target(pipe, *arguments)` until the pipe closes. The first thing it sends is its port."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(_START_TIMEOUT_S):
            self.stop()
            raise TimeoutError(f"{target.__name__} did not start in {_START_TIMEOUT_S:.0f} s")
        self.port: int = self._pipe.recv()

    def ask(self, question: Any) -> Any:
        """What it answers."""
        self._pipe.send(question)
        return self._pipe.recv()

    def stop(self) -> None:
        """Close its pipe and its life. Returns once it is gone."""
        self._pipe.close()
        self._process.join(_STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


class Workers:
    """Several of them, and one blocking connection to each; a context manager that ends both."""

    def __init__(self, targets: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
        self._workers: list[Worker] = []
        self.sockets: list[socket.socket] = []
        try:
            for target, arguments in targets:
                self._workers.append(Worker(target, *arguments))
            self.sockets.extend(connect(worker.port) for worker in self._workers)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for connection in self.sockets:
            connection.close()
        for worker in self._workers:
            worker.stop()
        self.sockets.clear()
        self._workers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def connect(port: int) -> socket.socket:
    """A blocking connection without Nagle's delay to a process on this machine."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def accept_one(pipe: Connection) -> socket.socket:
    """In a worker: listen, send the port through the pipe, and take the one connection that comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive_exactly(connection: socket.socket, view: memoryview) -> bool:
    """Fill `view`; False if the peer closed before its first byte. Raises `ConnectionError` in between."""
    position = 0
    while position < len(view):
        count = connection.recv_into(view[position:])
        if count == 0:
            if position == 0:
                return False
            raise ConnectionError(f"the peer closed after {position} of {len(view)} bytes")
        position += count
    return True


def touched(size: int) -> bytearray:
    """`size` bytes of memory that the kernel has really given (first touch of a virtual machine's memory is slow)."""
    memory = bytearray(size)
    memory[::4096] = b"\x01" * len(range(0, size, 4096))
    return memory
