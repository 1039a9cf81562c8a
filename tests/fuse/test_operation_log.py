"""What a mount says of single requests: each at debug level, those that took long, and nothing else."""

import asyncio
import errno
import logging
from typing import Any

import pytest

from fs_client.fuse import abi
from fs_client.fuse.abi import Opcode
from fs_client.fuse.kernel_request import LATER, Later, Request
from fs_client.fuse.operation_log import OperationLog, about
from fs_common import tracing
from fs_common.slow_operations import SlowOperations
from tests.fuse.fake_kernel import connected
from tests.support import run

LOGGER = "fs_client.fuse.operation_log"


def request(opcode: Opcode, body: bytes) -> Request:
    return Request(10, opcode, 7, 1000, 1000, 4242, bytearray(body), None, 0)


@pytest.mark.parametrize(
    ("opcode", "body", "words"),
    [
        (Opcode.LOOKUP, b"caf\xc3\xa9\0", "inode 7, name 'café'"),
        (Opcode.UNLINK, b"x\xff\0", "inode 7, name 'x\\\\xff'"),
        (Opcode.RENAME, (9).to_bytes(8, "little") + b"old\0new\0", "inode 7, old 'old', newdir 9, new 'new'"),
        (Opcode.READ, abi.READ_IN.pack(1, 8192, 4096, 0, 0, 0), "inode 7, offset 8192, size 4096"),
        (Opcode.GETATTR, b"", "inode 7"),
        (Opcode.READ, b"short", "inode 7, malformed"),
    ],
)
def test_what_a_request_is_about(opcode: Opcode, body: bytes, words: str) -> None:
    assert about(request(opcode, body)) == words


def test_requests_are_told_at_debug_level_with_their_trace(caplog: pytest.LogCaptureFixture) -> None:
    traces: list[int] = []

    def lookup(asked: Request) -> bytes:
        return b"entry"

    async def unlink(asked: Request) -> None:
        traces.append(tracing.current())
        raise OSError(errno.ENOENT, "not there")

    def later(asked: Request) -> Later:
        waiting.append(asked)
        return LATER

    waiting: list[Request] = []

    async def scenario() -> None:
        handlers: dict[int, Any] = {Opcode.LOOKUP: lookup, Opcode.UNLINK: unlink, Opcode.GETATTR: later}
        async with connected(handlers, log=OperationLog(SlowOperations(1000))) as (channel, kernel):
            kernel.send(Opcode.LOOKUP, b"here\0")
            await kernel.answer()
            kernel.send(Opcode.UNLINK, b"gone\0")
            await kernel.answer()
            kernel.send(Opcode.GETATTR, bytes(16))
            await kernel.settled()
            channel.answer(waiting.pop(), b"attributes")
            await kernel.answer()

    with caplog.at_level(logging.DEBUG, LOGGER):
        run(scenario())
    lines = [(record.message, vars(record)) for record in caplog.records if record.name == LOGGER]
    assert [message for message, _ in lines] == ["lookup", "unlink", "getattr"]
    fields = [fields for _, fields in lines]
    assert "name 'here'" in fields[0]["about"] and "error" not in fields[0]
    assert fields[1]["error"] == "ENOENT" and fields[1]["trace"] == tracing.shown(traces[0])
    assert len({one["trace"] for one in fields}) == 3 and all(one["took_ms"] >= 0 for one in fields)
    assert tracing.current() == 0


def test_what_took_long_is_kept_and_waits_for_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    slow = SlowOperations(1)
    log = OperationLog(slow)
    assert log.tell_ns == 1_000_000
    log.tell(request(Opcode.UNLINK, b"x\0"), 5_000_000, errno.EIO)
    log.tell(request(Opcode.SETLKW, b""), 5_000_000, 0)
    (found,) = slow.snapshot()
    assert (found.operation, found.error, found.peer) == ("unlink", "EIO", "pid 4242, uid 1000")
    assert found.about == "inode 7, name 'x'"


def test_nothing_is_said_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        log = OperationLog(SlowOperations(60_000))
        async with connected({Opcode.LOOKUP: lambda asked: b"entry"}, log=log) as (_, kernel):
            kernel.send(Opcode.LOOKUP, b"here\0")
            await kernel.answer()

    with caplog.at_level(logging.INFO):
        run(scenario())
    assert not [record for record in caplog.records if record.name == LOGGER]


def test_why_a_program_was_told_of_an_input_output_error_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Of a handler that fails at once, and of one that has waited. What names alone explain is no line."""

    def lookup(asked: Request) -> bytes:
        raise OSError(errno.ENOENT, "not there")

    def read(asked: Request) -> bytes:
        raise OSError(errno.EIO, "a replica is gone")

    async def fsync(asked: Request) -> None:
        await asyncio.sleep(0)
        raise OSError(errno.EIO, "its daemons lost what was written")

    async def scenario() -> None:
        handlers: dict[int, Any] = {Opcode.LOOKUP: lookup, Opcode.READ: read, Opcode.FSYNC: fsync}
        async with connected(handlers, log=OperationLog(SlowOperations(60_000))) as (_, kernel):
            for opcode, body in ((Opcode.LOOKUP, b"gone\0"), (Opcode.READ, bytes(40)), (Opcode.FSYNC, bytes(16))):
                kernel.send(opcode, body)
                await kernel.answer()

    with caplog.at_level(logging.INFO):
        run(scenario())
    read_line, fsync_line = [record.message for record in caplog.records if record.name == LOGGER]
    assert read_line.startswith("read of inode") and read_line.endswith("[Errno 5] a replica is gone")
    assert fsync_line.startswith("fsync of inode") and fsync_line.endswith("its daemons lost what was written")
