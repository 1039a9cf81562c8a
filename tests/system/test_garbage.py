"""Bytes that no client would send, at every port of a cluster: they are turned away, and nothing else happens."""

import errno
import os
import random
import socket
import struct
from collections.abc import Iterator

import msgspec
import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from fs_common import frames, methods
from fs_common.errors import Code, code_of
from fs_common.limits import BODY_BYTES_MAX, PAYLOAD_BYTES_MAX
from fs_common.records.session import PROTOCOL_VERSION, ErrorBody, Hello, Ping
from tests.system.control import assert_works, is_healthy

pytestmark = pytest.mark.system

TIMEOUT_S = 10.0


def rpc_ports(cluster: LaunchedCluster) -> list[int]:
    return [one.port for one in cluster.record.daemons]


def all_ports(cluster: LaunchedCluster) -> list[int]:
    return [*rpc_ports(cluster), cluster.record.meta.grpc_port]


def garbage() -> Iterator[bytes]:
    generator = random.Random(4)
    yield b""
    yield b"\0" * 100
    yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000
    for size in (1, 31, 32, 33, 1000, 300_000):
        yield generator.randbytes(size)


def send(port: int, data: bytes) -> bytes:
    """Send, half-close, and read to the end: the server has to end it."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        answer = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while block := connection.recv(65_536):
                answer += block
        except OSError as error:
            # The server closed with our bytes unread, as it should.
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
        return answer


def test_garbage_at_every_port(cluster: LaunchedCluster) -> None:
    before = [one.process for one in cluster.record.daemons]
    for port in all_ports(cluster):
        for data in garbage():
            send(port, data)
    assert_works(cluster.address, "/after-garbage")
    assert is_healthy(cluster.address)
    assert [one.process for one in cluster.record.daemons] == before


def test_connections_that_end_at_any_moment(cluster: LaunchedCluster) -> None:
    for port in all_ports(cluster):
        connections = [socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) for _ in range(50)]
        for number, connection in enumerate(connections):
            if number % 2:
                connection.sendall(os.urandom(number))
            # Half of them end with a reset instead of a goodbye.
            if number % 4 < 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
    assert_works(cluster.address, "/after-resets")


def test_names_at_their_bound(cluster: LaunchedCluster) -> None:
    with fs_client.connect(cluster.address) as fs:
        longest = "ü" * 127 + "x"
        fs.write_file(f"/{longest}", b"content")
        assert fs.read_file(f"/{longest}") == b"content"
        fs.unlink(f"/{longest}")
        for operation in (fs.mkdir, fs.stat, fs.unlink, fs.listdir, lambda path: fs.write_file(path, b"")):
            with pytest.raises(OSError, match="name") as caught:
                operation(f"/{longest}x")
            assert caught.value.strerror
            assert caught.value.errno == 36


class RawConnection:
    """Frames by hand."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)

    def __enter__(self) -> "RawConnection":
        hello = Hello([PROTOCOL_VERSION], "client", os.urandom(16))
        assert self.ask(methods.HELLO.number, msgspec.msgpack.encode(hello))[0] == frames.RESPONSE
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def ask(self, method: int, body: bytes, **lengths: int) -> tuple[int, bytes]:
        """(kind, body) of the answer. `lengths` replace what the header says."""
        length = lengths.get("body_length", len(body))
        self.socket.sendall(frames.pack(frames.REQUEST, method, 1, length, lengths.get("payload_length", 0)) + body)
        return self.answer()

    def answer(self) -> tuple[int, bytes]:
        header = frames.unpack(self._exactly(frames.HEADER_SIZE))
        body = self._exactly(header.body_length)
        self._exactly(header.payload_length)
        return header.kind, body

    def closed(self) -> bool:
        """Waits for the server to close; what it says before that is skipped."""
        try:
            while self.socket.recv(65_536):
                pass
        except ConnectionResetError:
            pass
        return True

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            block = self.socket.recv(size - len(data))
            assert block, "the server closed in the middle of a frame"
            data += block
        return data


def code(answer: tuple[int, bytes]) -> Code:
    kind, body = answer
    assert kind == frames.ERROR
    return code_of(msgspec.msgpack.decode(body, type=ErrorBody).code)


def assert_answers(connection: RawConnection) -> None:
    kind, body = connection.ask(methods.PING.number, msgspec.msgpack.encode(Ping(b"still there?")))
    assert kind == frames.RESPONSE
    assert msgspec.msgpack.decode(body, type=Ping).text == b"still there?"


def test_an_unknown_method_is_an_error_of_that_call_only(cluster: LaunchedCluster) -> None:
    for port in rpc_ports(cluster):
        with RawConnection(port) as connection:
            assert code(connection.ask(0xFFFE, b"\x90")) is Code.UNKNOWN_METHOD
            assert_answers(connection)


def test_a_body_that_is_no_record_is_an_error_of_that_call_only(cluster: LaunchedCluster) -> None:
    for port, method in zip(rpc_ports(cluster), [methods.STAT, *[methods.READ_CHUNKS] * 3], strict=True):
        with RawConnection(port) as connection:
            for body in (b"", b"\xc1", b"\x90", b"\x92\x01", os.urandom(200), b"\xdd\xff\xff\xff\xff"):
                assert code(connection.ask(method.number, body)) is Code.BAD_BODY
            assert_answers(connection)


@pytest.mark.parametrize(
    "lengths", [{"body_length": BODY_BYTES_MAX + 1}, {"payload_length": PAYLOAD_BYTES_MAX + 1}], ids=["body", "payload"]
)
def test_a_frame_over_its_bound_ends_its_connection_only(cluster: LaunchedCluster, lengths: dict[str, int]) -> None:
    for port in rpc_ports(cluster):
        with RawConnection(port) as bystander, RawConnection(port) as connection:
            assert code(connection.ask(methods.PING.number, b"", **lengths)) in (Code.TOO_LARGE, Code.BAD_FRAME)
            assert connection.closed()
            assert_answers(bystander)


def test_a_damaged_header_ends_its_connection_only(cluster: LaunchedCluster) -> None:
    header = bytearray(frames.pack(frames.REQUEST, methods.PING.number, 1, 0))
    for port in rpc_ports(cluster):
        for place in range(0, frames.HEADER_SIZE, 5):
            damaged = bytearray(header)
            damaged[place] ^= 0x40
            with RawConnection(port) as connection:
                connection.socket.sendall(damaged)
                assert connection.closed()
    assert_works(cluster.address, "/after-damage")
