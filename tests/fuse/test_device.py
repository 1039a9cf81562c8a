"""The channel with the real kernel at its other end."""

import asyncio
import contextlib
import errno
import fcntl
import mmap
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.limits.empty_fuse import FILE_NODE, NAME, EmptyFileSystem
from fs_client.fuse import abi, answers, mountpoint, requests
from fs_client.fuse.abi import Opcode
from fs_client.fuse.callers import is_ending
from fs_client.fuse.channel import Channel, End
from fs_client.fuse.kernel_request import Request, Result
from fs_client.fuse.mountpoint import MountError
from tests.fuse.mounting import mounted, needs_mount, settings
from tests.support import run

pytestmark = [pytest.mark.system, needs_mount]

MIB = 1 << 20
OVER = (End.UNMOUNTED, End.ABORTED)
"""At the last close after a lazy unmount. Linux 6.18 now and then says the second while other mounts come and go."""


@pytest.fixture
def files() -> EmptyFileSystem:
    return EmptyFileSystem(16 * MIB)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory to mount on, that is nobody's mount point afterwards."""
    path = tmp_path / "mount"
    path.mkdir()
    yield path
    while mountpoint.find(str(path)):
        mountpoint.unmount(str(path), lazy=True, force=True)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fs_client.fuse.in_work.INTERRUPT_GRACE_S", 0.01)
    monkeypatch.setattr("fs_client.fuse.in_work.SWEEP_INTERVAL_S", 0.01)


class Waiting:
    """A handler that notes that it was called and waits until it is told its result."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.began: asyncio.Future[Request] = loop.create_future()
        self.result: asyncio.Future[Result] = loop.create_future()
        self.outcome: asyncio.Future[str] = loop.create_future()

    async def __call__(self, request: Request) -> Result:
        if not self.began.done():
            self.began.set_result(request)
        try:
            result = await asyncio.shield(self.result)
        except asyncio.CancelledError:
            if not self.outcome.done():
                self.outcome.set_result("cancelled")
            raise
        if not self.outcome.done():
            self.outcome.set_result("done")
        return result


async def program(code: str, *arguments: str) -> asyncio.subprocess.Process:
    """Another process that runs this."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """What blocks until this loop has answered."""
    return await asyncio.to_thread(function, *arguments)


def test_programs_use_it(files: EmptyFileSystem, place: Path) -> None:
    written: list[tuple[int, bytes]] = []

    def write(request: Request) -> bytes:
        assert request.data is not None
        written.append((requests.parse_write(request.body).offset, bytes(request.data.view)))
        return files.write(request)

    def use() -> None:
        file = place / os.fsdecode(NAME)
        status = file.stat()
        assert (status.st_ino, status.st_size, stat.filemode(status.st_mode)) == (FILE_NODE, 16 * MIB, "-rw-rw-rw-")
        with pytest.raises(FileNotFoundError):
            (place / "no such name").stat()
        with open(file, "rb", buffering=0) as opened:
            assert opened.read(5000) == files._data[:5000]
            assert len(os.pread(opened.fileno(), MIB, 16 * MIB - 100)) == 100
        memory = mmap.mmap(-1, 2 * MIB)
        memory[:] = os.urandom(2 * MIB)
        descriptor = os.open(place / "new", os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o644)
        assert os.pwrite(descriptor, memory, 0) == 2 * MIB
        os.close(descriptor)
        assert [(offset, len(data)) for offset, data in sorted(written)] == [(0, MIB), (MIB, MIB)]
        assert b"".join(data for _, data in sorted(written)) == memory[:]
        assert sorted(os.listdir(place)) == ["file", "new"]
        (place / "new").unlink()
        assert os.listdir(place) == ["file"]
        assert os.statvfs(place).f_namemax == 255
        with pytest.raises(OSError) as caught:
            (place / "directory").mkdir()
        assert caught.value.errno == errno.ENOSYS

    async def test() -> None:
        async with mounted(place, {**files.handlers(), Opcode.WRITE: write}) as channel:
            assert channel.negotiated is not None
            assert channel.negotiated.max_write == MIB
            entry = mountpoint.find(str(place))
            assert entry is not None
            assert (entry.type, entry.source) == ("fuse.emberfs", "127.0.0.1:9700")
            await in_thread(use)
            figures = {figures.name: figures for figures in channel.counters.figures()}
            assert figures["write"].count == 2
            assert figures["mkdir"].errors == 1
            assert channel._memory.bytes_held == 0

    run(test())


def test_many_requests_at_once(files: EmptyFileSystem, place: Path) -> None:
    """Whatever order answers come in, each goes to who asked."""

    async def read(request: Request) -> bytes:
        asked = requests.parse_read(request.body)
        await asyncio.sleep(asked.offset % 7 / 10_000)
        return asked.offset.to_bytes(8, "little") * (asked.size // 8)

    def use(first: int) -> None:
        buffer = mmap.mmap(-1, 4096)
        descriptor = os.open(place / "file", os.O_RDONLY | os.O_DIRECT)
        for offset in range(first * 4096, 8 * MIB, 128 * 4096):
            assert os.preadv(descriptor, [buffer], offset) == 4096
            assert buffer[:] == offset.to_bytes(8, "little") * 512
        os.close(descriptor)

    async def test() -> None:
        async with mounted(place, {**files.handlers(), Opcode.READ: read}):
            await asyncio.gather(*(in_thread(use, first) for first in range(16)))

    run(test())


READ = """
import os, sys
os.read(os.open(sys.argv[1], os.O_RDONLY), 4096)
"""
LOCK = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX)"
INTERRUPTED = """
import fcntl, signal, sys
def ring(*_): raise TimeoutError
signal.signal(signal.SIGUSR1, ring)
try:
    fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX)
except TimeoutError:
    print('rang')
"""


@pytest.mark.usefixtures("short_grace")
def test_a_program_that_waits_for_an_answer_can_be_killed(files: EmptyFileSystem, place: Path) -> None:
    def open_(request: Request) -> bytes:
        # Without the page cache: who waits for a page is killed without a word to us.
        return answers.open_out(request.node, abi.FOPEN_DIRECT_IO)

    async def test() -> None:
        read = Waiting()
        async with mounted(place, {**files.handlers(), Opcode.READ: read, Opcode.OPEN: open_}) as channel:
            reader = await program(READ, str(place / "file"))
            await read.began
            reader.kill()
            assert await reader.wait() == -signal.SIGKILL
            assert await read.outcome == "cancelled"
            assert channel.counters.interrupts >= 1

    run(test())


def test_a_wait_for_a_lock_ends_at_once_by_a_signal(
    files: EmptyFileSystem, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fs_client.fuse.in_work.INTERRUPT_GRACE_S", 1e9)

    async def test() -> None:
        for code, number, output in ((LOCK, signal.SIGTERM, b""), (INTERRUPTED, signal.SIGUSR1, b"rang\n")):
            lock = Waiting()
            async with mounted(place, {**files.handlers(), Opcode.SETLKW: lock}):
                locker = await program(code, str(place / "file"))
                request = await lock.began
                assert requests.parse_lock(request.body).type == fcntl.F_WRLCK
                locker.send_signal(number)
                told, _ = await locker.communicate()
                assert told == output
                assert await lock.outcome == "cancelled"

    run(test())


CLOSE = """
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: None)
os.close(os.open(sys.argv[1], os.O_RDONLY))
print('closed')
"""


@pytest.mark.usefixtures("short_grace")
def test_a_signal_that_is_handled_does_not_spoil_a_close(files: EmptyFileSystem, place: Path) -> None:
    async def test() -> None:
        flush = Waiting()
        async with mounted(place, {**files.handlers(), Opcode.FLUSH: flush}) as channel:
            closing = await program(CLOSE, str(place / "file"))
            request = await flush.began
            closing.send_signal(signal.SIGUSR1)
            while not request.interrupted:
                await asyncio.sleep(0.001)
            assert not is_ending(request.pid)
            flush.result.set_result(None)
            told, _ = await closing.communicate()
            assert told == b"closed\n"
            assert channel.counters.gave_up == 0

    run(test())


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT])
def test_a_program_that_waits_in_a_close_can_be_killed(
    files: EmptyFileSystem, place: Path, number: signal.Signals
) -> None:
    async def test() -> None:
        flush = Waiting()
        async with mounted(place, {**files.handlers(), Opcode.FLUSH: flush}):
            closing = await program(CLOSE, str(place / "file"))
            await flush.began
            closing.send_signal(number)
            assert await closing.wait() == -number
            flush.result.set_result(None)
            assert await flush.outcome == "done"

    run(test())


@pytest.mark.usefixtures("short_grace")
def test_an_operation_has_a_deadline(files: EmptyFileSystem, place: Path) -> None:
    async def test() -> None:
        read = Waiting()
        async with mounted(place, {**files.handlers(), Opcode.READ: read}, timeout_s=0.1):
            with pytest.raises(TimeoutError):
                await in_thread((place / "file").read_bytes)
            assert await read.outcome == "cancelled"

    run(test())


def test_notifications_wait_without_holding_up_answers(files: EmptyFileSystem, place: Path) -> None:
    """The kernel keeps a directory locked while a look-up in it waits for us, and wants the same lock for the entry
    that it is told to forget."""

    async def test() -> None:
        slow = Waiting()

        def lookup(request: Request) -> Any:
            return slow(request) if requests.parse_lookup(request.body) == b"slow" else files.lookup(request)

        async with mounted(place, {**files.handlers(), Opcode.LOOKUP: lookup}) as channel:
            await in_thread(os.stat, place / "file")
            looking = asyncio.create_task(in_thread(os.path.exists, place / "slow"))
            await slow.began
            assert channel.notify_inval_entry(abi.ROOT_ID, NAME)
            assert channel.notify_inval_inode(FILE_NODE)
            told = asyncio.create_task(channel.notified())
            # Others are served although the first notification hangs in the kernel.
            assert (await in_thread(os.statvfs, place)).f_namemax == 255
            await channel.notify_attributes(FILE_NODE)
            assert not looking.done() and not told.done()
            slow.result.set_result(answers.no_entry_out(0))
            assert await looking is False
            await told

    run(test())


def test_invalidated_names_and_pages_are_asked_for_again(files: EmptyFileSystem, place: Path) -> None:
    content = [b"a"]

    def read(request: Request) -> bytes:
        return content[0] * requests.parse_read(request.body).size

    def open_(request: Request) -> bytes:
        return answers.open_out(request.node, abi.FOPEN_KEEP_CACHE)

    handlers = {**files.handlers(), Opcode.READ: read, Opcode.OPEN: open_}

    def begin() -> bytes:
        with open(place / "file", "rb", buffering=0) as file:
            return file.read(1)

    async def test() -> None:
        async with mounted(place, handlers) as channel:
            assert await in_thread(begin) == b"a"
            content[0] = b"b"
            assert await in_thread(begin) == b"a", "the kernel keeps pages"
            channel.notify_inval_inode(FILE_NODE)
            await channel.notified()
            assert await in_thread(begin) == b"b"
            channel.notify_store(FILE_NODE, 0, memoryview(b"stored"))
            await channel.notified()
            assert await in_thread(begin) == b"s"
            lookups = channel.counters.operations[Opcode.LOOKUP]
            before = lookups.count
            channel.notify_inval_entry(abi.ROOT_ID, NAME)
            channel.notify_inval_entry(abi.ROOT_ID, b"never heard of")
            channel.notify_delete(abi.ROOT_ID, 99, b"nor this")
            await channel.notified()
            await in_thread(begin)
            assert lookups.count == before + 1

    run(test())


def test_unmounting_while_it_is_used(files: EmptyFileSystem, place: Path) -> None:
    async def test() -> None:
        ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        async with mounted(place, files.handlers(), on_end=ended.set_result) as channel:
            descriptor = await in_thread(os.open, place / "file", os.O_RDONLY)
            with pytest.raises(MountError, match=r"is in use; .*emberfs umount --lazy") as caught:
                await in_thread(mountpoint.unmount, str(place))
            assert caught.value.errno == errno.EBUSY
            await in_thread(lambda: mountpoint.unmount(str(place), lazy=True))
            assert mountpoint.find(str(place)) is None
            assert await in_thread(os.pread, descriptor, 10, 0) == files._data[:10]
            assert channel.ended is None
            await in_thread(os.close, descriptor)
            assert await ended in OVER
            assert channel.ended is ended.result()

    run(test())


def test_unmounting_by_force_frees_who_hangs(files: EmptyFileSystem, place: Path) -> None:
    async def test() -> None:
        ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        read = Waiting()
        async with mounted(place, {**files.handlers(), Opcode.READ: read}, on_end=ended.set_result):
            reading = asyncio.create_task(in_thread((place / "file").read_bytes))
            await read.began
            await in_thread(lambda: mountpoint.unmount(str(place), force=True))
            with pytest.raises(OSError) as caught:
                await reading
            assert caught.value.errno in (errno.ECONNABORTED, errno.ENOTCONN)
            assert await ended is End.UNMOUNTED
            assert await read.outcome == "cancelled"

    if os.geteuid() != 0:
        pytest.skip("only root may abort")
    run(test())


def test_a_closed_channel_leaves_errors_instead_of_waits(files: EmptyFileSystem, place: Path) -> None:
    async def test() -> None:
        async with mounted(place, files.handlers()) as channel:
            await channel.close()
            for operation in (os.stat, os.listdir):
                with pytest.raises(OSError) as caught:
                    await in_thread(operation, place)
                assert caught.value.errno == errno.ENOTCONN

    run(test())


def test_a_successor_answers_what_was_left(files: EmptyFileSystem, place: Path) -> None:
    """A restarted daemon: the same descriptor, what was agreed, and nothing lost of what programs wait for."""

    async def test() -> None:
        read = Waiting()
        async with mounted(place, {**files.handlers(), Opcode.READ: read}) as first:
            agreed = await first.ready()
            if not agreed.has(abi.INIT_HAS_RESEND):
                pytest.skip("the kernel sends nothing again (before Linux 6.9)")
            file = await in_thread(os.open, place / "file", os.O_RDONLY)
            reading = asyncio.create_task(in_thread(os.pread, file, 10, 0))
            await read.began
            descriptor = await first.detach(grace_s=0.0)
            second = Channel(descriptor, files.handlers(), negotiated=agreed)
            second.start()
            assert second.notify_resend()
            assert await reading == files._data[:10]
            assert (await in_thread(os.stat, place / "file")).st_ino == FILE_NODE
            await in_thread(os.close, file)
            with contextlib.suppress(OSError):
                await in_thread(lambda: mountpoint.unmount(str(place), lazy=True))
            await second.close()

    run(test())


def test_a_read_only_mount_is_read_only(files: EmptyFileSystem, place: Path) -> None:
    async def test() -> None:
        async with mounted(place, files.handlers(), kernel=settings(flags=frozenset({"ro", "nosuid", "nodev"}))):
            with pytest.raises(OSError) as caught:
                await in_thread((place / "new").touch)
            assert caught.value.errno == errno.EROFS
            assert len(await in_thread((place / "file").read_bytes)) == 16 * MIB

    run(test())
