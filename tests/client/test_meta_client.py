"""Calls to the metadata service under failures."""

import asyncio
import itertools
import os
import socket
import threading
from collections.abc import Iterator

import pytest

import fs_client
from fs_common.errors import Code, EmberError
from fs_common.records.session import Hello
from fs_common.security.tokens import make_token, token_text
from fs_common.transports import tcp
from tests.client.fake_cluster import FakeCluster
from tests.support import run


@pytest.fixture
def unused() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_an_unreachable_cluster_is_one_line_at_once(unused: str) -> None:
    with pytest.raises(ConnectionRefusedError) as caught:
        fs_client.connect(f"{unused},localhost:1")
    line = str(caught.value)
    assert "\n" not in line and unused in line and "localhost:1" in line
    assert "EMBERFS_CLUSTER" in line and "emberfs up" in line


def test_a_server_that_is_down_is_passed_over(cluster: FakeCluster, unused: str) -> None:
    with fs_client.connect(f"{unused},{cluster.address}") as fs:
        fs.mkdir("/a")
        assert fs.listdir() == ["a"]


def test_the_next_server_takes_over(cluster: FakeCluster) -> None:
    second = cluster.run(tcp.serve(cluster.metadata.service, "127.0.0.1", 0))
    try:
        with fs_client.connect(f"{cluster.address},127.0.0.1:{second.port}") as fs:
            fs.mkdir("/a")
            assert cluster.metadata.server is not None
            cluster.run(cluster.metadata.server.close(grace_s=0))
            fs.mkdir("/b")
            assert fs.listdir() == ["a", "b"]
    finally:
        cluster.run(second.close(grace_s=0))


def test_a_server_that_restarts_is_waited_for(cluster: FakeCluster, fs: fs_client.FileSystem) -> None:
    assert cluster.metadata.server is not None
    port = cluster.metadata.server.port
    cluster.run(cluster.metadata.server.close(grace_s=0))
    tried = threading.Event()
    deaf = socket.create_server(("127.0.0.1", port))

    def turn_away() -> None:
        deaf.accept()[0].close()
        deaf.close()
        tried.set()

    turning_away = threading.Thread(target=turn_away)
    turning_away.start()

    def restart() -> None:
        cluster.metadata.server = cluster.run(tcp.serve(cluster.metadata.service, "127.0.0.1", port))

    restarting = cluster.after(tried, restart)
    fs.mkdir("/a")
    turning_away.join()
    restarting.join()
    assert fs.listdir() == ["a"]


def test_a_server_that_stays_away_is_named_at_the_deadline(cluster: FakeCluster) -> None:
    with fs_client.connect(cluster.address, timeout_s=0.3) as fs:
        assert cluster.metadata.server is not None
        cluster.run(cluster.metadata.server.close(grace_s=0))
        with pytest.raises(
            ConnectionRefusedError, match=rf"tried {cluster.address} \(cannot be reached: Connection refused\)"
        ):
            fs.listdir()


def test_a_mutation_whose_answer_is_lost_is_done_once(cluster: FakeCluster, fs: fs_client.FileSystem) -> None:
    cluster.metadata.lost_replies = 2
    fs.mkdir("/a")
    ids = {request.request for name, request in cluster.metadata.calls if name == "mkdir"}
    assert len(ids) == 1 and fs.listdir() == ["a"]


def test_a_cluster_that_is_not_ready_is_waited_for(cluster: FakeCluster) -> None:
    faults = iter([EmberError(Code.CLUSTER_NOT_READY, "not yet")] * 3)
    cluster.metadata.fault = lambda method: next(faults, None)
    with fs_client.connect(cluster.address) as fs:
        assert fs.listdir() == []


def test_a_cluster_that_does_not_become_ready_says_so(cluster: FakeCluster) -> None:
    cluster.ready = False
    with pytest.raises(BlockingIOError, match=r"gave up after 0.1 s: .*wait for the storage daemons"):
        fs_client.connect(cluster.address, timeout_s=0.1)
    cluster.ready = True


def test_a_servers_bug_is_not_retried_for_long(cluster: FakeCluster, fs: fs_client.FileSystem) -> None:
    tries: list[object] = []

    def fault(method: object) -> EmberError:
        tries.append(method)
        return EmberError(Code.INTERNAL, "a bug")

    cluster.metadata.fault = fault
    with pytest.raises(OSError, match="a bug"):
        fs.listdir()
    assert len(tries) == 3


def test_busy_servers_are_tried_again(cluster: FakeCluster, fs: fs_client.FileSystem) -> None:
    faults = iter([EmberError(Code.BUSY, "busy"), EmberError(Code.KV_CONFLICT, "conflict")])
    cluster.metadata.fault = lambda method: next(faults, None)
    assert fs.listdir() == []


def test_another_cluster_is_refused(cluster: FakeCluster) -> None:
    """A client that knows its cluster does not talk to a server of another one at the same address."""
    with fs_client.connect(cluster.address) as fs:
        server = cluster.metadata.server
        assert server is not None
        cluster.run(server.close(grace_s=0))
        cluster.metadata.service.cluster = "another"
        cluster.metadata.server = cluster.run(tcp.serve(cluster.metadata.service, "127.0.0.1", server.port))
        with pytest.raises(OSError, match="belongs to cluster 'another'"):
            fs.mkdir("/a")


def test_a_server_is_told_who_calls(cluster: FakeCluster) -> None:
    hellos: list[Hello] = []
    cluster.metadata.service.admit = hellos.append
    token = token_text(make_token(bytes(36)))
    with fs_client.connect(cluster.address, token=token) as fs:
        fs.listdir()
    (hello,) = hellos
    assert (hello.role, hello.token, hello.pid, len(hello.client)) == ("client", token, os.getpid(), 16)


def test_storage_daemons_see_no_token(cluster: FakeCluster) -> None:
    hellos: list[Hello] = []
    for daemon in cluster.storage.values():
        daemon.service.admit = hellos.append
    with fs_client.connect(cluster.address, token=token_text(make_token(bytes(36)))) as fs:
        with fs.open("/a", "wb") as file:
            file.write(b"some bytes")
    assert hellos and all(not hello.token for hello in hellos)


def test_many_calls_share_one_connection(cluster: FakeCluster) -> None:
    hellos: list[Hello] = []
    cluster.metadata.service.admit = hellos.append

    async def main() -> None:
        async with await fs_client.aio.connect(cluster.address) as fs:
            await asyncio.gather(*(fs.mkdir(f"/{number}") for number in range(100)))
            assert len(await fs.listdir()) == 100

    run(main())
    assert len(hellos) == 1


def test_what_a_server_said_outlives_the_silence_of_later_tries(cluster: FakeCluster) -> None:
    """The service says which chain cannot do it; the last try has no time left to hear that again."""
    faults = itertools.chain(
        [EmberError(Code.NOT_SERVING, "chain 7: target 101 does not serve")],
        itertools.repeat(EmberError(Code.TIMED_OUT, "did not answer in time")),
    )
    with fs_client.connect(cluster.address, timeout_s=0.1) as fs:
        fs.listdir()
        cluster.metadata.fault = lambda method: next(faults)
        with pytest.raises(OSError, match=r"gave up after 0\.1 s: chain 7: target 101 does not serve"):
            fs.listdir()
        cluster.metadata.fault = None
