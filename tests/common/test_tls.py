"""TLS of the data plane: who is trusted, what strangers are told, bytes between OpenSSL and the socket."""

import asyncio
import contextlib
import logging
import os
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest

from fs_common import frames
from fs_common.errors import Code, EmberError
from fs_common.methods import PING, READ_CHUNKS, UPDATE_CHUNKS
from fs_common.records.session import Ping
from fs_common.records.storage import ReadChunksReply, UpdateChunks, UpdateChunksReply
from fs_common.rpc import Call, FileRange, Reply
from fs_common.tls import making
from fs_common.tls.files import TlsFiles
from fs_common.tls.names import NOBODY, Proven, names_of, proven_by
from fs_common.transports import tcp
from tests.certificates import TlsTransport, certificates, client_files, daemon_files, make_certificates
from tests.common.loopback import (
    MIB,
    TIMEOUT,
    connected,
    hello,
    memory,
    pattern,
    raw_client,
    read_request,
    service,
    serving,
    until,
)
from tests.support import run

TLS = TlsTransport()


async def refusal(port: int, files: TlsFiles | None, **changes: Any) -> EmberError:
    """Why the server at `port` is not talked to."""
    with pytest.raises(EmberError) as caught:
        peer = await tcp.connect("127.0.0.1", port, hello(**changes), timeout=TIMEOUT, tls=files)
        await peer.close()
    return caught.value


def handshake(server: TlsFiles, client: TlsFiles) -> None:
    """A session between the two, in memory. Raises `ssl.SSLError`."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.client_context().wrap_bio(back, there, server_hostname="emberfs.internal"),
        server.server_context().wrap_bio(there, back, server_side=True),
    ]
    while sides:
        for side in list(sides):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
                sides.remove(side)


class Unchecked(TlsFiles):
    """Of a daemon that was started while its certificate was good, or that is none of ours."""

    def _meet_itself(self, *contexts: ssl.SSLContext) -> tuple[Proven, float]:
        return NOBODY, 0.0


# Names


def test_a_certificate_names_its_daemon() -> None:
    assert proven_by(names_of(Proven("meta"))) == Proven("meta")
    assert proven_by(["10.0.0.1", *names_of(Proven("storage", 12))]) == Proven("storage", 12)
    for names in ([], ["emberfs.internal"], ["storage-0.emberfs.internal"], ["storage-1.emberfs.internal.example"]):
        assert proven_by(names) is NOBODY


# Strangers


def test_a_caller_without_tls_is_told_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(service(), TLS) as server:
            error = await refusal(server.port, None)
            assert error.code is Code.BAD_FRAME
            assert "this server speaks TLS only" in error.message and "EMBERFS_TLS_CA" in error.message

    run(main())
    assert "this server speaks TLS only" in caplog.text


def test_a_caller_with_tls_is_told_that_the_server_has_none(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(service()) as server:
            error = await refusal(server.port, client_files())
            assert error.code is Code.UNREACHABLE
            assert "does not speak TLS" in error.message

    run(main())
    assert "the peer speaks TLS" in caplog.text


@pytest.mark.parametrize("garbage", [b"\x16", b"\x16\x03\x01\x00\x05hello", b"GET / HTTP/1.1\r\n\r\n", os.urandom(300)])
def test_garbage_instead_of_a_handshake_ends_the_connection(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(service(), TLS) as server:
            async with raw_client(server.port) as stranger:
                stranger.writer.write(garbage)
                stranger.writer.write_eof()
                await stranger.reader.read()
            async with connected(service(), TLS, server) as peer:
                assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")

    with caplog.at_level(logging.WARNING):
        run(main())
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


def test_another_clusters_daemon_is_not_trusted(tmp_path: Path) -> None:
    make_certificates(tmp_path / "other", "storage-7")

    async def main() -> None:
        async with serving(service(), TLS) as server:
            error = await refusal(server.port, TlsFiles.of_client(tmp_path / "other" / "ca.pem"))
            assert error.code is Code.UNREACHABLE
            assert "is not of the authority" in error.message
            # Nor is a caller that shows another cluster's certificate, even one that trusts the server.
            mixed = tmp_path / "mixed"
            shutil.copytree(tmp_path / "other" / "storage-7", mixed)
            shutil.copy(certificates() / "ca.pem", mixed / "ca.pem")
            error = await refusal(server.port, Unchecked.of_daemon(mixed))
            assert "does not take our certificate" in error.message

    run(main())


def unfit(directory: Path, what: str) -> Path:
    """A daemon's files with which nobody can talk."""
    making.make_authority(directory, "test-cluster")
    if what == "expired":
        return making.issue(directory, making.daemon_of("storage-7"), days=0)
    own = directory / "own"
    own.mkdir()
    # The authority's own certificate: good, and no daemon's.
    for source, name in (("ca.pem", "cert.pem"), ("ca-key.pem", "key.pem"), ("ca.pem", "ca.pem")):
        shutil.copy(directory / source, own / name)
    return own


@pytest.mark.parametrize(("what", "says"), [("expired", "certificate has expired"), ("no daemon's", "certificate")])
def test_a_certificate_that_is_unfit_is_refused(tmp_path: Path, what: str, says: str) -> None:
    own = unfit(tmp_path, what)
    with pytest.raises(EmberError, match=says) as caught:
        TlsFiles.of_daemon(own)
    assert caught.value.code is Code.INVALID

    async def main() -> None:
        server = await tcp.serve(service(), "127.0.0.1", 0, tls=Unchecked.of_daemon(own))
        error = await refusal(server.port, TlsFiles.of_client(tmp_path / "ca.pem"))
        assert error.code is Code.UNREACHABLE
        assert says in error.message
        await server.close()

    run(main())


def test_a_daemon_is_not_started_with_the_files_of_another() -> None:
    assert TlsFiles.of_daemon(certificates() / "storage-2", "storage", 2).own == Proven("storage", 2)
    for role, node in (("storage", 3), ("meta", 0)):
        with pytest.raises(EmberError, match="is for storage node 2, and this is"):
            TlsFiles.of_daemon(certificates() / "storage-2", role, node)


def test_the_end_of_a_certificate_is_told_each_day(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    making.make_authority(tmp_path, "test-cluster")
    files = TlsFiles.of_daemon(making.issue(tmp_path, making.daemon_of("meta"), days=40))
    day_s = 86_400.0
    began_s = files.ends_s - 40 * day_s
    lines = []
    for quarter in range(42 * 4):
        now_s = quarter * day_s / 4
        caplog.clear()
        files.look_at_own(now_s, lambda now_s=now_s: began_s + now_s)  # type: ignore[misc]
        lines += [(quarter // 4, record.levelname, record.message) for record in caplog.records]
    assert [day for day, _, _ in lines] == list(range(11, 42))
    assert "ends in 29 days" in lines[0][2] and lines[0][1] == "WARNING"
    assert "has expired" in lines[-1][2] and lines[-1][1] == "ERROR"
    assert all("emberfs certs rotate" in line for _, _, line in lines)


def test_a_connection_tells_when_its_servers_certificate_ends() -> None:
    async def main() -> None:
        async with connected(service(), TLS) as peer:
            ends_s = peer.certificate_ends_s
            shown = making.show(certificates() / "storage-7" / "cert.pem")
            assert ends_s == shown.not_after.timestamp() == daemon_files("storage-7").ends_s
        async with connected(service()) as peer:
            assert peer.certificate_ends_s is None

    run(main())


# Daemons


def test_a_daemon_that_takes_itself_for_another_is_not_believed() -> None:
    async def main() -> None:
        server = await tcp.serve(service(), "127.0.0.1", 0, tls=daemon_files("storage-1"))
        error = await refusal(server.port, client_files())
        assert error.code is Code.UNREACHABLE
        assert "says that it is storage node 7, its certificate is of storage node 1" in error.message
        await server.close()

    run(main())


def test_a_caller_that_says_it_is_a_daemon_has_its_certificate() -> None:
    async def main() -> None:
        async with serving(service(), TLS) as server:
            daemon = {"role": "storage", "client": (2).to_bytes(16, "big")}
            for files in (client_files(), daemon_files("storage-3"), daemon_files("meta")):
                error = await refusal(server.port, files, **daemon)
                assert error.code is Code.UNAUTHENTICATED
                assert "says that it is storage node 2, its certificate is of" in error.message
            assert (await refusal(server.port, daemon_files("storage-2"), role="meta")).code is Code.UNAUTHENTICATED
            for files, who in ((daemon_files("storage-2"), daemon), (daemon_files("meta"), {"role": "meta"})):
                peer = await tcp.connect("127.0.0.1", server.port, hello(**who), timeout=TIMEOUT, tls=files)
                await peer.close()

    run(main())


# Files that change


def test_new_files_are_used_without_a_restart_and_open_connections_stay(tmp_path: Path) -> None:
    make_certificates(tmp_path / "certs", "storage-7")
    directory = tmp_path / "certs"
    files = TlsFiles.of_daemon(directory / "storage-7")

    async def serial(port: int) -> int:
        _, writer = await asyncio.open_connection(
            "127.0.0.1",
            port,
            ssl=TlsFiles.of_client(directory / "ca.pem").client_context(),
            server_hostname="localhost",
        )
        found = writer.get_extra_info("peercert")["serialNumber"]
        writer.transport.abort()
        return int(found, 16)

    async def main() -> None:
        server = await tcp.serve(service(), "127.0.0.1", 0, tls=files)
        client = TlsFiles.of_client(directory / "client" / "ca.pem")
        old = await tcp.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT, tls=client)
        before = await serial(server.port)
        making.rotate_authority(directory)
        assert await serial(server.port) == before
        making.issue(directory, making.daemon_of("storage-7"))
        assert await serial(server.port) == making.show(directory / "storage-7" / "cert.pem").serial != before
        assert making.forget_authorities(directory) == 1
        # The client's own files were looked at again, too: it trusts the new authority, and that alone.
        new = await tcp.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT, tls=client)
        for peer in (old, new):
            assert await peer.call(PING, Ping(b"still"), timeout=TIMEOUT) == Ping(b"still")
            await peer.close()
        await server.close()

    run(main())


def test_half_of_a_change_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_certificates(tmp_path / "certs", "storage-7")
    own = tmp_path / "certs" / "storage-7"
    files = TlsFiles.of_daemon(own)
    before = files.server_context()
    certificate = (own / "cert.pem").read_bytes()
    making.issue(tmp_path / "certs", making.daemon_of("storage-7"))
    after = (own / "cert.pem").read_bytes()
    (own / "cert.pem").write_bytes(certificate)
    assert files.server_context() is before
    assert "is not the key of cert.pem" in caplog.text
    (own / "cert.pem").write_bytes(after)
    assert files.server_context() is not before


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem"])
def test_files_that_cannot_be_used_are_named(tmp_path: Path, name: str) -> None:
    shutil.copytree(certificates() / "meta", tmp_path / "meta")
    path = tmp_path / "meta" / name
    path.write_text("no PEM")
    with pytest.raises(EmberError, match="emberfs certs") as caught:
        TlsFiles.of_daemon(tmp_path / "meta")
    assert caught.value.code is Code.INVALID
    path.unlink()
    with pytest.raises(EmberError, match=name):
        TlsFiles.of_daemon(tmp_path / "meta")


def test_keys_are_for_their_owner_alone() -> None:
    keys = list(certificates().rglob("*key.pem"))
    assert len(keys) == len(list(certificates().rglob("cert.pem"))) + 1
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


# Bytes


def test_bytes_wait_for_a_full_socket_and_arrive_in_order(tmp_path: Path) -> None:
    """Large memory, small pieces and pieces of a file, to a reader that is slow: each is offered again as it was."""
    data = pattern(12 * MIB, 8)
    path = tmp_path / "block"
    path.write_bytes(data)

    async def main() -> None:
        with path.open("rb") as file:
            for step in (7, 16 * 1024, 100_000, 3 * MIB):
                parts: list[Any] = []
                at = 0
                while at < len(data):
                    size = min(step if len(parts) < 900 else MIB, len(data) - at)
                    kind = len(parts) % 3
                    piece = memoryview(data)[at : at + size]
                    parts.append(FileRange(file.fileno(), at, size) if kind == 2 else bytes(piece) if kind else piece)
                    at += size
                offered = service()
                released: list[int] = []
                offered.register(
                    READ_CHUNKS,
                    lambda call, p=parts, r=released: Reply(ReadChunksReply([1], []), p, lambda: r.append(1)),
                )
                async with connected(offered, TLS) as peer:
                    into = memory(5, MIB + 3, len(data) - MIB - 8)
                    await peer.call(READ_CHUNKS, read_request(1), into=into, timeout=TIMEOUT)
                    assert b"".join(into) == data
                    assert released == [1]

    run(main())


def test_memory_is_given_back_while_openssl_has_begun_with_it() -> None:
    """Calls are cancelled while their payload leaves through a full socket: what has begun to leave is completed."""

    async def main() -> None:
        got: list[int] = []
        stalled = asyncio.Event()

        async def update(call: Call) -> Reply:
            got.append(sum(map(len, call.payload)))
            return Reply(UpdateChunksReply([1], [1]))

        offered = service()
        offered.register(UPDATE_CHUNKS, update, allocate=lambda request, length: memory(length))
        async with serving(offered, TLS) as server, connected(offered, TLS, server) as peer:
            for size in (20_000, 300_000, 8 * MIB):
                for turns in range(6):
                    send = bytearray(pattern(size, 3))
                    call = asyncio.ensure_future(
                        peer.call(UPDATE_CHUNKS, UpdateChunks(b"c" * 16, []), send=[send], timeout=TIMEOUT)
                    )
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    call.cancel()
                    await asyncio.gather(call, return_exceptions=True)
                    send[:] = bytes(size)
            text = pattern(100_000, 1)
            assert await peer.call(PING, Ping(text), timeout=TIMEOUT) == Ping(text)
        assert not stalled.is_set()

    run(main())


def test_what_openssl_has_already_is_not_waited_for() -> None:
    """A server that stops reading and goes on finds the frames that lie in OpenSSL, of which no socket tells."""

    async def main() -> None:
        offered = service()
        offered.calls_in_flight_max = 1
        opened = asyncio.Event()
        waiting = 0

        async def answer(call: Call) -> Reply:
            nonlocal waiting
            waiting += 1
            await opened.wait()
            return Reply(ReadChunksReply([], []))

        offered.register(READ_CHUNKS, answer)
        async with serving(offered, TLS) as server:
            peer = await TLS.connect("127.0.0.1", server.port, hello(), timeout=TIMEOUT)
            # All in one turn of the loop, so in one record.
            calls = [asyncio.ensure_future(peer.call(READ_CHUNKS, read_request(1), timeout=TIMEOUT)) for _ in range(20)]
            await until(lambda: waiting == 1)
            opened.set()
            assert len(await asyncio.gather(*calls)) == 20
            await peer.close()

    run(main())


def test_a_file_that_ends_early_ends_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"x" * 1000)

    async def main() -> None:
        with path.open("rb") as file:
            offered = service()
            part = FileRange(file.fileno(), 0, 5000)
            offered.register(READ_CHUNKS, lambda call: Reply(ReadChunksReply([5000], []), [part]))
            async with connected(offered, TLS) as peer:
                with pytest.raises(EmberError) as caught:
                    await peer.call(READ_CHUNKS, read_request(5000), into=memory(5000), timeout=TIMEOUT)
                assert caught.value.code is Code.PEER_GONE

    run(main())


def test_a_connection_that_was_cut_within_a_record_breaks() -> None:
    """Bytes that somebody changed on their way are no data."""

    async def main() -> None:
        async with serving(service(), TLS) as server:
            flip = asyncio.Event()

            async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                there, back = await asyncio.open_connection("127.0.0.1", server.port)

                async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                    while data := await source.read(65536):
                        if flip.is_set():
                            data = data[:-1] + bytes([data[-1] ^ 1])
                        sink.write(data)
                    sink.close()

                await asyncio.gather(carry(reader, back), carry(there, writer), return_exceptions=True)
                back.close()

            between = await asyncio.start_server(relay, "127.0.0.1", 0)
            port = between.sockets[0].getsockname()[1]
            peer = await TLS.connect("127.0.0.1", port, hello(), timeout=TIMEOUT)
            assert await peer.call(PING, Ping(b"whole"), timeout=TIMEOUT) == Ping(b"whole")
            flip.set()
            with pytest.raises(EmberError) as caught:
                await peer.call(PING, Ping(b"changed"), timeout=TIMEOUT)
            assert caught.value.code is Code.PEER_GONE
            await peer.close()
            between.close()

    run(main())


def test_a_session_is_tls_1_3_and_ends_with_a_word() -> None:
    async def main() -> None:
        async with serving(service(), TLS) as server:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=client_files().client_context(), server_hostname="emberfs.internal"
            )
            assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
            # No frame: it is answered with an error frame, then with the end of the session.
            writer.write(b"x" * frames.HEADER_SIZE)
            answer = await reader.read()
            assert frames.unpack(answer).kind == frames.ERROR
            writer.close()

    run(main())
