"""Updates on their way through this daemon: runs the instructions of the replication core.

The updates of one request that are at the same step go on together: one engine batch to prepare them, one frame to
the successor, one engine batch to commit. An update that has to wait for its chunk joins those of its request that
get their turn at the same moment; whoever ends an update starts the one that waited behind it.

Work runs in tasks of this module, not in the handler's: a caller that gives up, or whose deadline passes, does not
stop an update half-way. Bounded: operations in flight for each target, payload memory for each position (`payload`).

An attempt to forward belongs to the place on the chain that it is made from (`Operation.asked`). When the chain changes
(`chains_changed`), the core decides anew what waits for a successor, and new attempts begin at once; those of before
find, when they end or their pause is over, that nobody waits for them.

Tasks, locks and step traces: docs/concurrency/storage.md.
"""

import asyncio
import logging
import struct
from collections.abc import Callable, Coroutine, Sequence
from time import perf_counter_ns as clock_ns
from typing import Any

from fs_common import eager
from fs_common.checks import InvariantViolation
from fs_common.errors import Code, EmberError
from fs_common.ids import chunk_id
from fs_common.limits import UPDATE_ITEMS_MAX
from fs_common.records.storage import UpdateChunks, UpdateItem, UpdateKind
from fs_common.rpc import Allocation, Call, Reply
from fs_common.telemetry import Counters
from fs_storage.craq.apportion import Told
from fs_storage.craq.operation import SENDING, Duty, Failure, Operation, Step
from fs_storage.craq.position import Position
from fs_storage.engine.interface import Update
from fs_storage.forward import Accepted, Forwarder, Outcome, Refused
from fs_storage.payload import Payload, PayloadMemory
from fs_storage.scattered import Joiner
from fs_storage.target import Target
from fs_storage.targets import Targets
from fs_storage.update_request import NO_PAYLOAD, UpdateRequest, frame_of, views_of

logger = logging.getLogger(__name__)

DEADLINE_DEFAULT_S = 60.0
"""Of a request that names none."""
MARGIN_S_MIN = 0.15
"""See `patience_s`: above the steps in which timeouts are noticed."""
BACKOFF_S_MIN = 0.05
BACKOFF_S_MAX = 1.0
_FORWARDED_FACTOR = 4
"""Updates from a predecessor are bounded where they entered the chain; here the bound only stops a runaway."""
_CLIENT_KINDS = frozenset((UpdateKind.WRITE, UpdateKind.TRUNCATE, UpdateKind.REMOVE, UpdateKind.SCATTER))
_KINDS = {int(kind): kind for kind in UpdateKind}


class Updates:
    """The handler of UPDATE_CHUNKS, and the driver of every target's core."""

    def __init__(
        self,
        targets: Targets,
        forwarder: Forwarder,
        memory: PayloadMemory,
        joiner: Joiner,
        counters: Counters,
        in_flight_max: int,
        on_violation: Callable[[InvariantViolation], None],
    ) -> None:
        self._targets = targets
        self._forwarder = forwarder
        self._memory = memory
        self._joiner = joiner
        self._counters = counters
        self.in_flight_max = in_flight_max
        self._on_violation = on_violation
        """Told when the core finds its state impossible: the process should end."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._indexes: dict[int, int] = {}
        """Of each target, at what position the memory of its updates is counted."""

    # -- requests ------------------------------------------------------------------------------------------------

    def allocate(self, request: UpdateChunks, length: int) -> Allocation:
        """Memory for a request's payload. Raises BUSY."""
        position = 0
        if request.source and request.items:
            target = self._targets.by_chain.get(request.items[0].chain)
            if target is not None and target.position is not None:
                position = target.position.index
        payload = self._memory.take(position, length)
        return Allocation(payload, payload.drop)

    def update(self, call: Call) -> "Reply | asyncio.Future[Reply]":
        """UPDATE_CHUNKS. Each item succeeds or fails by itself.

        Giving up the future stops nothing: the work goes on in tasks of this object.
        """
        loop = asyncio.get_running_loop()
        message: UpdateChunks = call.request
        items = message.items
        payload = call.payload if isinstance(call.payload, Payload) else None
        if not 1 <= len(items) <= UPDATE_ITEMS_MAX:
            raise EmberError(Code.INVALID, f"{len(items)} updates in one request; 1 to {UPDATE_ITEMS_MAX}")
        views = views_of(items, payload)
        now = loop.time()
        give_up = now + patience_s(call.deadline - now)
        request = UpdateRequest(message.client, message.source, [*items], views, payload, give_up, loop.create_future())
        call.times = request.times
        if payload is not None:
            payload.hold()
        touched: dict[int, Target] = {}
        for index, item in enumerate(items):
            target = self._submit_item(request, index, item)
            if target is not None:
                touched[target.id] = target
        request.touched = touched.values()
        for target in touched.values():
            self._start(target, request)
        self._counters.add("updates", len(items))
        if message.source and any(
            target.position is not None and target.position.syncing for target in request.touched
        ):
            self._counters.add("updates_while_syncing", len(items))
        if not message.source:
            # Of clients, so that each update of a chain counts once.
            self._counters.add("updates_of_clients", len(items))
            self._counters.add("bytes_written", len(payload[0]) if payload is not None else 0)
        done = request.done
        return done.result() if done.done() else done

    async def perform(
        self, target: Target, operations: list[Operation], items: list[UpdateItem | None], timeout: float
    ) -> UpdateRequest:
        """Operations of this daemon itself on one target; the request, done. `timeout` bounds the forwarding."""
        loop = asyncio.get_running_loop()
        request = UpdateRequest(
            b"", 0, items, [NO_PAYLOAD] * len(items), None, loop.time() + timeout, loop.create_future()
        )
        for index, operation in enumerate(operations):
            operation.request = request
            operation.request_index = index
            self._submit(target, operation)
        self._start(target, request)
        await asyncio.shield(request.done)
        return request

    async def settle(self, target: Target, chunks: Sequence[bytes], timeout: float) -> UpdateRequest | None:
        """Drive what is pending of `chunks` to its end. None: nothing to do."""
        position = target.position
        if not chunks or position is None:
            return None
        operations = [Operation(chunk, Duty.SETTLE, chain_version=position.version) for chunk in chunks]
        self._counters.add("settles", len(operations))
        return await self.perform(target, operations, [None] * len(operations), timeout)

    async def push(self, target: Target, chunks: Sequence[bytes], timeout: float) -> UpdateRequest:
        """Send what is committed of `chunks` to the syncing successor, whole, each when it has its turn. An item of the
        result without an error is there now. Raises CHAIN_VERSION: this target fills nobody."""
        position = target.position
        if position is None or not position.fills:
            raise EmberError(Code.CHAIN_VERSION, f"target {target.id} fills nobody")
        operations = [Operation(chunk, Duty.PUSH, chain_version=position.version) for chunk in chunks]
        self._counters.add("pushes", len(operations))
        return await self.perform(target, operations, [None] * len(operations), timeout)

    async def confirm(self, target: Target, told: Sequence[tuple[bytes, int, Told]], timeout: float) -> None:
        """Commit what is pending here and, as the tail says, committed there. Of each chunk: what was pending when the
        tail was asked (its digest), and the tail's word.

        That is of now: were it kept until a chunk that is held is free, the tail might have lost what it said.
        """
        position = target.position
        if position is None:
            return
        operations = [
            Operation(chunk, Duty.CONFIRM, chain_version=position.version, version=version, digest=digest, base=asked)
            for chunk, asked, (version, digest) in told
            if not target.replica.holds(chunk)
        ]
        if not operations:
            return
        self._counters.add("confirms", len(operations))
        await self.perform(target, operations, [None] * len(operations), timeout)

    def chains_changed(self) -> None:
        """Targets have been placed anew: go on with what was waiting for other successors than those of now."""
        for target in self._targets.all():
            self._go_on(target, None)
            index = target.position.index if target.position is not None else 0
            if index != self._indexes.get(target.id, index):
                for operation in target.replica.operations():
                    payload = operation.request.payload
                    if operation.source and payload is not None:
                        payload.count_at(index)
            self._indexes[target.id] = index

    async def idle(self) -> None:
        """Wait until no update is in work."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def close(self) -> None:
        """Stop what is in work where it is: pending versions are settled after the next start."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _submit_item(self, request: UpdateRequest, index: int, item: UpdateItem) -> Target | None:
        """Make an operation of an item, or fail it."""
        try:
            target = self._targets.require(item.chain)
            if not target.serves and not (request.source and target.may_act):
                raise EmberError(Code.NOT_SERVING, target.why_not())
            kind = _KINDS.get(item.kind)
            if kind is None or (request.source == 0 and (kind not in _CLIENT_KINDS or item.version)):
                raise EmberError(Code.INVALID, f"an update of kind {item.kind} and version {item.version} is not taken")
            if request.source and kind is UpdateKind.SCATTER:
                raise EmberError(Code.INVALID, "scattered updates are joined at the head")
            if kind is UpdateKind.FORGET:
                if target.position is None or not target.position.syncing:
                    raise EmberError(Code.CHAIN_VERSION, f"target {target.id} is not syncing: it forgets nothing")
            elif request.source and (item.version < 1 or item.digest < 1):
                raise EmberError(Code.INVALID, "an update from a predecessor names its version and that one's digest")
            if request.source == 0 and len(request.client) != 16:
                raise EmberError(Code.INVALID, f"a client id has 16 bytes, not {len(request.client)}")
            limit = self.in_flight_max * _FORWARDED_FACTOR if request.source else self.in_flight_max
            if target.in_flight >= limit:
                raise EmberError(Code.BUSY, f"target {target.id} has {target.in_flight} updates in work")
            try:
                chunk = chunk_id(item.inode, item.index)
            except struct.error:
                raise EmberError(Code.INVALID, f"inode {item.inode} chunk {item.index} is no chunk") from None
        except EmberError as error:
            request.fail(index, error.code, error.message)
            return None
        self._submit(
            target,
            Operation(
                chunk,
                kind,
                chain_version=item.chain_version,
                length=item.length,
                version=item.version,
                source=request.source,
                client=request.client,
                channel=item.channel,
                sequence=item.sequence,
                digest=item.digest,
                base=item.base,
                request=request,
                request_index=index,
            ),
        )
        return target

    def _submit(self, target: Target, operation: Operation) -> None:
        target.in_flight += 1
        target.refresh()
        try:
            target.replica.submit(operation)
        except EmberError as error:  # the store's index cannot be read: nothing can be judged here any more
            target.fail(error.message)
            target.in_flight -= 1
            operation.failure = Failure(Code.CHAIN_BROKEN, f"target {target.id}: {error.message}")
            operation.step = Step.DONE
            operation.request.finish(operation)

    def _start(self, target: Target, request: UpdateRequest) -> None:
        """Begin with those operations of `request` that have their chunk already."""
        operations = self._go_on(target, request)
        if operations:
            self._spawn(target, self._run(target, request, operations))

    # -- running the core's instructions ---------------------------------------------------------------------------

    def _go_on(self, target: Target, mine: UpdateRequest | None) -> list[Operation]:
        """Take new instructions of `target`. Those of `mine` are returned, those of other requests get tasks."""
        returned: list[Operation] = []
        others: dict[UpdateRequest, list[Operation]] = {}
        for operation in target.replica.take():
            request: UpdateRequest = operation.request
            if operation.step is Step.DONE:
                target.in_flight -= 1
                if operation.failure is not None:
                    self._counters.add("updates_failed")
                request.finish(operation)
            elif request is mine:
                returned.append(operation)
            else:
                others.setdefault(request, []).append(operation)
        if not target.ready and target.become_ready():
            self._targets.changed()
        for report in target.replica.take_reports():
            self._counters.add("chunks_differed")
            logger.error("chain %d: %s", target.position.chain if target.position is not None else 0, report)
        for request, operations in others.items():
            # Not its first step now: a queue of updates that never suspend would become a recursion.
            self._keep(
                asyncio.get_running_loop().create_task(self._guarded(target, self._run(target, request, operations)))
            )
        return returned

    async def _run(self, target: Target, request: UpdateRequest, operations: list[Operation]) -> None:
        """Take `operations` of `request`, all under way, to their end or to where another task takes over."""
        while operations:
            step = operations[0].step
            together = [operation for operation in operations if operation.step is step]
            if len(together) < len(operations):
                rest = [operation for operation in operations if operation.step is not step]
                self._spawn(target, self._run(target, request, rest))
            began_ns = clock_ns()
            if request.queued_ns < 0:
                request.queued_ns = began_ns - request.began_ns
            match step:
                case Step.PREPARE:
                    await self._prepare(target, request, together)
                case Step.FORWARD | Step.PUSH:
                    await self._forward(target, request, together, 1)
                case Step.RESEND | Step.FORWARD_WHOLE:
                    for operation in together[1:]:
                        self._spawn(target, self._send_whole(target, request, operation))
                    await self._send_whole_attempts(target, request, together[0])
                case Step.COMMIT | Step.CONFIRM:
                    await self._commit(target, together)
                case Step.FORGET:
                    await self._forget(target, together)
                case Step.ABANDON:
                    await self._abandon(target, together)
                case Step.QUEUED | Step.DONE:
                    raise InvariantViolation(f"{step} is no instruction: {together}")
            if step in SENDING:
                request.forward_ns += clock_ns() - began_ns
            else:
                request.disk_ns += clock_ns() - began_ns
            operations = self._go_on(target, request)

    async def _prepare(self, target: Target, request: UpdateRequest, operations: list[Operation]) -> None:
        replica = target.replica
        now = asyncio.get_running_loop().time()
        if now >= request.give_up:
            for operation in operations:
                replica.prepare_refused(operation, Failure(Code.BUSY, "its time was over before its chunk was free"))
            return
        for operation in operations:
            if operation.kind is UpdateKind.SCATTER:
                operations = await self._join(target, request, operations)
                break
        updates = []
        for operation in operations:
            item = request.items[operation.request_index]
            assert item is not None
            updates.append(
                Update(
                    operation.chunk,
                    item.kind,
                    item.offset,
                    request.views[operation.request_index],
                    item.checksums,
                    item.chunk_size,
                    operation.version,
                    operation.chain_version,
                    item.durability,
                    operation.client,
                    operation.channel,
                    operation.sequence,
                )
            )
        try:
            results = await target.store.prepare(updates)
        except Exception as error:
            self._lost_store(target, error)
            for operation in operations:
                replica.prepare_lost(operation, Failure(Code.CHAIN_BROKEN, f"target {target.id} failed: {error}"))
            return
        target.refresh()
        for operation, result in zip(operations, results, strict=True):
            if not isinstance(result, EmberError):
                replica.prepared(operation, result.length)
                continue
            if result.code is Code.DISK_FAILED:
                # After a failed sync nobody knows what is on the disk.
                target.fail(result.message)
                replica.prepare_lost(operation, Failure(Code.CHAIN_BROKEN, f"target {target.id}: {result.message}"))
                continue
            if result.code is Code.CHECKSUM:
                # What it changes may be damaged here; whether it is, or what it brings, shows when somebody looks.
                self._targets.suspect(target, operation.chunk)
            code = result.code
            if target.position is not None and target.position.syncing:
                if operation.kind in (UpdateKind.WRITE, UpdateKind.TRUNCATE) and code is not Code.NO_SPACE:
                    code = Code.NEEDS_WHOLE  # whatever is wrong with what it has: that makes it right
                elif code is not Code.CHECKSUM:
                    target.cannot_fill(result.message, now)
                    self._targets.changed()
            replica.prepare_refused(operation, Failure(code, f"target {target.id}: {result.message}"))

    async def _forget(self, target: Target, operations: list[Operation]) -> None:
        try:
            await target.store.forget([operation.chunk for operation in operations])
        except Exception as error:
            self._lost_store(target, error)
            for operation in operations:
                failure = Failure(Code.CHAIN_BROKEN, f"target {target.id} failed: {error}")
                target.replica.forget_failed(operation, failure)
            return
        target.refresh()
        for operation in operations:
            target.replica.forgotten(operation)

    async def _join(self, target: Target, request: UpdateRequest, operations: list[Operation]) -> list[Operation]:
        """Make WRITEs of scattered updates. Returns the operations that go on."""
        ready = []
        for operation in operations:
            index = operation.request_index
            item = request.items[index]
            assert item is not None
            if item.kind == UpdateKind.SCATTER:
                try:
                    joined = await self._joiner.join(target.store, operation.chunk, item, request.views[index])
                except EmberError as error:
                    if error.code in (Code.CHECKSUM, Code.DISK_FAILED):
                        self._targets.suspect(target, operation.chunk)
                    target.refresh()
                    target.replica.prepare_refused(
                        operation, Failure(error.code, f"target {target.id}: {error.message}")
                    )
                    continue
                request.join(index, *joined)
                self._counters.add("updates_joined")
            ready.append(operation)
        target.refresh()
        return ready

    async def _commit(self, target: Target, operations: list[Operation]) -> None:
        replica = target.replica
        pairs = [
            (operation.chunk, operation.version if operation.step is Step.COMMIT else operation.leftover)
            for operation in operations
        ]
        try:
            await target.store.commit(pairs)
        except Exception as error:
            self._lost_store(target, error)
            for operation in operations:
                replica.commit_failed(operation, Failure(Code.CHAIN_BROKEN, f"target {target.id} failed: {error}"))
            return
        target.refresh()
        for operation in operations:
            replica.committed(operation)

    async def _abandon(self, target: Target, operations: list[Operation]) -> None:
        for operation in operations:
            try:
                await target.store.abandon(operation.chunk, operation.version)
            except Exception as error:
                self._lost_store(target, error)
                failure = Failure(Code.CHAIN_BROKEN, f"target {target.id} failed: {error}")
                target.replica.abandon_failed(operation, failure)
            else:
                self._counters.add("abandons")
                target.refresh()
                target.replica.abandoned(operation)

    async def _forward(self, target: Target, request: UpdateRequest, operations: list[Operation], attempt: int) -> None:
        """One attempt for `operations`, together; those that need another get it in a task of their own."""
        loop = asyncio.get_running_loop()
        asked = operations[0].asked
        left_s = request.give_up - loop.time()
        if operations[0].step is Step.PUSH:
            outcomes = await self._forwarder.push(target, asked, operations, left_s, attempt)
        else:
            items, send = frame_of(request, operations, asked.version if asked is not None else 0)
            self._counters.add("forwards", len(items))
            request.sending += 1
            try:
                outcomes = await self._forwarder.forward(target, asked, request.client, items, send, left_s, attempt)
            finally:
                request.sent()
        again = self._take_outcomes(target, request, operations, asked, outcomes, attempt)
        if again:
            self._spawn(target, self._forward_again(target, request, again, asked, attempt + 1))

    async def _forward_again(
        self,
        target: Target,
        request: UpdateRequest,
        operations: list[Operation],
        asked: Position | None,
        attempt: int,
    ) -> None:
        await asyncio.sleep(_backoff_s(attempt))
        target.refresh()
        operations = [operation for operation in operations if target.replica.try_again(operation, asked)]
        if operations:
            self._counters.add("forward_retries", len(operations))
            await self._forward(target, request, operations, attempt)
        await self._run(target, request, self._go_on(target, request))

    async def _send_whole(self, target: Target, request: UpdateRequest, operation: Operation) -> None:
        await self._send_whole_attempts(target, request, operation)
        await self._run(target, request, self._go_on(target, request))

    async def _send_whole_attempts(self, target: Target, request: UpdateRequest, operation: Operation) -> None:
        """One chunk, from the store."""
        loop = asyncio.get_running_loop()
        asked = operation.asked
        attempt = 1
        while True:
            self._counters.add("resends")
            outcome = await self._forwarder.send_whole(target, operation, request.give_up - loop.time(), attempt)
            if not self._take_outcomes(target, request, [operation], asked, [outcome], attempt):
                return
            attempt += 1
            await asyncio.sleep(_backoff_s(attempt))
            target.refresh()
            if not target.replica.try_again(operation, asked):
                return

    def _take_outcomes(
        self,
        target: Target,
        request: UpdateRequest,
        operations: list[Operation],
        asked: Position | None,
        outcomes: Sequence[Outcome],
        attempt: int,
    ) -> list[Operation]:
        """Report an attempt to the core. Returns the operations that are to be tried again."""
        replica = target.replica
        now = asyncio.get_running_loop().time()
        enough = now + _backoff_s(attempt + 1) >= request.give_up
        again = []
        failures: set[str] = set()
        target.refresh()
        for operation, outcome in zip(operations, outcomes, strict=True):
            if operation.asked is not asked:
                continue  # the chain has changed, and it goes its way without this attempt
            match outcome:
                case Accepted(version, length):
                    replica.forwarded(operation, version, length, asked)
                case Refused(failure, _, _) if failure.code is Code.NEEDS_WHOLE and operation.step is Step.FORWARD:
                    replica.needs_whole(operation, asked)
                case Refused(failure, final, silent):
                    if not silent:
                        request.reason = failure.message
                    elif request.reason:
                        failure = Failure(failure.code, request.reason)
                    if final or enough:
                        failures.add(failure.message)
                        replica.forward_failed(operation, failure, asked)
                    else:
                        replica.forward_attempt_failed(operation, failure, asked)
                        if operation.step in SENDING and operation.asked is asked:
                            again.append(operation)
        for message in failures:
            logger.warning("given up after %d attempts: %s", attempt, message)
        return again

    # -- tasks -----------------------------------------------------------------------------------------------------

    def _lost_store(self, target: Target, error: Exception) -> None:
        logger.error("the store of target %d failed", target.id, exc_info=error)
        target.fail(f"its store failed: {error}")

    def _spawn(self, target: Target, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run in a task of this object; its first step runs now."""
        task = eager.start(self._guarded(target, coroutine), asyncio.get_running_loop())
        if task is not None:
            self._keep(task)

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, target: Target, coroutine: Coroutine[Any, Any, None]) -> None:
        """An error nobody expected leaves an update where it is: the target stops rather than go on beside it."""
        try:
            await coroutine
        except InvariantViolation as error:
            target.fail(str(error))
            self._on_violation(error)
        except Exception as error:
            logger.exception("an update of target %d ended in a defect of this process", target.id)
            target.fail(f"defect: {error!r}")


def patience_s(left_s: float) -> float:
    """How long to try when the caller waits for `left_s`: less, so that our reason arrives before it gives up."""
    left_s = min(left_s, DEADLINE_DEFAULT_S)
    return left_s - max(left_s / 10, min(MARGIN_S_MIN, left_s / 4))


def _backoff_s(attempt: int) -> float:
    """Wait before attempt number `attempt`."""
    return min(BACKOFF_S_MIN * 2.0 ** min(attempt - 2, 10), BACKOFF_S_MAX)
