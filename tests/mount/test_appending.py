"""Appends: what a WRITE's own flags and offset ask for, and records that are longer than one request."""

import asyncio
import contextlib
import errno
import inspect
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client.fuse import abi, answers, append, kernel_size
from fs_client.fuse.files import File
from fs_client.fuse.handles import Handle
from fs_client.fuse.mount import Mount
from fs_client.fuse.nodes import Node
from fs_client.fuse.ops import data
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.methods import Method
from tests.mount.test_files import INODE, Data, NoKernel, Service, Storage, opened
from tests.support import run

LONGEST = 1000


class Ready(Service):
    """Answers at once."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Method] = []

    async def call(self, method: Method, request: Any, **more: Any) -> Any:
        if self.gone:
            return await super().call(method, request, **more)
        self.calls.append(method)
        asking = asyncio.ensure_future(super().call(method, request, **more))
        (await self.next(method))()
        return await asking

    def locks(self) -> int:
        return self.calls.count(methods.LOCK) - self.calls.count(methods.RELEASE_LOCKS)


class Appender:
    """A program that writes through one descriptor of a file, and the kernel below it."""

    def __init__(self, mount: Mount, service: Ready, storage: Storage, file: File, handle: Handle) -> None:
        self.mount, self.service, self.storage, self.file, self.handle = mount, service, storage, file, handle
        self._write = data.handlers(mount)[abi.Opcode.WRITE]

    async def write(self, offset: int, size: int, flags: int = os.O_APPEND, write_flags: int = 0) -> tuple[int, int]:
        """Where it was stored."""
        payload = Data(size)
        request = SimpleNamespace(
            body=abi.WRITE_IN.pack(self.handle.number, offset, size, write_flags, 0, os.O_WRONLY | flags),
            pid=1,
            uid=0,
            take_data=lambda: payload,
        )
        result = self._write(request)  # type: ignore[arg-type]
        assert (await result if inspect.isawaitable(result) else result) == answers.write_out(size)
        await self.file.back.flush()
        return self.storage.stored[-1]


@contextlib.contextmanager
def appender(length: int, *, others: int = 0) -> Iterator[Appender]:
    """A file of `length` bytes, as the kernel knows; other clients have appended `others` since."""
    with opened() as (mount, _, storage, file, handle):
        service = Ready()
        mount.fs.metadata = service  # type: ignore[assignment]
        mount.channel.negotiated = SimpleNamespace(max_write=LONGEST)  # type: ignore[assignment]
        file.ref.length = service.length = length
        kernel_size.told(file.node, length)
        service.length += others
        yield Appender(mount, service, storage, file, handle)
        service.gone = True


def test_the_flags_of_each_write_count() -> None:
    """fcntl(F_SETFL) takes O_APPEND away, and sets it."""

    async def scenario() -> None:
        with appender(10, others=7) as program:
            program.handle.append = True
            assert await program.write(2, 3, flags=0) == (2, 5)
            assert await program.write(10, 3) == (17, 20)
            kernel = program.mount.channel
            assert isinstance(kernel, NoKernel)
            assert kernel.dropped == [(INODE, 10, 3)], "the kernel's page of it is not where it is"
            assert await program.write(12, 1, flags=0) == (12, 13)

    run(scenario())


def test_sync_is_a_flag_of_the_write_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        with appender(10) as program:
            synced: list[File] = []

            async def make_durable(file: File) -> None:
                synced.append(file)

            monkeypatch.setattr(program.mount, "make_durable", make_durable)
            await program.write(2, 3, flags=0)
            assert not synced
            await program.write(2, 3, flags=os.O_DSYNC)
            assert synced == [program.file]

    run(scenario())


def test_a_page_that_the_kernel_kept_goes_where_it_lies() -> None:
    async def scenario() -> None:
        with appender(10, others=7) as program:
            assert await program.write(0, 10, flags=0, write_flags=abi.WRITE_CACHE) == (0, 10)

    run(scenario())


def test_an_offset_that_is_not_the_end_is_the_programs_own() -> None:
    """RWF_NOAPPEND."""

    async def scenario() -> None:
        with appender(10) as program:
            assert await program.write(2, 3) == (2, 5)
            assert await program.write(10, 2) == (10, 12)
            assert await program.write(10, 1) == (10, 11), "the end is 12 by now"
            assert await program.write(12, 1) == (12, 13)

    run(scenario())


def test_an_end_that_others_have_moved_is_an_end() -> None:
    async def scenario() -> None:
        with appender(10, others=90) as program:
            assert await program.write(10, 5) == (100, 105)
            assert await program.write(15, 5) == (105, 110)
            kernel_size.told(program.file.node, 110)
            assert await program.write(20, 5) == (110, 115), "the answer may have crossed the write"

    run(scenario())


def test_lengths_that_the_kernel_may_believe() -> None:
    node = Node(7)
    assert kernel_size.appends(node, 5), "nothing is known: it is an append"
    node = Node(7)
    kernel_size.told(node, 10)
    assert not kernel_size.appends(node, 5)
    kernel_size.told(node, 20)
    kernel_size.told(node, 20)
    kernel_size.told(node, 30)
    assert node.sizes == (30, 20, 10), "each of the answers may have crossed a write"
    kernel_size.wrote(node, 5, 20)
    assert node.sizes == (30, 25)
    assert kernel_size.appends(node, 25) and node.sizes == (25,)
    kernel_size.told(node, 40)
    kernel_size.wrote(node, 40, 1)
    assert node.sizes == (41,)
    for size in range(100):
        kernel_size.told(node, size)
    assert len(node.sizes) == kernel_size.KEPT_MAX
    kernel_size.cut(node, 3)
    assert node.sizes == (3,)
    kernel_size.wrote(node, 3, 0)
    kernel_size.wrote(node, 3, 4)
    assert node.sizes == (7,)


def test_a_record_of_several_requests_keeps_the_lock() -> None:
    async def scenario() -> None:
        with appender(10) as program:
            service = program.service
            for part, size in enumerate((LONGEST, LONGEST - 100, 50)):
                assert await program.write(10 + part * LONGEST - (100 if part == 2 else 0), size)
                assert service.locks() == (part < 2), part
            assert service.calls.count(methods.LOCK) == 1
            assert program.storage.stored == [(10, 1010), (1010, 1910), (1910, 1960)]

    run(scenario())


def test_another_append_does_not_go_under_a_lock_that_is_kept_for_a_record() -> None:
    async def scenario() -> None:
        with appender(10) as program:
            await program.write(10, LONGEST)
            program.handle = program.mount.handles.open_file(program.file, os.O_WRONLY, program.handle.user, b"")
            await program.write(10 + LONGEST, 5)
            assert program.service.calls.count(methods.LOCK) == 2 and program.service.locks() == 0

    run(scenario())


def test_a_lock_that_is_kept_is_given_up_when_nothing_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append, "LINGER_S", 0.001)

    async def scenario() -> None:
        with appender(10) as program:
            await program.write(10, LONGEST)
            while program.service.locks():
                await asyncio.sleep(0.001)
            await program.mount.quiet()
            assert not program.file.append_lock.locked

    run(scenario())


def test_a_lock_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append, "HOLD_MAX_S", 0.0)

    async def scenario() -> None:
        with appender(10) as program:
            for part in range(3):
                await program.write(10 + part * LONGEST, LONGEST)
            assert program.service.calls.count(methods.LOCK) == 3 and program.service.locks() == 1

    run(scenario())


def test_the_end_gives_up_what_is_kept() -> None:
    async def scenario() -> None:
        with appender(10) as program:
            await program.write(10, LONGEST)
            assert program.service.locks() == 1
            assert not await program.mount.flush_all()
            assert program.service.locks() == 0

    run(scenario())


def test_a_cut_within_a_record_is_seen() -> None:
    """By another client: what follows goes to the end that the file has then."""

    async def scenario() -> None:
        with appender(10) as program:
            await program.write(10, LONGEST)
            program.service.length, program.service.version = 3, 100
            program.mount.nodes.told([INODE], [])
            assert await program.write(10 + LONGEST, 5) == (3, 8)

    run(scenario())


def test_the_end_of_its_descriptor_gives_up_what_is_kept() -> None:
    """Not that of another one, in the middle of a record."""

    async def scenario() -> None:
        with appender(10) as program:
            mount, file = program.mount, program.file
            other = mount.handles.open_file(file, os.O_RDONLY, program.handle.user, b"")
            await program.write(10, LONGEST)
            await mount.close_handle(other)
            assert program.service.locks() == 1
            await mount.close_handle(program.handle)
            assert program.service.locks() == 0 and not file.append_lock.locked

    run(scenario())


# The lease of the lock

LEASE_S = 20.0


class Clock:
    """The mount's clock."""

    def __init__(self, program: Appender) -> None:
        self.now = 1000.0
        program.service.lease_ms = int(LEASE_S * 1000)
        program.mount.now = lambda: self.now


async def _lost(program: Appender, size: int = 5) -> None:
    with pytest.raises(EmberError) as caught:
        await program.write(10, size)
    assert caught.value.code is Code.LOCK_LOST and caught.value.errno == errno.EIO


def _when_asked(program: Appender, method: Method, act: Callable[[], None]) -> None:
    """`act` before the first call of this method is answered."""
    call = program.service.call
    acted = False

    async def acting(called: Method, request: Any, **more: Any) -> Any:
        nonlocal acted
        if called is method and not acted:
            acted = True
            act()
        return await call(called, request, **more)

    program.service.call = acting  # type: ignore[method-assign]


@pytest.mark.parametrize("held", [True, False])
def test_an_append_that_is_settled_after_the_lease_counts_only_if_the_lock_was_held(held: bool) -> None:
    """Cut off from the service alone, the client has stored its bytes where somebody else has by now."""

    async def scenario() -> None:
        with appender(10) as program:
            clock = Clock(program)

            def pass_time() -> None:
                clock.now += LEASE_S
                program.service.lock_held = held

            _when_asked(program, methods.FSYNC, pass_time)
            if held:
                assert await program.write(10, 5) == (10, 15)
            else:
                await _lost(program)
            assert not program.file.append_lock.locked

    run(scenario())


def test_an_append_within_the_lease_asks_nobody() -> None:
    async def scenario() -> None:
        with appender(10) as program:
            clock = Clock(program)
            program.service.lock_held = False

            def pass_time() -> None:
                clock.now += LEASE_S - 0.001

            _when_asked(program, methods.FSYNC, pass_time)
            assert await program.write(10, 5) == (10, 15)
            assert program.service.locks() == 0

    run(scenario())


def test_a_lock_whose_answer_comes_after_its_lease_is_taken_anew() -> None:
    """It counts from before the request was sent: the service has not surely heard of the mount since."""

    async def scenario() -> None:
        with appender(10) as program:
            clock = Clock(program)

            def pass_time() -> None:
                clock.now += LEASE_S

            _when_asked(program, methods.LOCK, pass_time)
            assert await program.write(10, 5) == (10, 15)
            assert program.service.calls.count(methods.LOCK) == 2 and program.service.calls.count(methods.FSYNC) == 1

    run(scenario())


def test_nothing_is_sent_to_the_daemons_after_the_lease() -> None:
    async def scenario() -> None:
        with appender(10) as program:
            clock = Clock(program)
            left: list[float] = []
            write = program.storage.write

            async def writes(*given: Any, lease_left_s: Callable[[], float], **more: Any) -> None:
                left.append(lease_left_s())
                clock.now += LEASE_S + 5  # suspended
                left.append(lease_left_s())
                await write(*given, **more)

            program.storage.write = writes  # type: ignore[method-assign]
            program.service.lock_held = False
            await _lost(program)
            assert left == [LEASE_S, -5]

    run(scenario())


def test_a_lock_that_is_kept_for_a_record_is_not_used_to_its_end() -> None:
    async def scenario() -> None:
        with appender(10) as program:
            clock = Clock(program)
            await program.write(10, LONGEST)
            clock.now += LEASE_S - append.LEASE_LEFT_S
            await program.write(10 + LONGEST, 5)
            assert program.service.calls.count(methods.LOCK) == 2

    run(scenario())


def test_the_time_that_is_shown_of_an_append_is_the_one_that_is_reported() -> None:
    """Else the mtime would go back a little when the service has answered."""

    async def scenario() -> None:
        with appender(10) as program:
            reported: list[int] = []
            shown: list[int] = []
            call = program.service.call

            async def look(method: Method, request: Any, **more: Any) -> Any:
                if method is methods.FSYNC:
                    reported.append(request.mtime_ns)
                    shown.append(program.file.mtime_ns)
                return await call(method, request, **more)

            program.service.call = look  # type: ignore[method-assign]
            await program.write(10, 5)
            assert shown == reported and shown[0] > 0

    run(scenario())
