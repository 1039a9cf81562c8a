"""Mode `a`: bytes go to the end of the file wherever that is by then, whoever else appends, and each once."""

import asyncio
import concurrent.futures
import contextlib
import errno
import random
import signal
import threading
from types import FrameType

import pytest

import fs_client
from fs_client import FileSystem, aio, file_layers, raw_file, write_gather
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.methods import Method
from fs_common.records.storage import UpdateItem
from tests.client.breaking_in import BreakingIn, Interrupted
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.client.test_interrupts import TimeIsUp, handled
from tests.support import run


@pytest.mark.parametrize("buffering", [0, -1])
def test_two_handles_take_turns(fs: FileSystem, buffering: int) -> None:
    fs.write_file("/f", b"")
    with fs.open("/f", "ab", buffering=buffering) as one, fs.open("/f", "ab", buffering=buffering) as two:
        for file, line in ((one, b"A1\n"), (two, b"B1\n"), (one, b"A2\n"), (two, b"B2\n")):
            file.write(line)
            file.flush()
            assert file.tell() == fs.getsize("/f")
    assert fs.read_file("/f") == b"A1\nB1\nA2\nB2\n"


def test_several_clients_lose_no_line(cluster: FakeCluster) -> None:
    """Some with a buffer, some without; each line stays in one piece."""

    def append(number: int) -> None:
        with fs_client.connect(cluster.address) as fs:
            with fs.open("/log", "a", encoding="ascii") if number % 2 else fs.open("/log", "ab", 0) as file:
                for turn in range(10):
                    line = f"{number}:{turn}:{'x' * 50}\n"
                    file.write(line if number % 2 else line.encode())
                    file.flush()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(4)))
    with fs_client.connect(cluster.address) as fs:
        lines = fs.read_file("/log").decode().splitlines()
    assert sorted(lines) == sorted(f"{number}:{turn}:{'x' * 50}" for number in range(4) for turn in range(10))
    for number in range(4):
        assert [line for line in lines if line.startswith(f"{number}:")] == [
            f"{number}:{turn}:{'x' * 50}" for turn in range(10)
        ]


def test_a_buffer_is_one_append(cluster: FakeCluster, fs: FileSystem) -> None:
    with fs.open("/f", "ab") as file:
        for _ in range(1000):
            file.write(b"0123456789")
    names = [name for name, _ in cluster.metadata.calls]
    assert names.count("lock") == names.count("release_locks") == names.count("fsync") == 1
    assert fs.read_file("/f") == b"0123456789" * 1000 and not cluster.metadata.append_locks


def test_an_append_goes_behind_what_others_wrote_and_cut(fs: FileSystem) -> None:
    with fs.open("/f", "a+b") as file:
        file.write(b"one")
        file.flush()
        with fs.open("/f", "r+b") as other:
            other.seek(0, 2)
            other.write(b"two")
        file.write(b"three")
        file.flush()
        assert fs.read_file("/f") == b"onetwothree" and file.tell() == 11
        fs.truncate("/f", 2)
        file.write(b"!")
        file.flush()
        assert fs.read_file("/f") == b"on!"
        file.seek(0)
        assert file.read() == b"on!"


def test_an_append_goes_behind_what_the_same_file_wrote_elsewhere(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs:
            async with await fs.open("/f", "wb") as file:
                await file.write_at(10, b"ten")
                await asyncio.gather(*(file.append(bytes([65 + number]) * 3) for number in range(5)))
                assert file.length == 28
            assert await fs.read_file("/f") == bytes(10) + b"tenAAABBBCCCDDDEEE"

    run(main())


def test_a_lock_whose_answer_was_lost_is_given_up(cluster: FakeCluster, fs: FileSystem) -> None:
    cluster.metadata.lost_lock_replies = 1
    released = cluster.when_called("release_locks")
    with fs.open("/f", "ab", buffering=0) as file:
        with pytest.raises(OSError, match="seems not to be"):
            file.write(b"x")
        assert released.wait(10)
        with fs_client.connect(cluster.address) as other, other.open("/f", "ab", buffering=0) as another:
            another.write(b"another")
        file.write(b"mine")
    assert fs.read_file("/f") == b"anothermine"


def test_a_call_that_waits_for_the_lock_may_be_cancelled(cluster: FakeCluster) -> None:
    """It appends nothing, and the lock is not left with it."""

    async def main() -> None:
        async with await aio.connect(cluster.address) as fs, await aio.connect(cluster.address) as other:
            async with await fs.open("/f", "ab") as file, await other.open("/f", "ab") as another:
                await other.append_locks.take(another.inode, "/f")
                arrived = cluster.when_called("lock")
                waiting = asyncio.ensure_future(file.append(b"never"))
                await asyncio.to_thread(arrived.wait, 10)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                await other.append_locks.release(another.inode)
                await another.append(b"another")
                await file.append(b"file")
            assert await fs.read_file("/f") == b"anotherfile"
        assert not cluster.metadata.append_locks

    run(main())


def test_a_cancelled_append_that_had_begun_ends(cluster: FakeCluster) -> None:
    async def main() -> None:
        daemon = cluster.storage[1]

        def close_gate() -> None:
            daemon.gate = asyncio.Event()

        async def arrived() -> None:
            await daemon.arrived.wait()

        async with await aio.connect(cluster.address) as fs, await fs.open("/f", "ab") as file:
            cluster.call(close_gate)
            ends: list[int] = []
            appending = asyncio.ensure_future(file.append(b"x" * 3 * CHUNK, ends.append))
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(arrived(), cluster._loop))
            appending.cancel()
            assert daemon.gate is not None
            cluster._loop.call_soon_threadsafe(daemon.gate.set)
            with pytest.raises(asyncio.CancelledError):
                await appending
            assert ends == [3 * CHUNK] == [file.length]
        assert not cluster.metadata.append_locks

    run(main())


def test_a_failed_append_is_not_written_over_and_the_lock_is_free(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.write_file("/f", b"head")
    file = fs.open("/f", "ab", buffering=0)
    for daemon in cluster.storage.values():
        daemon.update_fault = lambda item: EmberError(Code.NO_SPACE, "full")
    with pytest.raises(OSError, match="full"):
        file.write(b"lost")
    for daemon in cluster.storage.values():
        daemon.update_fault = lambda item: None
    assert file.write(b"tail") == 4 and file.tell() == 8
    file.close()
    assert fs.read_file("/f") == b"headtail" and not cluster.metadata.append_locks


@pytest.mark.parametrize(("mode", "buffering"), [("ab", 4096), ("wb", 4096), ("ab", 0)])
def test_a_writer_that_is_broken_into_at_any_place(fs: FileSystem, mode: str, buffering: int) -> None:
    """Wherever in its code a handler raises: what it took by its position is stored, once and in order. Behind that may
    lie what a write that did not return has stored already; nothing of an append."""
    modules = raw_file, file_layers, write_gather
    chooser = random.Random(7)
    pieces = [chooser.randbytes(size) for size in (1000, 100, CHUNK + 4100, 3000)]
    place = 0
    while True:
        name = f"/{place}"
        file = fs.open(name, mode, buffering)
        breaking_in = BreakingIn(place, *modules)
        taken = failed = b""
        for piece in pieces:
            before = file.tell()
            with contextlib.suppress(Interrupted), breaking_in:
                file.write(piece)
            if file.tell() == before:
                failed = taken + piece
            else:
                assert file.tell() == before + len(piece)
                taken += piece
            with contextlib.suppress(Interrupted), breaking_in:
                file.flush()
        with contextlib.suppress(Interrupted), breaking_in:
            file.close()
        file.close()
        stored = fs.read_file(name)
        behind = b"" if "a" in mode else failed[len(taken) :]
        assert stored.startswith(taken) and behind.startswith(stored[len(taken) :]), place
        if not breaking_in.happened:
            break
        place += 1
    assert place > 30 and stored == b"".join(pieces)


@pytest.mark.parametrize("mode", ["ab", "wb"])
def test_interrupted_writers_write_each_line_once_and_in_order(fs: FileSystem, mode: str) -> None:
    """Signals at any time. Whether a line was taken that was being written when time was up shows by the position."""
    chooser = random.Random(5)
    written = []
    with handled(TimeIsUp):
        file = fs.open("/log", mode)
        try:
            for number in range(60):
                line = b"%d:%s\n" % (number, b"x" * chooser.randrange(20_000))
                before = file.tell()
                try:
                    signal.setitimer(signal.ITIMER_REAL, chooser.uniform(0.0002, 0.003))
                    file.write(line)
                    file.flush()
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except TimeIsUp:
                    pass
                if file.tell() != before:
                    assert file.tell() == before + len(line)
                    written.append(line)
        finally:
            file.close()
    assert fs.read_file("/log") == b"".join(written)


@pytest.mark.parametrize("mode", ["a", "w"])
def test_interrupted_writers_of_text_neither_tear_nor_repeat_lines(fs: FileSystem, mode: str) -> None:
    chooser = random.Random(6)
    with handled(TimeIsUp):
        file = fs.open("/log", mode)
        try:
            for number in range(60):
                line = f"{number}:{'x' * chooser.randrange(20_000)}\n"
                with contextlib.suppress(TimeIsUp):
                    signal.setitimer(signal.ITIMER_REAL, chooser.uniform(0.0002, 0.003))
                    file.write(line)
                    file.flush()
                    signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            file.close()
    chooser = random.Random(6)
    sizes = []
    for _ in range(60):
        sizes.append(chooser.randrange(20_000))
        chooser.uniform(0.0002, 0.003)
    numbers = []
    for line in fs.read_file("/log").decode().splitlines():
        number, _, rest = line.partition(":")
        assert rest == "x" * sizes[int(number)]
        numbers.append(int(number))
    assert numbers == sorted(set(numbers))


def test_a_close_that_is_broken_into_goes_on(cluster: FakeCluster, fs: FileSystem) -> None:
    opened = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeIsUp

    old = signal.signal(signal.SIGALRM, stop)
    try:
        file = fs.open("/f", "wb")
        file.write(b"x" * (2 * CHUNK + 5))
        daemon = cluster.storage[1]

        def close_gate() -> None:
            daemon.gate = asyncio.Event()

        async def interrupt() -> None:
            await daemon.arrived.wait()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
            await asyncio.to_thread(opened.wait, 10)
            assert daemon.gate is not None
            daemon.gate.set()

        cluster.call(close_gate)
        sending = asyncio.run_coroutine_threadsafe(interrupt(), cluster._loop)
        with pytest.raises(TimeIsUp):
            file.close()
        assert file.closed
        opened.set()
        sending.result(10)
        assert fs.read_file("/f") == b"x" * (2 * CHUNK + 5), "the next call comes after it"
        assert not cluster.metadata.sessions
    finally:
        signal.signal(signal.SIGALRM, old)
    assert methods.CLOSE.name in [name for name, _ in cluster.metadata.calls]


# The lease of the lock


class Lease:
    """The client's clock of leases, which a call of the metadata service may move past the end."""

    def __init__(
        self, cluster: FakeCluster, fs: FileSystem, during: str, *, lost: bool = False, by_s: float = 20
    ) -> None:
        self.now = 1000.0
        fs.exists("/")
        assert fs._connected is not None
        fs._connected.core.append_locks.now = lambda: self.now
        metadata = cluster.metadata
        before = metadata.fault
        passed = False

        def look(method: Method) -> EmberError | None:
            nonlocal passed
            if method.name == during and not passed:
                passed = True
                self.now += by_s
                if lost:
                    metadata.append_locks.clear()
            return before(method)

        metadata.fault = look


@pytest.mark.parametrize("lost", [False, True])
def test_an_append_that_outlives_its_lease_counts_only_if_the_lock_was_held(
    cluster: FakeCluster, fs: FileSystem, lost: bool
) -> None:
    """Who is cut off from the service alone stores its bytes where somebody else has by now."""
    Lease(cluster, fs, "fsync", lost=lost)
    with fs.open("/f", "ab", 0) as file:
        if lost:
            with pytest.raises(OSError, match="cut off") as caught:
                file.write(b"line")
            assert caught.value.errno == errno.EIO
        else:
            assert file.write(b"line") == 4
        assert not cluster.metadata.append_locks
        assert file.write(b"next") == 4


def test_an_append_within_its_lease_asks_nobody(cluster: FakeCluster, fs: FileSystem) -> None:
    Lease(cluster, fs, "fsync", lost=True, by_s=19.9)
    with fs.open("/f", "ab", 0) as file:
        assert file.write(b"line") == 4


def test_a_lock_whose_answer_comes_after_its_lease_is_taken_anew(cluster: FakeCluster, fs: FileSystem) -> None:
    Lease(cluster, fs, "lock")
    with fs.open("/f", "ab", 0) as file:
        assert file.write(b"line") == 4
    names = [name for name, _ in cluster.metadata.calls]
    assert names.count("lock") == 2 and names.count("release_locks") == 1


def test_nothing_is_appended_after_the_lease(cluster: FakeCluster, fs: FileSystem) -> None:
    lease = Lease(cluster, fs, "")

    def suspended(item: UpdateItem) -> EmberError | None:
        lease.now += 100
        return EmberError(Code.CHAIN_BROKEN, "the connection broke")

    with fs.open("/f", "ab", 0) as file:
        for daemon in cluster.storage.values():
            daemon.update_fault = suspended
        with pytest.raises(OSError, match="connection broke"):
            file.write(b"line")
        assert lease.now == 1100, "it was sent once"
        for daemon in cluster.storage.values():
            daemon.update_fault = lambda item: None
