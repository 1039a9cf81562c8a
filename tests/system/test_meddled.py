"""Clients of a real cluster over a network that loses answers, repeats requests and flips bits: everything takes effect
once, and nothing that is wrong is read or stored."""

import os
import random
import threading
from collections.abc import Callable, Iterator

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from fs_common import methods
from fs_common.layout import Layout
from tests.system.control import is_healthy, kill, wait_until
from tests.system.meddler import Address, Frame, Lost, Meddler

pytestmark = [pytest.mark.system, pytest.mark.slow]

SHARE = 0.05
CLIENTS = 3
FILES = 14
DATA = (methods.READ_CHUNKS.number, methods.UPDATE_CHUNKS.number)


@pytest.fixture
def meddler(cluster: LaunchedCluster) -> Iterator[Meddler]:
    host, _, port = cluster.address.rpartition(":")
    with Meddler((host, int(port))) as running:
        yield running


def lossy(chance: random.Random, counts: dict[str, int]) -> Callable[[Address, Frame], list[Frame]]:
    """Answers are lost, with their connection, and requests come twice."""

    def rule(server: Address, frame: Frame) -> list[Frame]:
        if chance.random() >= SHARE:
            return [frame]
        if frame.is_request:
            counts["repeated"] += 1
            return [frame, frame]
        counts["lost"] += 1
        raise Lost

    return rule


def in_threads(work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_everything_takes_effect_once_although_answers_are_lost_and_requests_repeated(
    cluster: LaunchedCluster, meddler: Meddler
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    counts = {"lost": 0, "repeated": 0}
    with fs_client.connect(cluster.address) as plain:
        plain.mkdir("/once")
        plain.write_file("/once/log", b"")
        meddler.rule = lossy(random.Random(seed), counts)

        def work(number: int) -> None:
            with fs_client.connect(meddler.address, timeout_s=60) as fs:
                for count in range(FILES):
                    name = f"/once/{number}-{count}"
                    fs.open(name, "xb").close()  # a second creation would fail
                    with fs.open("/once/log", "ab", buffering=0) as log:
                        assert log.write(b"%d-%d\n" % (number, count)) == len(b"%d-%d\n" % (number, count))
                    fs.write_file(name, name.encode() * 10)
                    fs.rename(name, name + ".new")  # a second renaming, too
                    fs.link(name + ".new", name + ".link")
                    assert fs.stat(name + ".link").st_nlink == 2
                    fs.unlink(name + ".link")  # a second removal, too
                    assert fs.read_file(name + ".new") == name.encode() * 10

        in_threads(work)
        assert counts["lost"] > 5 and counts["repeated"] > 5, counts
        wanted = {f"{number}-{count}" for number in range(CLIENTS) for count in range(FILES)}
        assert set(plain.listdir("/once")) == {"log"} | {f"{name}.new" for name in wanted}
        assert sorted(plain.read_file("/once/log").decode().split()) == sorted(wanted), "each line once"
        assert all(plain.stat(f"/once/{name}.new").st_nlink == 1 for name in wanted)
        meddler.rule = lambda server, frame: [frame]
        plain.rmtree("/once")


@pytest.mark.parametrize("way", ["to the daemon", "to the client"])
def test_a_flipped_bit_on_the_way_is_neither_stored_nor_read(
    cluster: LaunchedCluster, meddler: Meddler, way: str
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    chance = random.Random(seed)
    flips = passed = 0

    def rule(server: Address, frame: Frame) -> list[Frame]:
        nonlocal flips, passed
        damaged = frame.is_request == (way == "to the daemon") and frame.header.method in DATA and frame.payload
        passed += bool(damaged)
        if not damaged or passed % 5:
            return [frame]
        flips += 1
        payload = bytearray(frame.payload)
        payload[chance.randrange(len(payload))] ^= 1 << chance.randrange(8)
        return [frame._replace(payload=bytes(payload))]

    with fs_client.connect(cluster.address) as plain, fs_client.connect(meddler.address, timeout_s=60) as fs:
        meddler.rule = rule
        name = f"/flipped-{way.split()[-1]}"
        for count in range(16):
            data = chance.randbytes(chance.choice([100, 5000, 300_000, 1_200_000]))
            fs.write_file(name, data)
            assert fs.read_file(name) == data
            if count % 5 == 0:
                assert plain.read_file(name) == data
        assert flips > 2
        plain.unlink(name)


def test_updates_go_to_heads_and_reads_to_all_replicas_alike(cluster: LaunchedCluster, meddler: Meddler) -> None:
    with fs_client.connect(meddler.address) as fs:
        fs.mkdir("/spread", layout=Layout(chunk_size=1 << 16, stripe=3))
        data = os.urandom(240 << 16)
        fs.write_file("/spread/file", data)
        written = {server: size for (server, to_it), size in meddler.payload_bytes.items() if to_it and size}
        assert sum(written.values()) == len(data), "each byte leaves the client once, and goes to one daemon"
        assert len(written) == 3 and max(written.values()) < 1.1 * min(written.values()), written
        rounds = []
        while not rounds or max(rounds[-1].values()) > 1.1 * len(data) / 3:
            # A daemon that is slow for a moment is asked less for a while; it stays so on no machine.
            assert len(rounds) < 60, rounds
            meddler.payload_bytes.clear()
            assert fs.read_file("/spread/file") == data
            rounds.append(
                {server: size for (server, to_it), size in meddler.payload_bytes.items() if not to_it and size}
            )
            assert sum(rounds[-1].values()) >= len(data)
        assert len(rounds[-1]) == 3
        fs.rmtree("/spread")


def test_the_reads_of_a_dead_daemon_are_spread_over_the_others(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    """Of four daemons with three replicas each chain lacks another one, so that each of three takes a third."""
    cluster = fresh_cluster(storage=4, replicas=3, durability="memory", settings=())
    host, _, port = cluster.address.rpartition(":")
    with Meddler((host, int(port))) as meddler:
        with fs_client.connect(cluster.address) as plain:
            plain.mkdir("/spread", layout=Layout(chunk_size=1 << 16, stripe=4))
            data = os.urandom(288 << 16)
            plain.write_file("/spread/file", data)
            kill(cluster, "storage-1")
            wait_until(lambda: not is_healthy(cluster.address), "the manager has noticed")
        with fs_client.connect(meddler.address) as fs:
            rounds: list[dict[Address, int]] = []
            while not rounds or max(rounds[-1].values()) > 1.1 * len(data) / 3:
                assert len(rounds) < 60, rounds
                meddler.payload_bytes.clear()
                assert fs.read_file("/spread/file") == data
                seen = meddler.payload_bytes
                rounds.append({server: size for (server, to_it), size in seen.items() if not to_it and size})
            assert len(rounds[-1]) == 3
