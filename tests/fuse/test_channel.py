"""The channel: who gets what answer, and when."""

import asyncio
import errno
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_client.fuse import abi, requests
from fs_client.fuse.abi import Opcode
from fs_client.fuse.channel import REQUESTS_PER_TURN, Channel, End
from fs_client.fuse.kernel_request import LATER, Later, Request, Result
from fs_client.fuse.negotiation import KernelTooOld, Wanted
from tests.fuse.fake_kernel import AGREED, MAX_WRITE, Answer, connected
from tests.support import run

KIB = 1024


def read_body(size: int = 4096, offset: int = 0) -> bytes:
    return abi.READ_IN.pack(1, offset, size, 0, 0, 0)


# INIT


def init_body(major: int = 7, minor: int = 45, flags: int = 2**43 - 1) -> bytes:
    flags |= abi.INIT_INIT_EXT
    return abi.INIT_IN.pack(major, minor, 128 * KIB, flags & (2**32 - 1), flags >> 32)


def test_init_is_answered_and_what_is_agreed_is_known() -> None:
    async def test() -> None:
        async with connected({}, negotiated=None) as (channel, kernel):
            kernel.send(Opcode.INIT, init_body())
            agreed = await channel.ready()
            answer = await kernel.answer()
            assert answer.error == 0
            fields = dict(zip(abi.INIT_OUT.fields, abi.INIT_OUT.unpack(answer.body), strict=True))
            assert (fields["major"], fields["minor"]) == (7, 45)
            assert fields["max_write"] == agreed.max_write == MAX_WRITE
            assert fields["flags"] | fields["flags2"] << 32 == agreed.flags
            assert channel.negotiated is agreed

    run(test())


def test_a_newer_major_version_is_asked_to_come_again_in_ours() -> None:
    async def test() -> None:
        async with connected({}, negotiated=None) as (channel, kernel):
            kernel.send(Opcode.INIT, init_body(major=8, minor=1))
            assert abi.INIT_OUT.unpack((await kernel.answer()).body)[:2] == (7, abi.MINOR_MAX)
            assert channel.negotiated is None
            kernel.send(Opcode.INIT, init_body(minor=50))
            await kernel.answer()
            assert (await channel.ready()).minor == abi.MINOR_MAX

    run(test())


def test_a_kernel_that_is_too_old_is_told_and_so_is_the_daemon() -> None:
    async def test() -> None:
        async with connected({}, negotiated=None) as (channel, kernel):
            kernel.send(Opcode.INIT, init_body(minor=30)[: abi.INIT_IN_SHORT.size])
            assert (await kernel.answer()).error == errno.EPROTO
            with pytest.raises(KernelTooOld, match=r"FUSE 7\.30; 7\.31 .* is needed"):
                await channel.ready()

    run(test())


def test_a_mount_that_ends_before_it_begins_is_an_error_for_who_waits() -> None:
    async def test() -> None:
        async with connected({}, negotiated=None) as (channel, kernel):
            kernel.close()
            with pytest.raises(ConnectionError, match="ended before it began"):
                await channel.ready()

    run(test())


# Answers


PIECES = [bytes([number % 256]) * (number % 7) for number in range(3000)]


@pytest.mark.parametrize(
    ("result", "body"),
    [
        (b"body", b"body"),
        (b"", b""),
        (None, b""),
        (memoryview(b"some memory"), b"some memory"),
        ([b"in", memoryview(b" several "), b"pieces"], b"in several pieces"),
        ((b"a", b"b"), b"ab"),
        ([], b""),
        (PIECES, b"".join(PIECES)),
    ],
    ids=["bytes", "no bytes", "none", "memory", "list", "tuple", "no pieces", "more pieces than one write takes"],
)
@pytest.mark.parametrize("way", ["at once", "first step", "task", "later"])
def test_results(result: Result, body: bytes, way: str) -> None:
    async def test() -> None:
        waiting: list[Request] = []

        def at_once(request: Request) -> Result:
            return result

        async def first_step(request: Request) -> Result:
            return result

        async def task(request: Request) -> Result:
            await asyncio.sleep(0)
            return result

        def later(request: Request) -> Later:
            waiting.append(request)
            return LATER

        handler = {"at once": at_once, "first step": first_step, "task": task, "later": later}[way]
        async with connected({Opcode.READLINK: handler}) as (channel, kernel):
            unique = kernel.send(Opcode.READLINK)
            if way == "later":
                await kernel.settled()
                channel.answer(waiting[0], result)
            assert await kernel.answer() == Answer(unique, 0, body)
            assert channel.in_work == 0
            counters = channel.counters.operations[Opcode.READLINK]
            assert (counters.count, counters.errors, sum(counters.buckets)) == (1, 0, 1)

    run(test())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError(errno.ENOENT, "no such name"), errno.ENOENT),
        (OSError("without number"), errno.EIO),
        (OSError(512, "not for programs"), errno.EIO),
        (OSError(-2, "negative"), errno.EIO),
        (ZeroDivisionError("a defect"), errno.EIO),
        (requests.ProtocolError("name", "wrong"), errno.EIO),
        (asyncio.CancelledError(), errno.EIO),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("way", ["at once", "first step", "task", "later"])
def test_errors(error: BaseException, code: int, way: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        waiting: list[Request] = []

        def at_once(request: Request) -> Result:
            raise error

        async def first_step(request: Request) -> Result:
            raise error

        async def task(request: Request) -> Result:
            await asyncio.sleep(0)
            raise error

        def later(request: Request) -> Later:
            waiting.append(request)
            return LATER

        handler = {"at once": at_once, "first step": first_step, "task": task, "later": later}[way]
        async with connected({Opcode.READLINK: handler}) as (channel, kernel):
            unique = kernel.send(Opcode.READLINK)
            if way == "later":
                await kernel.settled()
                channel.fail(waiting[0], code)
            assert await kernel.answer() == Answer(unique, code, b"")
            counters = channel.counters.operations[Opcode.READLINK]
            assert (counters.count, counters.errors, channel.in_work) == (1, 1, 0)

    run(test())
    defect = not isinstance(error, OSError | asyncio.CancelledError) and way != "later"
    assert ("READLINK of node 1 failed by a defect" in caplog.text) == defect


def test_operations_without_handler() -> None:
    async def test() -> None:
        async with connected({}) as (channel, kernel):
            for opcode in (Opcode.READLINK, Opcode.SETUPMAPPING, 7, 1000, 2**32 - 1):
                unique = kernel.send(opcode)
                assert await kernel.answer() == Answer(unique, errno.ENOSYS, b"")
            for opcode in (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.NOTIFY_REPLY):
                kernel.send(opcode, bytes(40))
            await kernel.settled()
            assert kernel.nothing(), "they have no answer"
            assert channel.counters.operations[Opcode.FORGET].count == 1

    run(test())


def test_operations_without_answer_get_none() -> None:
    async def test() -> None:
        seen = []

        def forget(request: Request) -> None:
            seen.append((request.node, requests.parse_forget(request.body)))
            if request.node == 6:
                raise OSError(errno.EIO, "nobody hears it")

        async with connected({Opcode.FORGET: forget}) as (_, kernel):
            kernel.send(Opcode.FORGET, abi.FORGET_IN.pack(3), node=5)
            kernel.send(Opcode.FORGET, abi.FORGET_IN.pack(1), node=6)
            await kernel.settled()
            assert seen == [(5, 3), (6, 1)]
            assert kernel.nothing()

    run(test())


def test_what_a_handler_sees() -> None:
    async def test() -> None:
        seen: list[Request] = []

        def handler(request: Request) -> None:
            seen.append(request)

        long_name = b"n" * 255 + b"\0"
        groups = abi.EXT_HEADER.pack(16, abi.EXT_GROUPS) + abi.SUPP_GROUPS.pack(1) + (1234).to_bytes(4, "little")
        async with connected(dict.fromkeys((Opcode.LOOKUP, Opcode.MKDIR), handler)) as (_, kernel):
            unique = kernel.send(Opcode.LOOKUP, b"name\0", node=9)
            kernel.send(Opcode.LOOKUP, long_name)
            kernel.send(Opcode.MKDIR, abi.MKDIR_IN.pack(0o755, 0o22) + long_name, extensions=groups)
            kernel.send(Opcode.MKDIR, abi.MKDIR_IN.pack(0o755, 0o22) + b"d\0", extensions=groups)
            for _ in range(4):
                await kernel.answer()
        first = seen[0]
        assert (first.unique, first.opcode, first.node, first.uid, first.gid, first.pid) == (
            unique, Opcode.LOOKUP, 9, 1000, 100, 77,
        )  # fmt: skip
        assert (requests.parse_lookup(first.body), first.data, first.groups()) == (b"name", None, ())
        assert requests.parse_lookup(seen[1].body) == long_name[:-1], "bodies outlive the requests after them"
        assert (requests.parse_mkdir(seen[2].body).name, seen[2].groups()) == (long_name[:-1], (1234,))
        assert (requests.parse_mkdir(seen[3].body), seen[3].groups()) == ((0o755, 0o22, b"d"), (1234,))

    run(test())


def test_requests_that_wait_do_not_hold_up_others() -> None:
    async def test() -> None:
        gate = asyncio.get_running_loop().create_future()

        async def slow(request: Request) -> bytes:
            await gate
            return b"slow"

        async with connected({Opcode.READLINK: slow, Opcode.STATFS: lambda request: b"fast"}) as (channel, kernel):
            first = kernel.send(Opcode.READLINK)
            second = kernel.send(Opcode.STATFS)
            assert (await kernel.answer()).unique == second
            assert channel.in_work == 1
            gate.set_result(None)
            assert await kernel.answer() == Answer(first, 0, b"slow")

    run(test())


def test_reads_of_one_turn_are_gathered() -> None:
    async def test() -> None:
        gathered: list[Request] = []
        batches: list[int] = []

        def read(request: Request) -> Later:
            gathered.append(request)
            return LATER

        async with connected({Opcode.READ: read}, start=False) as (channel, kernel):

            def turn_done() -> None:
                batches.append(len(gathered))
                for request in gathered:
                    channel.answer(request, b"x" * requests.parse_read(request.body).size)
                gathered.clear()

            channel.turn_done = turn_done
            count = 2 * REQUESTS_PER_TURN + 10
            sent = [kernel.send(Opcode.READ, read_body(size)) for size in range(count)]
            channel.start()
            got = [await kernel.answer() for _ in range(count)]
            assert [(answer.unique, len(answer.body)) for answer in got] == list(zip(sent, range(count), strict=True))
            assert sum(batches) == count
            assert max(batches) == REQUESTS_PER_TURN, "a turn has an end, so that others on the loop have theirs"

    run(test())


def test_an_answer_is_given_once() -> None:
    async def test() -> None:
        waiting: list[Request] = []

        def later(request: Request) -> Later:
            waiting.append(request)
            return LATER

        unwanted: list[tuple[int, Result]] = []
        async with connected({Opcode.OPEN: later}) as (channel, kernel):
            channel.unwanted = lambda request, result: unwanted.append((request.unique, result))
            unique = kernel.send(Opcode.OPEN, bytes(8))
            await kernel.settled()
            channel.answer(waiting[0], b"first")
            channel.fail(waiting[0], errno.EIO)
            channel.answer(waiting[0], b"second")
            assert await kernel.answer() == Answer(unique, 0, b"first")
            await kernel.settled()
            assert kernel.nothing()
            assert unwanted == [(unique, b"second")]

    run(test())


def test_an_answer_that_the_kernel_refuses_becomes_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits gets an end, even where the answer is longer than the kernel wants it."""
    import os

    write = os.write

    def refusing(file: int, message: Any) -> int:
        if len(message) > 100:
            raise OSError(errno.EINVAL, "Invalid argument")
        return write(file, message)

    async def test() -> None:
        async with connected({Opcode.READLINK: lambda request: b"x" * 200}) as (channel, kernel):
            monkeypatch.setattr(os, "write", refusing)
            unique = kernel.send(Opcode.READLINK)
            assert await kernel.answer() == Answer(unique, errno.EIO, b"")
            monkeypatch.setattr(os, "write", write)
            assert channel.in_work == 0

    run(test())


# Interrupts and deadlines


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("fs_client.fuse.in_work.INTERRUPT_GRACE_S", 0.01)
    monkeypatch.setattr("fs_client.fuse.in_work.WITHDRAW_S", 0.01)
    monkeypatch.setattr("fs_client.fuse.in_work.SWEEP_INTERVAL_S", 0.01)
    yield


class Waiting:
    """A handler that waits until it is told to go on, and notes how it ended."""

    def __init__(self, *, open_ended: bool = False) -> None:
        self.gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.request: Request | None = None
        self._open_ended = open_ended

    async def __call__(self, request: Request) -> bytes:
        self.request = request
        if self._open_ended:
            request.open_ended = True
        try:
            await self.gate
        except asyncio.CancelledError:
            self.outcome.set_result("cancelled")
            raise
        self.outcome.set_result("done")
        return b"result"


@pytest.mark.parametrize("opcode", [Opcode.SETLKW, Opcode.WRITE])
def test_a_wait_for_others_ends_at_once_when_interrupted(opcode: Opcode, monkeypatch: pytest.MonkeyPatch) -> None:
    # A grace that never ends shows that it is not used.
    monkeypatch.setattr("fs_client.fuse.in_work.INTERRUPT_GRACE_S", 1e9)

    async def test() -> None:
        handler = Waiting(open_ended=opcode is Opcode.WRITE)
        async with connected({opcode: handler}) as (channel, kernel):
            unique = kernel.send(opcode, bytes(48))
            kernel.interrupt(unique)
            assert await kernel.answer() == Answer(unique, errno.EINTR, b"")
            assert await handler.outcome == "cancelled"
            assert (channel.in_work, channel.counters.interrupts, channel.counters.gave_up) == (0, 1, 1)

    run(test())


@pytest.mark.usefixtures("short_grace")
def test_an_interrupted_read_is_cancelled_after_its_grace() -> None:
    async def test() -> None:
        handler = Waiting()
        async with connected({Opcode.READ: handler}) as (_, kernel):
            unique = kernel.send(Opcode.READ, read_body())
            kernel.interrupt(unique)
            assert await kernel.answer() == Answer(unique, errno.EINTR, b"")
            assert handler.request is not None and handler.request.interrupted
            assert await handler.outcome == "cancelled"

    run(test())


@pytest.mark.usefixtures("short_grace")
def test_an_interrupted_change_whose_caller_ends_is_carried_through(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def is_ending(pid: int) -> bool:
        """It is killed a while after a signal that it handled: the kernel speaks of the first alone."""
        asked.append(pid)
        return len(asked) > 3

    monkeypatch.setattr("fs_client.fuse.in_work.is_ending", is_ending)

    async def test() -> None:
        handler = Waiting()
        unwanted: asyncio.Future[tuple[Request, Result]] = asyncio.get_running_loop().create_future()
        async with connected({Opcode.OPEN: handler}) as (channel, kernel):
            channel.unwanted = lambda request, result: unwanted.set_result((request, result))
            unique = kernel.send(Opcode.OPEN, bytes(8))
            kernel.interrupt(unique)
            assert await kernel.answer() == Answer(unique, errno.EINTR, b"")
            handler.gate.set_result(None)
            assert await handler.outcome == "done"
            request, result = await unwanted
            assert (request.unique, result) == (unique, b"result")
            await kernel.settled()
            assert kernel.nothing()
        assert asked == [request.pid] * 4

    run(test())


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("opcode", [Opcode.MKDIR, Opcode.FLUSH, Opcode.FSYNC, Opcode.CREATE])
def test_an_interrupted_change_goes_on_while_its_caller_lives(opcode: Opcode, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        asked: asyncio.Queue[int] = asyncio.Queue()
        monkeypatch.setattr("fs_client.fuse.in_work.is_ending", asked.put_nowait)
        handler = Waiting()
        async with connected({opcode: handler}) as (channel, kernel):
            unique = kernel.send(opcode, bytes(48))
            kernel.interrupt(unique)
            for _ in range(3):
                await asked.get()
            assert kernel.nothing()
            handler.gate.set_result(None)
            assert await kernel.answer() == Answer(unique, 0, b"result")
            assert (channel.counters.interrupts, channel.counters.gave_up) == (1, 0)

    run(test())


def test_an_operation_that_ends_within_its_grace_has_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fs_client.fuse.in_work.INTERRUPT_GRACE_S", 1e9)

    async def test() -> None:
        handler = Waiting()
        async with connected({Opcode.READ: handler}) as (channel, kernel):
            unique = kernel.send(Opcode.READ, read_body())
            kernel.interrupt(unique)
            kernel.interrupt(unique)
            await kernel.settled()
            handler.gate.set_result(None)
            assert await kernel.answer() == Answer(unique, 0, b"result")
            kernel.interrupt(unique)  # crosses the answer
            kernel.interrupt(12345)
            await kernel.settled()
            assert kernel.nothing()
            assert channel.counters.interrupts == 1

    run(test())


@pytest.mark.usefixtures("short_grace")
def test_a_wait_that_undoes_itself_is_withdrawn() -> None:
    async def test() -> None:
        withdrawn = asyncio.get_running_loop().create_future()

        async def wait(request: Request) -> bytes:
            request.withdraw = lambda: withdrawn.set_result(None)
            await withdrawn
            raise InterruptedError(errno.EINTR, "withdrawn")

        async with connected({Opcode.SETLKW: wait}) as (channel, kernel):
            unique = kernel.send(Opcode.SETLKW, bytes(48))
            kernel.interrupt(unique)
            assert await kernel.answer() == Answer(unique, errno.EINTR, b"")
            assert channel.counters.gave_up == 0, "its own answer"

    run(test())


@pytest.mark.usefixtures("short_grace")
def test_later_answers_are_bounded_too() -> None:
    async def test() -> None:
        waiting: list[Request] = []

        def later(request: Request) -> Later:
            waiting.append(request)
            return LATER

        async with connected({Opcode.READ: later, Opcode.GETATTR: later}, timeout_s=0.02) as (channel, kernel):
            interrupted = kernel.send(Opcode.READ, read_body())
            kernel.interrupt(interrupted)
            overdue = kernel.send(Opcode.GETATTR, bytes(16))
            got = {await kernel.answer(), await kernel.answer()}
            assert {answer.unique for answer in got} == {interrupted, overdue}
            assert Answer(overdue, errno.ETIMEDOUT, b"") in got
            assert [request.answered for request in waiting] == [True, True]
            channel.answer(waiting[0], b"too late")
            await kernel.settled()
            assert kernel.nothing()

    run(test())


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize(("opcode", "outcome"), [(Opcode.READ, "cancelled"), (Opcode.MKDIR, "done")])
def test_deadline(opcode: Opcode, outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        late, lock = Waiting(), Waiting()
        handlers = {opcode: late, Opcode.SETLKW: lock}
        async with connected(handlers, timeout_s=0.02) as (channel, kernel):
            endless = kernel.send(Opcode.SETLKW, bytes(48))
            unique = kernel.send(opcode, read_body())
            assert await kernel.answer() == Answer(unique, errno.ETIMEDOUT, b"")
            if outcome == "done":
                late.gate.set_result(None)
            assert await late.outcome == outcome
            assert channel.in_work == 1, "a wait for a lock has no deadline"
            lock.gate.set_result(None)
            assert await kernel.answer() == Answer(endless, 0, b"result")

    run(test())
    assert f"{opcode.name} of node 1 waits for" in caplog.text


@pytest.mark.usefixtures("short_grace")
def test_a_request_waits_while_there_is_progress() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        looks = 0

        def progress() -> float:
            nonlocal looks
            looks += 1
            return loop.time() if looks <= 5 else 0.0

        late = Waiting()
        async with connected({Opcode.READ: late}, timeout_s=0.02, progress=progress) as (_, kernel):
            began = loop.time()
            unique = kernel.send(Opcode.READ, read_body())
            assert await kernel.answer() == Answer(unique, errno.ETIMEDOUT, b"")
            assert looks >= 6 and loop.time() - began >= 5 * 0.02

    run(test())


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("opcode", [Opcode.SETATTR, Opcode.FLUSH, Opcode.RENAME2])
def test_a_change_gets_the_time_of_what_it_waits_for(opcode: Opcode) -> None:
    """An error before its outcome could be a lie: it is applied later."""

    async def test() -> None:
        change, read = Waiting(), Waiting()
        async with connected({opcode: change, Opcode.READ: read}, timeout_s=1.0) as (_, kernel):
            changing = kernel.send(opcode, bytes(48))
            reading = kernel.send(Opcode.READ, read_body())
            assert await kernel.answer() == Answer(reading, errno.ETIMEDOUT, b"")
            assert kernel.nothing()
            change.gate.set_result(None)
            assert await kernel.answer() == Answer(changing, 0, b"result")

    run(test())


def test_a_process_that_stood_still_looks_at_what_arrived_before_it_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        handler = Waiting()
        async with connected({Opcode.READ: handler}, timeout_s=0.02) as (channel, kernel):
            unique = kernel.send(Opcode.READ, read_body())
            await kernel.settled()
            # As after SIGSTOP and SIGCONT: the sweep is due long since, and so is the deadline.
            work = channel._in_work
            work._sweep_due = loop.time() - 100
            assert handler.request is not None
            handler.request.deadline = loop.time() - 100
            work._on_sweep()
            assert channel.in_work == 1
            handler.gate.set_result(None)
            assert await kernel.answer() == Answer(unique, 0, b"result")

    run(test())


# The end


def test_the_end_of_the_device() -> None:
    async def test() -> None:
        ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        reading, changing = Waiting(), Waiting()
        handlers = {Opcode.READ: reading, Opcode.MKDIR: changing}
        async with connected(handlers, on_end=ended.set_result) as (channel, kernel):
            kernel.send(Opcode.READ, read_body())
            kernel.send(Opcode.MKDIR, bytes(8) + b"d\0")
            await kernel.settled()
            kernel.close()
            assert await ended == channel.ended == End.BROKEN
            assert await reading.outcome == "cancelled"
            assert channel.in_work == 0
            changing.gate.set_result(None)
            assert await changing.outcome == "done"

    run(test())


@pytest.mark.parametrize(
    ("code", "end"),
    [
        (errno.ENODEV, End.UNMOUNTED),
        (errno.ECONNABORTED, End.ABORTED),
        (errno.EPERM, End.BROKEN),
        (errno.ENOENT, None),
        (errno.EINTR, None),
        (errno.EAGAIN, None),
    ],
)
def test_errors_of_reading(code: int, end: End | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    readv = os.readv
    failures = [code]

    def failing(file: int, buffers: Any) -> int:
        if failures:
            raise OSError(failures.pop(), "scripted")
        return readv(file, buffers)

    async def test() -> None:
        ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        async with connected({Opcode.READLINK: lambda request: b"alive"}, on_end=ended.set_result) as (_, kernel):
            monkeypatch.setattr(os, "readv", failing)
            unique = kernel.send(Opcode.READLINK)
            if end is None:
                assert await kernel.answer() == Answer(unique, 0, b"alive")
            else:
                assert await ended is end

    run(test())


def test_close_lets_work_end_and_then_ends_it() -> None:
    async def test() -> None:
        quick, never, lock = Waiting(), Waiting(), Waiting()
        handlers = {Opcode.MKDIR: quick, Opcode.READ: never, Opcode.SETLKW: lock}
        async with connected(handlers) as (channel, kernel):
            first = kernel.send(Opcode.MKDIR, bytes(8) + b"d\0")
            second = kernel.send(Opcode.READ, read_body())
            third = kernel.send(Opcode.SETLKW, bytes(48))
            await kernel.settled()
            closing = asyncio.create_task(channel.close(grace_s=0.05))
            quick.gate.set_result(None)
            await closing
            got = {await kernel.answer() for _ in range(3)}
            assert got == {
                Answer(first, 0, b"result"),
                Answer(second, errno.EIO, b""),
                Answer(third, errno.EIO, b""),
            }
            assert (never.outcome.result(), lock.outcome.result()) == ("cancelled", "cancelled")
            await channel.close()

    run(test())


def test_a_channel_that_is_detached_leaves_the_rest_unanswered_and_the_device_open() -> None:
    async def test() -> None:
        never = Waiting()
        async with connected({Opcode.READ: never}) as (channel, kernel):
            kernel.send(Opcode.READ, read_body())
            await kernel.settled()
            descriptor = await channel.detach(grace_s=0.0)
            assert never.outcome.result() == "cancelled"
            assert kernel.nothing()
            successor = Channel(descriptor, {Opcode.STATFS: lambda request: b"new"}, negotiated=channel.negotiated)
            successor.start()
            unique = kernel.send(Opcode.STATFS)
            assert await kernel.answer() == Answer(unique, 0, b"new")
            await successor.close()

    run(test())


def test_reading_pauses_and_goes_on() -> None:
    async def test() -> None:
        async with connected({Opcode.STATFS: lambda request: b"here"}) as (channel, kernel):
            await kernel.settled()
            channel.pause()
            unique = kernel.send(Opcode.STATFS)
            for _ in range(10):
                await asyncio.sleep(0)
            assert kernel.nothing()
            channel.resume()
            assert await kernel.answer() == Answer(unique, 0, b"here")

    run(test())


# Bytes that are no requests


@given(message=st.binary(min_size=40, max_size=200), opcode=st.sampled_from([*Opcode, 0, 7, 99]))
def test_any_message_gets_an_answer_or_none(message: bytes, opcode: int) -> None:
    """Handlers that parse what they get; afterwards the channel still works."""
    from tests.fuse.parsers import PARSERS

    async def test() -> None:
        def parse(request: Request) -> None:
            PARSERS[Opcode(request.opcode)](request.body)
            request.groups()

        async with connected({**dict.fromkeys(PARSERS, parse), Opcode.STATFS: lambda request: b"alive"}) as (_, kernel):
            whole = len(message).to_bytes(4, "little") + opcode.to_bytes(4, "little") + message[8:]
            kernel.send_raw(whole)
            kernel.send_raw(message)
            unique = kernel.send(Opcode.STATFS, unique=2**62)
            while (answer := await kernel.answer()).unique != unique:
                pass
            assert answer.body == b"alive"

    logging.disable(logging.CRITICAL)
    try:
        run(test())
    finally:
        logging.disable(logging.NOTSET)


def test_less_than_a_header_ends_the_channel() -> None:
    async def test() -> None:
        ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        async with connected({}, on_end=ended.set_result) as (_, kernel):
            kernel.send_raw(b"short")
            assert await ended is End.BROKEN

    run(test())


# Notifications


def test_notifications_go_out_in_order() -> None:
    async def test() -> None:
        async with connected({}) as (channel, kernel):
            assert channel.notify_inval_inode(5, 4096, 8192)
            assert channel.notify_inval_entry(1, b"name")
            assert channel.notify_delete(1, 5, b"gone")
            assert channel.notify_store(5, 0, memoryview(b"bytes"))
            assert channel.notify_resend()
            await channel.notified()
            got = [await kernel.answer() for _ in range(5)]
            assert [(answer.unique, answer.error) for answer in got] == [(0, 2), (0, 3), (0, 6), (0, 4), (0, 7)]
            assert got[0].body == abi.NOTIFY_INVAL_INODE_OUT.pack(5, 4096, 8192)
            assert got[1].body == abi.NOTIFY_INVAL_ENTRY_OUT.pack(1, 4, 0) + b"name\0"
            assert got[2].body == abi.NOTIFY_DELETE_OUT.pack(1, 5, 4) + b"gone\0"
            assert got[3].body == abi.NOTIFY_STORE_OUT.pack(5, 0, 5) + b"bytes"
            assert channel.counters.notifications == 5

    run(test())


def test_notifications_after_the_end_are_dropped() -> None:
    async def test() -> None:
        ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        async with connected({}, on_end=ended.set_result) as (channel, kernel):
            assert channel.notify_inval_inode(5)
            await channel.notified()
            await kernel.answer()
            kernel.close()
            await ended
            assert channel.notify_inval_inode(6)
            await channel.notified()

    run(test())


def test_expiry_is_asked_for_only_where_the_kernel_knows_it() -> None:
    async def test() -> None:
        for flags, expected in ((0, 0), (abi.INIT_HAS_EXPIRE_ONLY, abi.EXPIRE_ONLY)):
            async with connected({}, negotiated=None, wanted=Wanted(max_write=MAX_WRITE)) as (channel, kernel):
                kernel.send(Opcode.INIT, init_body(flags=flags))
                await kernel.answer()
                channel.notify_inval_entry(1, b"n", expire_only=True)
                assert (await kernel.answer()).body == abi.NOTIFY_INVAL_ENTRY_OUT.pack(1, 1, expected) + b"n\0"

    run(test())


def test_caught_up_is_who_has_read_all_and_keeps_the_kernel_from_holding_anything_back() -> None:
    async def test() -> None:
        seen: list[int] = []
        later: list[Request] = []

        def release(request: Request) -> None:
            seen.append(request.node)

        def read(request: Request) -> Later:
            later.append(request)
            return LATER

        async with connected({Opcode.RELEASE: release, Opcode.READ: read}) as (channel, kernel):
            await channel.caught_up()
            for node in range(REQUESTS_PER_TURN + 10):
                kernel.send(Opcode.RELEASE, abi.RELEASE_IN.pack(1, 0, 0, 0), node=node)
            await channel.caught_up()
            assert seen == list(range(REQUESTS_PER_TURN + 10))
            # As many in work as were agreed: the kernel may have more.
            for _ in range(AGREED.max_background):
                kernel.send(Opcode.READ, read_body())
            catching_up = asyncio.ensure_future(channel.caught_up())
            while len(later) < AGREED.max_background:
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not catching_up.done()
            kernel.send(Opcode.RELEASE, abi.RELEASE_IN.pack(1, 0, 0, 0), node=99)
            channel.answer(later.pop(), b"")
            await catching_up
            assert seen[-1] == 99
            for request in later:
                channel.answer(request, b"")
            for _ in range(AGREED.max_background):
                kernel.send(Opcode.READ, read_body())
            catching_up = asyncio.ensure_future(channel.caught_up())
        await catching_up

    run(test())


def test_the_root_has_the_number_that_handlers_know_it_by() -> None:
    async def test() -> None:
        seen: list[int] = []
        async with connected({Opcode.GETATTR: lambda request: seen.append(request.node)}, root=77) as (channel, kernel):
            kernel.send(Opcode.GETATTR, node=1)
            kernel.send(Opcode.GETATTR, node=5)
            for _ in range(2):
                await kernel.answer()
            assert seen == [77, 5]
            channel.notify_inval_entry(77, b"n")
            assert (await kernel.answer()).body == abi.NOTIFY_INVAL_ENTRY_OUT.pack(1, 1, 0) + b"n\0"
            for inode, number in ((77, 1), (5, 5)):
                channel.notify_inval_inode(inode)
                assert (await kernel.answer()).body == abi.NOTIFY_INVAL_INODE_OUT.pack(number, 0, 0)

    run(test())
