"""Signal handlers that raise: the call ends with what they raise, nothing is lost, and the client goes on."""

import asyncio
import gc
import os
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from fs_client import FileSystem, interrupts, process
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.client.test_process import in_child

DATA = random.Random(1).randbytes(3 * CHUNK)


class TimeIsUp(Exception):
    pass


@contextmanager
def handled(raises: Callable[[], BaseException] | None, number: int = signal.SIGALRM) -> Iterator[list[int]]:
    """Signals raise this in the main thread, for a block; yields those that did."""
    came: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if raises is not None:
            raise raises()

    old = signal.signal(number, handler)
    # Where a handler raises in a finalizer Python drops that. So the collector, which runs those of others, rests.
    gc.disable()
    try:
        yield came
    finally:
        gc.enable()
        signal.signal(number, old)


def signal_at_gate(cluster: FakeCluster, number: int = signal.SIGALRM) -> Callable[[], None]:
    """The main thread gets a signal when a read of `/f` waits for a storage daemon. Returns what opens the gate."""
    daemon = cluster.storage[1]

    def close_gate() -> None:
        daemon.gate = asyncio.Event()
        daemon.arrived.clear()

    async def send() -> None:
        await daemon.arrived.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    cluster.call(close_gate)
    sending = asyncio.run_coroutine_threadsafe(send(), cluster._loop)

    def open_gate() -> None:
        sending.result(10)
        assert daemon.gate is not None
        cluster.call(daemon.gate.set)
        daemon.gate = None

    return open_gate


@pytest.mark.parametrize("raises", [TimeIsUp, TimeoutError, RuntimeError, SystemExit, KeyboardInterrupt])
def test_many_signals_at_any_time(fs: FileSystem, raises: Callable[[], BaseException]) -> None:
    """Each ends the loop it breaks into, and what follows works."""
    fs.write_file("/f", DATA)
    chooser = random.Random(2)
    with handled(raises) as came:
        for turn in range(40):
            give_up = time.monotonic() + 30
            with pytest.raises(raises) as caught:  # type: ignore[call-overload]
                signal.setitimer(signal.ITIMER_REAL, chooser.uniform(0.0003, 0.004))
                while time.monotonic() < give_up:
                    fs.read_ranges([("/f", 0, len(DATA))])
                    fs.stat("/f")
            assert not str(caught.value) and len(came) == turn + 1, "it is the handler's own"
            assert fs.read_file("/f") == DATA


def test_a_handler_that_raises_ends_a_call_that_waits(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    into = bytearray(len(DATA))
    with handled(TimeIsUp):
        open_gate = signal_at_gate(cluster)
        with pytest.raises(TimeIsUp):
            fs.read_ranges([("/f", 0, len(DATA))], into)
        marked = bytes(into)
        open_gate()
        assert fs.read_file("/f") == DATA
    assert into == marked, "the memory is free"


def test_a_handler_raises_while_another_thread_runs_the_loop(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    driver, _ = fs._connection()
    running = threading.Event()
    done = asyncio.Event()

    async def hold() -> None:
        running.set()
        await done.wait()

    holder = threading.Thread(target=driver.run, args=(hold,))
    holder.start()
    assert running.wait(10)
    try:
        with handled(TimeIsUp):
            open_gate = signal_at_gate(cluster)
            with pytest.raises(TimeIsUp):
                fs.read_file("/f")
            open_gate()
            assert fs.read_file("/f") == DATA
    finally:
        driver.loop.call_soon_threadsafe(done.set)
        holder.join()


def test_a_handler_raises_inside_another_event_loop(cluster: FakeCluster, fs: FileSystem) -> None:
    """As in a notebook."""
    fs.write_file("/f", DATA)

    async def main() -> None:
        open_gate = signal_at_gate(cluster)
        with pytest.raises(TimeIsUp):
            fs.read_file("/f")
        open_gate()
        assert fs.read_file("/f") == DATA

    with handled(TimeIsUp):
        asyncio.run(main())


def test_a_handler_raises_in_a_forked_child(fs: FileSystem) -> None:
    fs.write_file("/f", DATA)

    def child() -> None:
        for _ in range(10):
            with pytest.raises(TimeIsUp):
                signal.setitimer(signal.ITIMER_REAL, 0.002)
                while True:
                    assert fs.read_file("/f") == DATA
            assert fs.read_file("/f") == DATA

    with handled(TimeIsUp):
        fs.stat("/f")
        in_child(child)
        assert fs.read_file("/f") == DATA


def test_a_handler_may_use_the_file_system_and_the_call_goes_on(cluster: FakeCluster, fs: FileSystem) -> None:
    """As one that saves a checkpoint when the machine is about to be taken away."""
    fs.write_file("/f", DATA)
    opened: list[Callable[[], None]] = []

    def save(number: int, frame: FrameType | None) -> None:
        fs.write_file("/saved", b"checkpoint")
        threading.Thread(target=opened[0]).start()

    old = signal.signal(signal.SIGTERM, save)
    try:
        opened.append(signal_at_gate(cluster, signal.SIGTERM))
        assert fs.read_file("/f") == DATA
    finally:
        signal.signal(signal.SIGTERM, old)
    assert fs.read_file("/saved") == b"checkpoint"


def test_without_handlers_the_caller_runs_the_loop_itself(fs: FileSystem) -> None:
    process.driver().retire_helper()
    fs.stat("/")
    assert process.driver()._helper is None
    with handled(None):
        fs.stat("/")
        assert process.driver()._helper is not None, "a handler may raise in the main thread, so another one runs it"


def test_what_handlers_there_are() -> None:
    assert interrupts.look() is interrupts.Handlers.INTERRUPT
    with handled(None, signal.SIGUSR1):
        assert interrupts.look() is interrupts.Handlers.PROGRAM
    old = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        assert interrupts.look() is interrupts.Handlers.NONE
        signal.signal(signal.SIGRTMAX, signal.default_int_handler)
        assert interrupts.look() is interrupts.Handlers.PROGRAM, "it raises at another signal"
        signal.signal(signal.SIGRTMAX, signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGINT, old)


def test_deferred_handlers_run_at_the_end_and_are_back() -> None:
    with handled(TimeIsUp) as came:
        handler = signal.getsignal(signal.SIGALRM)
        ended = False
        with pytest.raises(TimeIsUp):
            with interrupts.Deferred():
                signal.raise_signal(signal.SIGALRM)
                signal.raise_signal(signal.SIGALRM)
                assert not came
                ended = True
        assert ended and came == [signal.SIGALRM]
        with handled(TimeoutError, signal.SIGUSR1) as others:
            with pytest.raises(TimeoutError), interrupts.Deferred():
                signal.raise_signal(signal.SIGALRM)
                signal.raise_signal(signal.SIGUSR1)
            assert others == [signal.SIGUSR1] and came == [signal.SIGALRM] * 2, "one that raises hides no other"
        assert signal.getsignal(signal.SIGALRM) is handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_machine_without_another_thread_defers_handlers(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the interpreter ends."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(process, "_Helper", refuse)
    driver = process.Driver()

    async def signalled() -> None:
        os.kill(os.getpid(), signal.SIGALRM)
        await asyncio.sleep(0)

    with handled(TimeIsUp):
        with pytest.raises(TimeIsUp):
            driver.run(signalled)
        assert driver.run(asyncio.sleep, 0, "next") == "next"
        driver.stop()


def test_a_handler_that_raises_at_exit_leaves_nothing_undone() -> None:
    class Closing:
        """Stands for a file."""

        def __init__(self, error: BaseException | None) -> None:
            self.error = error
            self.closed = False

        def close(self) -> None:
            self.closed = True
            if self.error is not None:
                raise self.error

    files = [Closing(None), Closing(SystemExit(3)), Closing(None), Closing(KeyboardInterrupt())]
    driver = process.Driver()
    driver.close_at_exit = {number: weakref.ref(file) for number, file in enumerate(files)}  # type: ignore[misc]
    with pytest.raises(SystemExit):
        driver.stop()
    assert all(file.closed for file in files) and driver.loop.is_closed()


def test_a_child_forked_by_another_thread_has_pythons_own_handler(cluster: FakeCluster, fs: FileSystem) -> None:
    """While the main thread is in a call, SIGINT has another handler, which nobody takes away in such a child."""
    fs.write_file("/f", DATA)
    errors: list[BaseException] = []

    def check_handler() -> None:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def fork() -> None:
        try:
            in_child(check_handler)
        except BaseException as error:
            errors.append(error)

    driver, _ = fs._connection()
    release = asyncio.Event()

    def work() -> None:
        fork()
        driver.loop.call_soon_threadsafe(release.set)

    async def wait() -> None:
        threading.Thread(target=work).start()
        await release.wait()

    driver.run(wait)
    assert not errors
