"""Blocking calls from threads, forked and spawned processes, signal handlers, event loops and finalizers."""

import asyncio
import concurrent.futures
import gc
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import fs_client
from fs_client import FileSystem, process
from tests.client.fake_cluster import CHUNK, FakeCluster

DATA = random.Random(1).randbytes(3 * CHUNK)


def in_child(function: Callable[[], object]) -> None:
    """Run in a forked child, which must end by itself; what it raises fails the test."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            function()
            status = 0
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as text:
        said = text.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, said


# Fork


def test_parent_and_child_go_on_after_fork(fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    ref = fs.ref("/f")

    def child() -> None:
        assert fs.read_file("/f") == DATA
        assert bytes(fs.read_ranges([(ref, 5, 10)])[0]) == DATA[5:15]
        fs.write_file("/child", b"from the child")

    in_child(child)
    assert fs.read_file("/child") == b"from the child"
    assert fs.read_file("/f") == DATA


def test_a_child_may_fork_again(fs: FileSystem) -> None:
    fs.write_file("/f", DATA)

    def child() -> None:
        in_child(lambda: fs.write_file("/grandchild", b"1"))
        fs.write_file("/child", b"1")

    in_child(child)
    assert fs.listdir() == ["child", "f", "grandchild"]


def test_fork_while_other_threads_are_in_calls(fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    stop = threading.Event()
    errors: list[BaseException] = []

    def hammer() -> None:
        try:
            while not stop.is_set():
                assert fs.read_file("/f") == DATA
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            in_child(lambda: fs.write_file("/child", fs.read_file("/f")))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors and fs.read_file("/child") == DATA


def test_the_parents_connections_end_with_the_parents_descriptors(cluster: FakeCluster) -> None:
    """A child that lives on, and never uses the file system, holds none of the parent's connections."""
    fs = fs_client.connect(cluster.address)
    fs.write_file("/f", b"1")
    ended = threading.Event()
    ids = {fs._connection().core.client}

    def session_ended(session: object) -> None:
        if session.hello.client in ids:  # type: ignore[attr-defined]
            ended.set()

    cluster.metadata.service.session_ended = session_ended
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        fs.close()
        assert ended.wait(10)
    finally:
        os.close(writing)
        assert os.waitpid(child, 0)[1] == 0


def test_a_child_may_exit_in_the_ordinary_way(cluster: FakeCluster) -> None:
    """Nothing inherited is finalised, so nothing complains."""
    code = f"""
import logging, os, sys, warnings
import fs_client
logging.getLogger('asyncio').setLevel(logging.ERROR)  # not how long a step took on this machine
fs = fs_client.connect({cluster.address!r})
fs.write_file('/f', b'1')
if os.fork() == 0:
    fs.read_file('/f')
    sys.exit(0)
assert os.wait()[1] == 0
fs.read_file('/f')
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_files_across_fork(fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    writing = fs.open("/w", "wb")
    writing.write(b"of the parent")
    with fs.open("/f") as reading:
        reading.seek(CHUNK)

        def child() -> None:
            assert reading.read(10) == DATA[CHUNK : CHUNK + 10]
            with pytest.raises(OSError, match="opened for writing by the parent"):
                writing.raw.write(b"x")
            writing.close()

        in_child(child)
        assert reading.read(10) == DATA[CHUNK : CHUNK + 10]
    writing.write(b" alone")
    writing.close()
    assert fs.read_file("/w") == b"of the parent alone"


def test_multiprocessing_pools(fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(fs.read_file, ["/f"] * 4)) == [DATA] * 4


# Spawn


def read_in_another_process(fs: FileSystem, ref: fs_client.FileRef) -> bytes:
    return bytes(fs.read_ranges([(ref, 0, 10)])[0]) + fs.read_file("/f")[10:20]


def test_a_file_system_and_references_pickle(fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    copy = pickle.loads(pickle.dumps(fs))
    assert copy.options == fs.options and copy.read_file("/f") == DATA
    copy.close()
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(read_in_another_process, fs, fs.ref("/f")).result() == DATA[:20]


# Threads


def test_eight_threads_on_one_file_system(fs: FileSystem) -> None:
    def work(number: int) -> None:
        chooser = random.Random(number)
        for turn in range(15):
            data = chooser.randbytes(chooser.choice([10, 5000, CHUNK + 5]))
            name = f"/{number}-{turn}"
            with fs.open(name, "wb") as file:
                file.write(data)
            place = chooser.randrange(len(data))
            (view,) = fs.read_ranges([(name, place, 100)])
            assert bytes(view) == data[place : place + 100]
            assert fs.stat(name).st_size == len(data)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(fs.listdir()) == 8 * 15


def test_the_first_calls_of_many_threads_share_one_connection(cluster: FakeCluster) -> None:
    fs = FileSystem(fs_client.connect(cluster.address).options)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: fs.listdir(), range(8)))
        cores = {id(fs._connection().core) for _ in range(3)}
    assert len(cores) == 1
    fs.close()


def test_nothing_runs_between_calls(fs: FileSystem) -> None:
    fs.listdir()
    driver = process.driver()
    assert not driver._driven and not driver.loop.is_running()


def test_a_fork_finds_no_thread_of_ours(fs: FileSystem) -> None:
    """Python warns about fork in a process with threads."""

    async def in_a_notebook() -> None:
        fs.listdir()

    def helpers() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "emberfs"]

    asyncio.run(in_a_notebook())
    assert helpers() == ["emberfs"]
    in_child(fs.listdir)
    assert helpers() == []
    asyncio.run(in_a_notebook())
    assert helpers() == ["emberfs"]


def test_a_caller_that_is_done_leaves_the_others_running(cluster: FakeCluster, fs: FileSystem) -> None:
    """The thread that runs the loop returns while another's call is not answered; the helper runs it on."""
    fs.write_file("/f", DATA)
    daemon = cluster.storage[1]

    def close_gate() -> None:
        daemon.gate = asyncio.Event()
        daemon.arrived.clear()

    cluster.call(close_gate)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fs.read_file, "/f")

        async def at_gate() -> None:
            await daemon.arrived.wait()

        cluster.run(at_gate())
        for _ in range(3):
            assert fs.exists("/f")
        assert not slow.done()
        assert daemon.gate is not None
        cluster.call(daemon.gate.set)
        assert slow.result(10) == DATA


# Event loops


def test_blocking_calls_inside_a_running_loop(fs: FileSystem) -> None:
    """As in a notebook: the caller's own loop runs in this thread."""
    fs.write_file("/f", DATA)

    async def main() -> bytes:
        return fs.read_file("/f")

    assert asyncio.run(main()) == DATA


def test_a_blocking_call_on_the_own_loop_is_refused(fs: FileSystem) -> None:
    driver, _ = fs._connection()

    async def wrong() -> None:
        with pytest.raises(RuntimeError, match="own event loop"):
            fs.listdir()

    driver.run(wrong)
    assert fs.listdir() == []


# Interrupts


def _interrupted(cluster: FakeCluster, fs: FileSystem, call: Callable[[], object]) -> None:
    """SIGINT while `call` waits for a storage daemon."""
    daemon = cluster.storage[1]

    def close_gate() -> None:
        daemon.gate = asyncio.Event()
        daemon.arrived.clear()

    async def interrupt() -> None:
        await daemon.arrived.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    cluster.call(close_gate)
    interrupting = asyncio.run_coroutine_threadsafe(interrupt(), cluster._loop)
    with pytest.raises(KeyboardInterrupt):
        call()
    interrupting.result(10)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert daemon.gate is not None
    cluster.call(daemon.gate.set)
    daemon.gate = None


def test_an_interrupt_ends_the_call_and_leaves_the_rest_alone(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    into = bytearray(len(DATA))
    _interrupted(cluster, fs, lambda: fs.read_ranges([("/f", 0, len(DATA))], into))
    marked = bytes(into)
    assert fs.read_file("/f") == DATA
    assert into == marked


def test_an_interrupt_while_another_thread_runs_the_loop(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.write_file("/f", DATA)
    driver, _ = fs._connection()
    running = threading.Event()
    done = asyncio.Event()

    async def hold() -> None:
        running.set()
        await done.wait()

    holder = threading.Thread(target=driver.run, args=(hold,))
    holder.start()
    running.wait()
    try:
        _interrupted(cluster, fs, lambda: fs.read_file("/f"))
        assert fs.read_file("/f") == DATA
    finally:
        driver.loop.call_soon_threadsafe(done.set)
        holder.join()


def test_a_program_with_its_own_handler_keeps_it(cluster: FakeCluster, fs: FileSystem) -> None:
    seen: list[int] = []
    old = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        os.kill(os.getpid(), signal.SIGINT)
        assert fs.listdir() == []
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, old)
    assert seen == [signal.SIGINT] * 2


# Ends


def test_a_file_system_that_is_dropped_closes_its_connections(cluster: FakeCluster) -> None:
    ended = threading.Event()
    fs = fs_client.connect(cluster.address)
    fs.write_file("/f", b"1")
    cluster.metadata.service.session_ended = lambda session: ended.set()
    del fs
    gc.collect()
    assert ended.wait(10)


def test_a_leader_without_a_helper_ends_what_others_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(process, "_Helper", refuse)
    driver = process.Driver()
    leads, ended = asyncio.Event(), threading.Event()
    began = threading.Event()

    async def first() -> str:
        began.set()
        await leads.wait()
        return "first"

    async def second() -> str:
        leads.set()
        for _ in range(50):
            await asyncio.sleep(0)
        ended.set()
        return "second"

    results: list[str] = []
    threads = [threading.Thread(target=lambda one=one: results.append(driver.run(one))) for one in (first, second)]
    threads[0].start()
    assert began.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(10)
    assert ended.is_set() and sorted(results) == ["first", "second"]
    driver.submit(second)
    assert driver.run(asyncio.sleep, 0, "led again") == "led again"
    driver.stop()


def test_objects_that_outlive_the_modules_are_silent(cluster: FakeCluster) -> None:
    """Programs that import large packages end with the names of our modules gone before the objects are."""
    code = f"""
import logging, os, sys
import fs_client
from fs_client.loader import FileDataset
logging.getLogger('asyncio').setLevel(logging.ERROR)  # not how long a step took on this machine
fs = fs_client.connect({cluster.address!r})
fs.write_file('/f', b'1')
kept = [fs, fs_client.FileSystem(fs.options), fs.scandir('/'), fs.ref('/f'), fs.stat('/f'), FileDataset(fs, '/')]
for mode in ('rb', 'wb', 'ab', 'r+b', 'a+b', 'r', 'w', 'a', 'r+'):
    kept.append(fs.open('/' + mode if 'w' in mode else '/f', mode))
for mode in ('rb', 'wb', 'ab', 'r+b'):
    kept.append(fs.open('/0' + mode if 'w' in mode else '/f', mode, buffering=0))
for object in kept:
    if not isinstance(object, fs_client.FileSystem) and hasattr(object, 'write') and object.writable():
        object.write('x' if hasattr(object, 'encoding') else b'x')
os.kept = [kept, [module for name, module in sys.modules.items() if name.startswith('fs_')]]
del kept, object, fs
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    with fs_client.connect(cluster.address) as fs:
        assert fs.read_file("/w") == fs.read_file("/wb") == fs.read_file("/0wb") == b"x"


def test_threads_that_outlive_the_main_one_may_start_none(cluster: FakeCluster) -> None:
    """An interpreter that ends refuses new threads, from Python 3.12 on; here it does whatever its version."""
    code = f"""
import threading
import fs_client
fs = fs_client.connect({cluster.address!r})
files = [fs.open(f'/{{number}}', 'wb', buffering=size) for number, size in enumerate((-1, 0, 1 << 20))]

def refuse(thread):
    raise RuntimeError("can't create new thread at interpreter shutdown")

def late():
    threading.Thread.start = refuse
    fs_client.process.current().retire_helper()
    for file in files:
        file.write(b'x' * 3_000_000)
    fs.listdir()

threading.Thread(target=late).start()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    with fs_client.connect(cluster.address) as fs:
        assert [fs.read_file(f"/{number}") for number in range(3)] == [b"x" * 3_000_000] * 3
    assert not cluster.metadata.sessions


def test_an_exit_with_everything_open_is_clean_and_stores_what_was_written(cluster: FakeCluster) -> None:
    code = f"""
import threading
import fs_client
fs = fs_client.connect({cluster.address!r})
fs.write_file('/f', b'1')
writing = fs.open('/g', 'w')
writing.write('not closed')
reading = fs.open('/f')
threading.Thread(target=fs.listdir).start()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with fs_client.connect(cluster.address) as fs:
        assert fs.read_file("/g") == b"not closed"
    assert not cluster.metadata.sessions
