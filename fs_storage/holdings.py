"""Answers to replicas that lost something, or fill up this one: what it has, and the bytes of it.

A target that is not whole answers as well; what its node may not speak for yet (no lease, or no word of the manager on
its store) is not told. Nothing here changes anything.

Called by: the service.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from fs_common.buffers import Buffer, BufferPool
from fs_common.errors import Code, EmberError
from fs_common.records.mending import (
    HeldChunk,
    ListHeld,
    ListHeldReply,
    ListRemembered,
    ListRememberedReply,
    PullVersion,
    PullVersionReply,
    RememberedAnswer,
)
from fs_common.rpc import Call, Reply
from fs_storage.craq.operation import Step
from fs_storage.craq.position import Position
from fs_storage.engine.interface import ChunkRead
from fs_storage.reads import DAMAGE
from fs_storage.target import Target
from fs_storage.targets import Targets
from fs_storage.throttle import Throttle

TURNS_TO_READ = 64
"""Turns of the loop in which what has arrived is read: at least 64 KiB of each connection in each of them."""
LOOK_S = 0.01
"""A commit takes a millisecond, or as long as the disk is busy."""
LIST_MAX = 1024
"""Of one page: some milliseconds of the loop."""

_UNDER_WAY = tuple(step for step in Step if step not in (Step.QUEUED, Step.DONE))


class Holdings:
    """The handlers of LIST_HELD, LIST_REMEMBERED and PULL_VERSION."""

    def __init__(self, targets: Targets, pool: BufferPool, threads: Executor, throttle: Throttle) -> None:
        self._targets = targets
        self._pool = pool
        self._threads = threads
        self._throttle = throttle

    async def list_held(self, call: Call) -> Reply:
        """LIST_HELD. Raises CHAIN_UNKNOWN, CHAIN_VERSION, NOT_SERVING, INVALID.

        A syncing target answers its predecessor alone.
        """
        request: ListHeld = call.request
        target = self._target(request.chain, request.chain_version, request.limit)
        if target.position is not None and target.position.syncing:
            _require_predecessor(target, target.position, request.target)
            if not request.after:
                await _all_is_of_now(target)
        else:
            await _no_news_of_before(target, request.target)
        target = self._target(request.chain, request.chain_version, request.limit)
        store = target.store
        chunks = [HeldChunk(*held) for held in store.held(request.after, request.limit)]
        return Reply(ListHeldReply(chunks, store.whole, store.floor, store.opening, self._throttle.serving()))

    def list_remembered(self, call: Call) -> Reply:
        """LIST_REMEMBERED. Raises as LIST_HELD."""
        request: ListRemembered = call.request
        target = self._target(request.chain, request.chain_version, request.limit)
        answers, following = target.store.remembered(request.after, request.limit, every=request.every)
        return Reply(ListRememberedReply([RememberedAnswer(*answer) for answer in answers], following))

    async def pull_version(self, call: Call) -> Reply:
        """PULL_VERSION. Raises also CHUNK_NOT_FOUND: it is not, or no longer, what is here."""
        request: PullVersion = call.request
        target = self._target(request.chain, request.chain_version, 1)
        store, chunk, pending = target.store, request.chunk, request.pending
        state = store.state(chunk)
        self._require(target, request)
        assert state is not None
        length = state.pending_length if pending else state.length
        left = store.pending_update(chunk) if pending else None
        identity = (left.client, left.channel, left.sequence) if left is not None else (b"", 0, 0)
        if not length:
            return Reply(PullVersionReply([0], b"", *identity))
        buffer = self._pool.take(length)
        reading = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: store.read_blocking(chunk, 0, length, buffer.view, pending=pending)
        )
        try:
            read = await asyncio.shield(reading)
        except asyncio.CancelledError:
            reading.add_done_callback(lambda done: _drop(done, buffer))
            raise
        except BaseException as error:
            buffer.release()
            if isinstance(error, EmberError) and error.code in DAMAGE:
                self._targets.suspect(target, chunk)
            raise
        release = _releases(read, buffer)
        try:
            self._require(target, request)
        except EmberError:
            release()
            raise
        return Reply(PullVersionReply([read.length], read.checksums, *identity), [read.part], release)

    def _target(self, chain: int, chain_version: int, limit: int) -> Target:
        if not 1 <= limit <= LIST_MAX:
            raise EmberError(Code.INVALID, f"a list of {limit} is not given")
        target = self._targets.require(chain)
        position = target.position
        speaks = target.failed is None and target.admitted and target.membership.lease_valid()
        if position is not None and position.syncing and target.mends:
            speaks = False  # its chunks change beside what it is sent
        if position is None or not speaks:
            raise EmberError(Code.NOT_SERVING, target.why_not())
        if position.version != chain_version:
            raise EmberError(
                Code.CHAIN_VERSION, f"chain {chain} is at version {position.version}, the request at {chain_version}"
            )
        return target

    def _require(self, target: Target, request: PullVersion) -> None:
        if not request.digest or target.store.digest(request.chunk, pending=request.pending) != request.digest:
            raise EmberError(
                Code.CHUNK_NOT_FOUND, f"target {target.id} has not that version of chunk {request.chunk.hex()}"
            )


def _require_predecessor(target: Target, position: Position, asker: int) -> None:
    if position.predecessor is None or position.predecessor.target != asker:
        raise EmberError(Code.NOT_SERVING, f"target {target.id} is syncing: its predecessor alone may ask it")


async def _all_is_of_now(target: Target) -> None:
    """Return when nothing is under way any more that this syncing target began before it was asked.

    Some of that may be of an older chain version, in which it had another place: an update that it prepares, or will
    commit, would change its store beside the lists that are compared. What arrives later is judged at this one.
    """
    for operation in target.replica.in_steps(_UNDER_WAY):
        while operation.step in _UNDER_WAY:
            await asyncio.sleep(LOOK_S)


async def _no_news_of_before(target: Target, asker: int) -> None:
    """Return when nothing that `asker` had told this target before changes its store any more.

    It may have answered an update before it lost it, or sent one: that is in a socket here, or on its way into the
    store, and would be committed, or pending, beside the list.
    """
    for _ in range(TURNS_TO_READ):
        await asyncio.sleep(0)
    position = target.position
    if position is None:
        return
    if position.predecessor is not None and position.predecessor.target == asker:
        steps = (Step.CONFIRM, Step.PREPARE)
    elif asker in [member.target for member in position.members[position.index + 1 :]]:
        steps = (Step.CONFIRM, Step.COMMIT)
    else:
        return  # what it sent to others is for them to wait for
    for operation in target.replica.in_steps(steps):
        while operation.step in steps:
            await asyncio.sleep(LOOK_S)


def _releases(read: ChunkRead, buffer: Buffer) -> Callable[[], None]:
    def release() -> None:
        if read.release is not None:
            read.release()
        buffer.release()

    return release


def _drop(reading: "asyncio.Future[ChunkRead]", buffer: Buffer) -> None:
    """Nobody sends it."""
    if reading.exception() is None:
        _releases(reading.result(), buffer)()
    else:
        buffer.release()
