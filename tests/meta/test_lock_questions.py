"""Holders of locks are asked before others are refused: whoever has closed its file does not have it any more."""

import asyncio
import errno
from typing import Any

from fs_common.records.locks import LOCK_END, Lock, LockKind, LockType
from fs_meta.locks import questions as questions_module
from fs_meta.ops.lock import lock
from tests.meta.world import CLIENT, World, fails, new_request, world
from tests.storage.engine.virtual_loop import run_virtual

OTHER = b"o" * 16
_, SHARED, EXCLUSIVE = LockType
FLOCK, RANGE, APPEND = LockKind


class Holder:
    """A client that keeps its call at the service, and gives up what its programs have given up when it is asked."""

    def __init__(self, w: World, client: bytes = CLIENT) -> None:
        self.w = w
        self.client = client
        self.asked: list[int] = []
        self.closed: list[tuple[int, LockKind]] = []
        """(inode, kind) of owner 1: what was closed and is not given up yet."""
        self.silent = False
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        answered = 0
        while True:
            reply = await self.w.context.lock_questions.listen(self.client, answered, self)
            self.asked += reply.inodes
            if self.silent:
                await asyncio.Event().wait()
            for inode, kind in self.closed:
                await self.w.release_locks(inode, 1, kind, self.client)
            self.closed.clear()
            answered = reply.number

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def _settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def test_what_a_program_has_closed_is_no_lock_for_others() -> None:
    async def body() -> None:
        async with world() as w:
            f = (await w.create(b"f")).inode
            holder = Holder(w)
            await _settled()
            for kind in (FLOCK, RANGE):
                await w.lock(f, 1, EXCLUSIVE, kind)
                with fails(errno.EAGAIN):
                    await w.lock(f, 1, SHARED, kind, client=OTHER)
                assert (await w.get_lock(f, 2, EXCLUSIVE, client=OTHER)).type == (EXCLUSIVE if kind is RANGE else 0)
                holder.closed.append((f, kind))
                if kind is RANGE:
                    assert (await w.get_lock(f, 2, EXCLUSIVE, client=OTHER)).type == LockType.UNLOCK
                    await w.lock(f, 1, EXCLUSIVE, kind)
                    holder.closed.append((f, kind))
                await w.lock(f, 1, EXCLUSIVE, kind, client=OTHER)
            await holder.end()

    run_virtual(body())


def test_nobody_is_asked_about_what_is_free_or_his_own() -> None:
    async def body() -> None:
        async with world() as w:
            f = (await w.create(b"f")).inode
            holder = Holder(w)
            await _settled()
            await w.lock(f, 1, SHARED)
            await w.lock(f, 1, SHARED, client=OTHER)
            await w.lock(f, 5, EXCLUSIVE, FLOCK)
            with fails(errno.EAGAIN):
                await w.lock(f, 6, EXCLUSIVE, FLOCK)
            await w.lock(f, 1, EXCLUSIVE, APPEND)
            with fails(errno.EAGAIN):
                await w.lock(f, 1, EXCLUSIVE, APPEND, client=OTHER)
            assert holder.asked == []
            await holder.end()

    run_virtual(body())


def test_who_does_not_answer_is_waited_for_once() -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        async with world() as w:
            f = (await w.create(b"f")).inode
            holder = Holder(w)
            await _settled()
            holder.silent = True
            await w.lock(f, 1)
            began = loop.time()
            with fails(errno.EAGAIN):
                await w.lock(f, 1, client=OTHER)
            assert loop.time() - began >= questions_module.ANSWER_S
            began = loop.time()
            with fails(errno.EAGAIN):
                await w.lock(f, 1, client=OTHER)
            assert loop.time() == began
            # It comes back without an answer, then with one.
            await holder.end()
            again = Holder(w)
            await _settled()
            assert again.asked == [f]
            again.closed.append((f, RANGE))
            await w.lock(f, 1, client=OTHER)
            await again.end()

    run_virtual(body())


def test_a_question_that_was_handed_out_before_is_no_answer_to_a_later_one() -> None:
    async def body() -> None:
        async with world() as w:
            f = (await w.create(b"f")).inode
            await w.lock(f, 1)
            listen = w.context.lock_questions.listen
            call = asyncio.ensure_future(listen(CLIENT, 0, w))
            await _settled()
            first = _start(w, f)
            await _settled()
            handed_out = await call
            assert handed_out.inodes == [f]
            second = _start(w, f)
            await _settled()
            # The answer to the first: what was closed between both is not looked at yet.
            later = await listen(CLIENT, handed_out.number, w)
            await _settled()
            assert first.done() and not second.done() and later.inodes == [f]
            await w.release_locks(f, 1)
            call = asyncio.ensure_future(listen(CLIENT, later.number, w))
            await second
            with fails(errno.EAGAIN):
                await first
            call.cancel()

    run_virtual(body())


def _start(w: World, inode: int) -> "asyncio.Task[Any]":
    request = Lock(inode, OTHER, 1, RANGE, EXCLUSIVE, new_request(), 0, LOCK_END)
    return asyncio.ensure_future(lock(w.context, request, w))


def test_who_is_gone_and_a_service_that_ends_keep_nobody_waiting() -> None:
    async def body() -> None:
        for end in ("lost", "closed"):
            async with world() as w:
                f = (await w.create(b"f")).inode
                await w.lock(f, 1)
                questions = w.context.lock_questions
                call = asyncio.ensure_future(questions.listen(CLIENT, 0, w))
                await _settled()
                asking = _start(w, f)
                await call
                await _settled()
                questions.caller_lost(CLIENT, object())
                await _settled()
                assert not asking.done()
                if end == "lost":
                    questions.caller_lost(CLIENT, w)
                else:
                    questions.close()
                with fails(errno.EAGAIN):
                    await asking

    run_virtual(body())


def test_who_ends_a_wait_asks_nobody() -> None:
    async def body() -> None:
        async with world() as w:
            f = (await w.create(b"f")).inode
            holder = Holder(w)
            await _settled()
            holder.silent = True
            await w.lock(f, 1)
            request = Lock(f, OTHER, 1, RANGE, EXCLUSIVE, new_request(), 0, LOCK_END, 0, 30_000)
            waiting = asyncio.ensure_future(lock(w.context, request, w))
            await _settled()
            with fails(errno.EAGAIN):
                await lock(w.context, Lock(f, OTHER, 1, RANGE, EXCLUSIVE, request.request, 0, LOCK_END), w)
            with fails(errno.EAGAIN):
                await waiting
            assert holder.asked == []
            await holder.end()

    run_virtual(body())


def test_a_call_without_questions_comes_back() -> None:
    async def body() -> None:
        async with world() as w:
            reply = await w.context.lock_questions.listen(CLIENT, 0, w)
            assert reply.inodes == []

    run_virtual(body())


def test_an_answer_to_what_was_asked_over_a_lost_connection_answers_nothing_later() -> None:
    async def body() -> None:
        async with world() as w:
            f = (await w.create(b"f")).inode
            await w.lock(f, 1)
            questions = w.context.lock_questions
            call = asyncio.ensure_future(questions.listen(CLIENT, 0, w))
            await _settled()
            first = _start(w, f)
            answered = (await call).number
            questions.caller_lost(CLIENT, w)
            with fails(errno.EAGAIN):
                await first
            # It comes again by another connection with the same answer, and does not get the reply.
            call = asyncio.ensure_future(questions.listen(CLIENT, answered, w))
            await _settled()
            second = _start(w, f)
            await call
            assert (await questions.listen(CLIENT, answered, w)).inodes == [f]
            await _settled()
            assert not second.done()
            await w.release_locks(f, 1)
            questions.close()
            await second

    run_virtual(body())
