"""An open file's length while the service is being told of it: answers that cross, in an order that is chosen here."""

import asyncio
import contextlib
import inspect
import os
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client.file_ref import FileRef
from fs_client.fuse import abi, answers, files
from fs_client.fuse.append import append
from fs_client.fuse.files import File
from fs_client.fuse.handles import Handle
from fs_client.fuse.mount import Mount
from fs_client.fuse.ops import opening, space
from fs_client.fuse.policy import Policy
from fs_client.unsynced import Unsynced
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.methods import Method
from fs_common.records import meta
from fs_common.records.locks import LockReply, ReleaseLocksReply
from tests.support import run

INODE = 7
WRITE = 1
"""O_WRONLY"""
TURNS_MAX = 1000
"""Of the event loop."""


class Data:
    def __init__(self, size: int) -> None:
        self.view = memoryview(bytes(size))

    def release(self) -> None:
        pass


class Request:
    pid = 0

    def __init__(self, size: int) -> None:
        self._data = Data(size)

    def take_data(self) -> Data:
        return self._data


class Service:
    """The metadata service: knows a file's length, and answers only when it is told to."""

    def __init__(self) -> None:
        self.length = 0
        self.version = 0
        self.gone = False
        self.lease_ms = 0
        self.lock_held = True
        """Locks that are given up had not been taken away."""
        self.asked: list[tuple[Method, Any, asyncio.Future[Any]]] = []

    async def call(self, method: Method, request: Any, **_: Any) -> Any:
        if self.gone:
            raise EmberError(Code.UNREACHABLE, "the test is over")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked.append((method, request, future))
        return await future

    def attributes(self) -> meta.Attributes:
        return meta.Attributes(
            INODE, meta.FileType.FILE, 0o644, 0, 0, 1, self.length, 0, 0, 0, Layout(), version=self.version
        )

    async def has_been_asked(self, times: int = 1) -> None:
        """As soon as everybody waits who could go on, it has been."""
        for _ in range(TURNS_MAX):
            if len(self.asked) >= times:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"asked {self.asked}, expected {times} calls")

    async def next(self, method: Method) -> Callable[[], None]:
        """Wait for the next call, carry it out, and return what sends its answer."""
        await self.has_been_asked()
        asked, request, future = self.asked.pop(0)
        assert asked is method, asked
        if isinstance(request, meta.Fsync) and request.written_end > self.length:
            self.length = request.written_end
            self.version += 1
        attributes = self.attributes()
        reply: Any = meta.AttributesReply(attributes)
        if method is methods.LOCK:
            reply = LockReply(attributes, self.lease_ms)
        elif method is methods.RELEASE_LOCKS:
            reply = ReleaseLocksReply(self.lock_held)
        elif method is methods.OPEN:
            reply = meta.OpenReply(attributes, b"another session", True)
        return lambda: future.set_result(reply)


class Storage:
    """Stores at once, or when `open` is set; remembers where."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.fault: Callable[[int], EmberError | None] = lambda offset: None
        """Raised instead of storing."""
        self.stored: list[tuple[int, int]] = []
        self.bytes: set[int] = set()
        """Which ones came."""

    async def write_pieces(self, ref: Any, pieces: Any, acknowledged: Callable[[int], None]) -> None:
        for offset, view in pieces:
            await self.write(ref, offset, view, acknowledged)

    async def write(
        self, ref: Any, offset: int, view: memoryview, acknowledged: Callable[[int], None], **_: Any
    ) -> None:
        await self.open.wait()
        fault = self.fault(offset)
        if fault is not None:
            raise fault
        self.stored.append((offset, offset + len(view)))
        self.bytes |= set(view)
        acknowledged(offset + len(view))


class Reader:
    """Reads bytes of 1; `before` happens while a read is under way."""

    def __init__(self) -> None:
        self.before: Callable[[], None] = lambda: None

    async def read(self, ranges: list[tuple[FileRef, int, int]], into: memoryview) -> list[memoryview]:
        self.before()
        ((ref, offset, size),) = ranges
        size = max(min(size, ref.length - offset), 0)
        into[:size] = b"\1" * size
        return [into[:size]]


class FileSystem:
    client = b"client"
    options = SimpleNamespace(timeout_s=0.001)

    def __init__(self) -> None:
        self.metadata = Service()
        self.writer = Storage()
        self.storage = SimpleNamespace(unsynced=Unsynced())
        self.reader = Reader()

    def request_id(self) -> bytes:
        return b"request"


class NoKernel:
    """In the place of the channel: notes of what the kernel is told."""

    def __init__(self) -> None:
        self.negotiated: Any = None
        self.dropped: list[tuple[int, int, int]] = []

    def notify_inval_inode(self, node: int, offset: int = 0, length: int = 0) -> bool:
        self.dropped.append((node, offset, length))
        return True


@contextlib.contextmanager
def opened() -> Iterator[tuple[Mount, Service, Storage, File, Handle]]:
    fs = FileSystem()
    mount = Mount(fs, Policy())  # type: ignore[arg-type]
    mount.channel = NoKernel()  # type: ignore[assignment]
    service = fs.metadata
    file = mount.file(service.attributes())
    handle = mount.handles.open_file(file, WRITE, meta.User(), b"session")
    try:
        yield mount, service, fs.writer, file, handle
    finally:
        # Who is still waiting in a test that failed is not answered any more.
        service.gone = mount.closing = True


def write(mount: Mount, file: File, offset: int, size: int) -> None:
    file.back.add(offset, Data(size), mount.now())
    file.wrote(offset + size)


def test_an_answer_from_before_does_not_shorten_what_is_being_told() -> None:
    async def scenario() -> None:
        with opened() as (mount, service, _, file, _):
            write(mount, file, 0, 100)
            settling = asyncio.ensure_future(file.settle())
            await service.has_been_asked()
            # The service looks before it carries the other call out, which was sent first.
            asking = asyncio.ensure_future(mount.fresh_attributes(file.node))
            await service.has_been_asked(2)
            service.asked.reverse()
            (await service.next(methods.STAT))()
            await asking
            assert file.length == 100
            assert file.shown(service.attributes())[0] == 100
            (await service.next(methods.FSYNC))()
            await settling
            assert file.length == service.length == 100

    run(scenario())


def test_an_answer_that_a_change_has_crossed_is_asked_for_again() -> None:
    async def scenario() -> None:
        with opened() as (mount, service, _, file, _):
            asking = asyncio.ensure_future(mount.fresh_attributes(file.node))
            crossed = await service.next(methods.STAT)
            mount.nodes.change(INODE)
            service.length, service.version = 50, 1
            crossed()
            (await service.next(methods.STAT))()
            node = await asking
            assert node.attributes is not None and node.attributes.length == 50

    run(scenario())


def test_where_changes_never_stop_the_last_answer_is_shown_and_not_believed() -> None:
    async def scenario() -> None:
        with opened() as (mount, service, _, file, _):
            asking = asyncio.ensure_future(mount.fresh_attributes(file.node))
            while not asking.done():
                service.length += 10
                crossed = await service.next(methods.STAT)
                mount.nodes.change(INODE)
                crossed()
                for _ in range(10):
                    await asyncio.sleep(0)
            node = asking.result()
            assert node.attributes is not None and node.attributes.length == service.length
            assert not mount.nodes.fresh(node, mount.now())

    run(scenario())


def test_who_closes_waits_for_what_is_being_told() -> None:
    async def scenario() -> None:
        with opened() as (mount, service, _, file, _):
            write(mount, file, 0, 100)
            settling = asyncio.ensure_future(file.settle())
            await service.has_been_asked()
            assert file.dirty
            second = asyncio.ensure_future(file.settle())
            answer = await service.next(methods.FSYNC)
            assert not second.done()
            answer()
            await asyncio.gather(settling, second)
            assert not file.dirty and not service.asked

    run(scenario())


def test_an_append_goes_behind_a_write_that_was_told_of_meanwhile() -> None:
    async def scenario() -> None:
        with opened() as (mount, service, storage, file, handle):
            appending = asyncio.ensure_future(append(mount, Request(10), handle, 0))  # type: ignore[arg-type]
            lock = await service.next(methods.LOCK)
            write(mount, file, 0, 100)
            settling = asyncio.ensure_future(file.settle())
            (await service.next(methods.FSYNC))()
            await settling
            lock()
            (await service.next(methods.STAT))()
            (await service.next(methods.FSYNC))()
            (await service.next(methods.RELEASE_LOCKS))()
            await appending
            assert storage.stored == [(0, 100), (100, 110)]
            assert file.length == service.length == 110

    run(scenario())


def test_a_copy_ends_where_its_source_was_cut_meanwhile() -> None:
    """What the memory for it held before does not get into a file."""

    async def scenario() -> None:
        with opened() as (mount, _, storage, file, handle):
            file.ref.length = 10_000
            reader = mount.fs.reader
            assert isinstance(reader, Reader)
            used = mount.pool.take(5000)
            used.view[:] = b"\2" * 5000
            used.release()

            def cut() -> None:
                file.ref.length = 3000

            reader.before = cut
            body = abi.COPY_FILE_RANGE_IN.pack(handle.number, 1000, INODE, handle.number, 20_000, 5000, 0)
            request = SimpleNamespace(body=body, uid=0)
            answer = space.handlers(mount)[abi.Opcode.COPY_FILE_RANGE](request)  # type: ignore[arg-type]
            assert inspect.isawaitable(answer)
            assert await answer == answers.write_out(2000)
            await file.back.flush()
            assert storage.stored == [(20_000, 22_000)]
            assert storage.bytes == {1}

    run(scenario())


def test_an_open_knows_what_others_did_before_it_though_a_close_crosses_it() -> None:
    async def scenario() -> None:
        with opened() as (mount, service, _, _, handle):
            closing = asyncio.ensure_future(mount.close_handle(handle))
            close = await service.next(methods.CLOSE)
            service.length, service.version = 50, 1
            request = SimpleNamespace(
                body=abi.OPEN_IN.pack(os.O_RDONLY, 0), node=INODE, uid=0, gid=0, pid=1, extensions=b""
            )
            opening_ = opening.handlers(mount)[abi.Opcode.OPEN](request)  # type: ignore[arg-type]
            answering = asyncio.ensure_future(opening_)  # type: ignore[arg-type]
            open_ = await service.next(methods.OPEN)
            close()
            await closing
            open_()
            (await service.next(methods.STAT))()
            await answering
            node = mount.nodes.node(INODE)
            assert node.file is not None and node.file.length == 50
            assert node.attributes is not None and node.attributes.length == 50

    run(scenario())


def test_what_another_changed_is_not_taken_for_a_change_of_this_mount() -> None:
    """A close that has nothing to tell changes nothing: the one change that it learns of is another's."""

    async def scenario() -> None:
        with opened() as (mount, service, _, file, handle):
            mount.handles.open_file(file, os.O_RDONLY, meta.User(), b"")
            file.node.cached_version = file.node.told_version = 0
            closing = asyncio.ensure_future(mount.close_handle(handle))
            await service.has_been_asked()
            service.version = 1
            (await service.next(methods.CLOSE))()
            await closing
            assert file.version == 1
            assert file.node.cached_version == file.node.told_version == 0

    run(scenario())


def test_own_writes_leave_what_is_cached() -> None:
    async def scenario() -> None:
        with opened() as (mount, service, _, file, _):
            file.node.cached_version = 0
            write(mount, file, 0, 100)
            settling = asyncio.ensure_future(file.settle())
            (await service.next(methods.FSYNC))()
            await settling
            assert file.version == file.node.cached_version == 1

    run(scenario())


def test_bytes_that_another_has_changed_are_not_kept_though_a_change_of_this_mount_learns_of_it() -> None:
    """The next open finds the version known already: nothing else would drop what the daemon kept."""

    async def scenario() -> None:
        with opened() as (mount, service, _, file, handle):
            handle.direct = True
            mount.cache.agree(file.inode, file.version, file.length)
            write(mount, file, 0, 4096)
            settling = asyncio.ensure_future(file.settle())
            (await service.next(methods.FSYNC))()
            await settling
            assert mount.cache.get(INODE, 0, 0, 4096) == bytes(4096)
            write(mount, file, 8192, 100)
            await file.back.flush()
            service.version, service.length = service.version + 1, 5000
            settling = asyncio.ensure_future(file.settle())
            (await service.next(methods.FSYNC))()
            await settling
            assert file.length == 8292
            assert mount.cache.get(INODE, 0, 0, 4096) is None

    run(scenario())


def test_the_lease_of_promises_runs_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else names and attributes would be believed after a suspend that the service lets others change by then."""
    seconds = {time.CLOCK_BOOTTIME: 100.0, time.CLOCK_MONOTONIC: 100.0}
    monkeypatch.setattr(time, "clock_gettime", lambda clock: seconds[clock])

    async def scenario() -> None:
        with opened() as (mount, _, _, _, _):
            before = mount.now()
            seconds[time.CLOCK_BOOTTIME] += 3600
            assert mount.now() == before + 3600

    run(scenario())


class Slow(Service):
    """Does not answer a change in time so many times; answers others, or not."""

    def __init__(self, mount: Mount, times: int, *, others: bool) -> None:
        super().__init__()
        self._mount, self._times, self._others = mount, times, others
        self.requests: list[Any] = []

    async def call(self, method: Method, request: Any, **_: Any) -> Any:
        self.requests.append(request)
        if len(self.requests) <= self._times:
            if self._others:
                self._mount.heard_at = self._mount.loop.time() + 1
            raise EmberError(Code.TIMED_OUT, "no answer in time")
        return meta.AttributesReply(self.attributes())


@pytest.mark.parametrize(
    ("method", "times", "others", "made"),
    [
        (methods.TRUNCATE, 2, True, True),
        (methods.TRUNCATE, 1, False, False),
        (methods.TRUNCATE, 10**9, True, False),
        (methods.STAT, 1, True, False),
        (methods.FSYNC, 1, True, False),
        (methods.CLOSE, 1, True, True),
    ],
)
def test_a_change_is_waited_for_while_the_service_answers_others(
    method: Method, times: int, others: bool, made: bool
) -> None:
    """Under its own id: it is sent, and may be made however late."""

    async def scenario() -> None:
        with opened() as (mount, _, _, _, _):
            mount.fs.options.timeout_s = 0.001 if times > 2 else 1000.0  # type: ignore[misc]
            service = mount.fs.metadata = Slow(mount, times, others=others)  # type: ignore[assignment]
            request = meta.Truncate(INODE, 5, b"its id", meta.User(), b"")
            with contextlib.nullcontext() if made else pytest.raises(EmberError, match="in time"):
                await mount.call(method, request)
            assert all(sent is request for sent in service.requests)
            assert len(service.requests) == times + 1 if made else len(service.requests) >= 1

    run(scenario())


def test_what_is_refused_for_good_is_not_tried_again_in_the_background() -> None:
    """But by who has something to say about it: another write, or a close."""

    async def scenario() -> None:
        with opened() as (mount, service, _, file, _):
            now = 100.0
            mount.now = lambda: now
            mount.begin()
            assert mount._ticking is not None
            mount._ticking.cancel()

            async def tick() -> None:
                nonlocal now
                for _ in range(3):
                    now += files.SETTLE_AGE_S
                    mount._tick()
                    assert mount._ticking is not None
                    mount._ticking.cancel()
                    for _ in range(20):
                        await asyncio.sleep(0)

            async def refuse() -> None:
                _, _, answer = service.asked.pop(0)
                answer.set_exception(EmberError(Code.KV_FULL, "no room"))
                for _ in range(20):
                    await asyncio.sleep(0)

            write(mount, file, 0, 100)
            await file.back.flush()
            await tick()
            await refuse()
            await tick()
            assert not service.asked and file in mount.writing
            write(mount, file, 100, 100)
            await file.back.flush()
            await tick()
            await refuse()
            await tick()
            assert not service.asked
            file.handles.clear()
            file.refused_at_ns = -1
            await tick()
            assert not service.asked and file not in mount.writing, "nobody has it open"
            for task in mount._kept:
                task.cancel()
            await mount.following.close()

    run(scenario())
