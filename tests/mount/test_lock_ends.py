"""Locks of descriptors that were closed: the end of a description is told behind its close, and whoever asks waits for
it."""

import asyncio
import fcntl
from typing import Any

import pytest

from fs_client.fuse import abi, answers
from fs_client.fuse.abi import Opcode
from fs_client.fuse.kernel_request import Request
from fs_client.fuse.mount import Mount
from fs_client.fuse.ops import locking, opening
from fs_common import methods
from fs_common.records.locks import GetLockReply, LockKind, LockQuestionsReply, LockType
from tests.mount.test_files import INODE, opened
from tests.support import run

OWNER = 99


def asked(opcode: int, body: bytes) -> Any:
    return Request(1, opcode, INODE, 0, 0, 0, body, None, 0)


def lock_request(opcode: int, handle: int) -> Any:
    return asked(opcode, abi.LK_IN.pack(handle, OWNER, 0, 9, fcntl.F_WRLCK, 0, 0))


def close(mount: Mount, handle: int) -> None:
    """RELEASE, as the kernel sends it behind a close."""
    opening.handlers(mount)[Opcode.RELEASE](asked(Opcode.RELEASE, abi.RELEASE_IN.pack(handle, 0, 0, 0)))


def test_what_stands_in_the_way_is_asked_behind_the_ends_that_were_told_before() -> None:
    async def scenario() -> None:
        with opened() as (mount, service, _, file, handle):
            other = mount.handles.open_file(file, 2, handle.user, b"")
            other.lock_owners.add((LockKind.RANGE, OWNER))
            file.range_owners.add(OWNER)
            close(mount, other.number)
            asking: Any = locking.handlers(mount)[Opcode.GETLK](lock_request(Opcode.GETLK, handle.number))
            asking = asyncio.ensure_future(asking)
            await service.has_been_asked()
            for _ in range(20):
                await asyncio.sleep(0)
            assert [method for method, _, _ in service.asked] == [methods.RELEASE_LOCKS]
            (await service.next(methods.RELEASE_LOCKS))()
            await service.has_been_asked()
            method, question, answer = service.asked.pop(0)
            assert method is methods.GET_LOCK and question.inode == INODE
            answer.set_result(GetLockReply(LockType.UNLOCK))
            assert await asking == answers.lk_out(0, 0, fcntl.F_UNLCK, 0)

    run(scenario())


def test_a_question_is_answered_behind_what_the_kernel_had_to_say_and_the_ends_it_told_of() -> None:
    async def scenario() -> None:
        with opened() as (mount, service, _, file, handle):
            kernel = mount.channel = Kernel()  # type: ignore[assignment]
            other = mount.handles.open_file(file, 2, handle.user, b"")
            other.lock_owners.add((LockKind.FLOCK, OWNER))
            mount.lock_questions.expect()
            method, request, answer = service.asked.pop(0)
            assert method is methods.LOCK_QUESTIONS and request.answered == 0
            answer.set_result(LockQuestionsReply(17, [INODE, INODE + 1]))
            await kernel.asked.wait()
            close(mount, other.number)
            kernel.told_all.set()
            await service.has_been_asked()
            for _ in range(20):
                await asyncio.sleep(0)
            assert [method for method, _, _ in service.asked] == [methods.RELEASE_LOCKS]
            (await service.next(methods.RELEASE_LOCKS))()
            await service.has_been_asked()
            method, request, answer = service.asked.pop(0)
            assert method is methods.LOCK_QUESTIONS and request.answered == 17
            # Nobody has locks any more.
            answer.set_result(LockQuestionsReply(17, []))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not service.asked
            mount.lock_questions.expect()
            await service.has_been_asked()
            await mount.lock_questions.close()

    run(scenario())


@pytest.mark.parametrize("turns", range(8))
def test_a_lock_that_is_asked_for_while_the_last_one_ends_has_somebody_who_answers_for_it(turns: int) -> None:
    """At whatever turn of the loop the one who answered for the last one hears that nobody asks."""

    async def scenario() -> None:
        with opened() as (mount, service, _, file, handle):
            other = mount.handles.open_file(file, 2, handle.user, b"")
            other.lock_owners.add((LockKind.RANGE, OWNER))
            file.range_owners.add(OWNER)
            mount.lock_questions.expect()
            _, _, questions = service.asked.pop(0)
            close(mount, other.number)
            await service.has_been_asked()
            asking: Any = locking.handlers(mount)[Opcode.SETLK](lock_request(Opcode.SETLK, handle.number))
            asking = asyncio.ensure_future(asking)
            (await service.next(methods.RELEASE_LOCKS))()
            for _ in range(turns):
                await asyncio.sleep(0)
            questions.set_result(LockQuestionsReply(17, []))
            for _ in range(20):
                await asyncio.sleep(0)
            assert sorted(method.name for method, _, _ in service.asked) == ["lock", "lock_questions"]
            asking.cancel()
            await asyncio.wait([asking])
            await mount.lock_questions.close()

    run(scenario())


class Kernel:
    """The channel, whose device has more to read until it is told otherwise."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.told_all = asyncio.Event()

    async def caught_up(self) -> None:
        self.asked.set()
        await self.told_all.wait()
