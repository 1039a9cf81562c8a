"""What a daemon does with updates: it runs the instructions of the real core, each in a task of its own."""

from typing import TYPE_CHECKING, Any

from fs_common.errors import Code, EmberError, Retry
from fs_common.records.storage import UpdateKind
from fs_storage.craq.operation import SENDING, Duty, Failure, Operation, Step
from fs_storage.craq.position import Position
from fs_storage.engine.digest import NOTHING_DIGEST
from fs_storage.forward import _FINAL, _TOLD, _UNCLEAR
from fs_storage.target import Target
from tests.sim.kernel import Future
from tests.sim.store import Identity

if TYPE_CHECKING:
    from tests.sim.daemon import Daemon

BACKOFF_MS_MIN = 50.0
BACKOFF_MS_MAX = 1_000.0


class Work:
    """What an operation means, and who waits for it."""

    __slots__ = ("argument", "done", "give_up_ms", "kind")

    def __init__(self, kind: UpdateKind, argument: object, give_up_ms: float) -> None:
        self.kind = kind
        self.argument = argument
        self.give_up_ms = give_up_ms
        self.done = Future()


class Message:
    """An update as it is sent: from a client, or from a replica to its successor."""

    __slots__ = ("argument", "base", "chunk", "digest", "identity", "kind", "source", "version")

    def __init__(
        self,
        chunk: bytes,
        kind: UpdateKind,
        argument: object,
        identity: Identity,
        *,
        source: int = 0,
        version: int = 0,
        digest: int = 0,
        base: int = 0,
    ) -> None:
        self.chunk = chunk
        self.kind = kind
        self.argument = argument
        self.identity = identity
        self.source = source
        self.version = version
        self.digest = digest
        self.base = base

    def __repr__(self) -> str:
        version = f" v{self.version}" if self.version else ""
        return f"{self.kind.name} {self.chunk.decode()}{version} {self.argument} of {self.identity}"


class Updates:
    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._kernel = daemon.kernel

    # -- requests ----------------------------------------------------------------------------------------------

    async def update(self, chain: int, chain_version: int, message: Message, time_ms: float) -> tuple[int, int]:
        """The version made, and the chunk's length. `time_ms`: for how long the caller waits."""
        daemon = self._daemon
        target = daemon.target(chain)
        if not target.serves and not (message.source and target.may_act):
            raise EmberError(Code.NOT_SERVING, f"target {target.id} does not serve")
        client, channel, sequence = message.identity
        operation = Operation(
            message.chunk,
            message.kind,
            chain_version=chain_version,
            version=message.version,
            length=len(message.argument) if isinstance(message.argument, tuple) else 0,
            source=message.source,
            client=client,
            channel=channel,
            sequence=sequence,
            digest=message.digest,
            base=message.base,
        )
        work = Work(message.kind, message.argument, self._kernel.now + time_ms * 0.9)
        await self.perform(target, operation, work)
        if operation.failure is not None:
            raise EmberError(operation.failure.code, operation.failure.message)
        if not message.source:
            daemon.checks.acknowledges(target, operation)
        return operation.version, operation.length

    async def perform(self, target: Target, operation: Operation, work: Work) -> None:
        operation.request = work
        target.refresh()
        target.replica.submit(operation)
        self.execute(target)
        await work.done

    async def settle(self, target: Target, chunk: bytes, time_ms: float) -> None:
        position = target.position
        if position is None:
            return
        operation = Operation(chunk, Duty.SETTLE, chain_version=position.version)
        await self.perform(target, operation, Work(UpdateKind.WRITE, "", self._kernel.now + time_ms))

    async def push(self, target: Target, chunk: bytes, time_ms: float) -> Failure | None:
        position = target.position
        if position is None or not position.fills:
            return Failure(Code.CHAIN_VERSION, "it fills nobody")
        operation = Operation(chunk, Duty.PUSH, chain_version=position.version)
        await self.perform(target, operation, Work(UpdateKind.WRITE, "", self._kernel.now + time_ms))
        return operation.failure

    # -- running instructions ----------------------------------------------------------------------------------

    def execute(self, target: Target) -> None:
        for operation in target.replica.take():
            if operation.step is Step.DONE:
                operation.request.done.set()
            else:
                self._kernel.spawn(self._daemon, self._run(target, operation))
        if not target.ready and target.become_ready():
            self._daemon.trace(f"target {target.id} is ready")
            self._daemon.checks.look()
            self._daemon.nudged.open()
            self._daemon.changed.open()
        target.replica.take_reports()

    async def _run(self, target: Target, operation: Operation) -> None:
        match operation.step:
            case Step.PREPARE:
                await self._prepare(target, operation)
            case Step.FORWARD | Step.RESEND | Step.FORWARD_WHOLE | Step.PUSH:
                await self._send(target, operation)
            case Step.COMMIT | Step.CONFIRM:
                await self._commit(target, operation)
            case Step.FORGET:
                await self._forget(target, operation)
            case Step.ABANDON:
                await self._abandon(target, operation)
            case Step.QUEUED:
                raise AssertionError(f"an operation that waits is an instruction: {operation}")
        self.execute(target)

    async def _prepare(self, target: Target, operation: Operation) -> None:
        work: Work = operation.request
        store: Any = target.store
        replica = target.replica
        if self._kernel.now >= work.give_up_ms:
            replica.prepare_refused(operation, Failure(Code.BUSY, "its time was over before its chunk was free"))
            return
        try:
            length = await self._daemon.write(
                target,
                lambda: store.prepare(
                    operation.chunk,
                    operation.version,
                    work.kind,
                    work.argument,
                    operation.identity,
                    operation.chain_version,
                ),
            )
        except EmberError as error:
            target.refresh()
            if error.code is Code.DISK_FAILED:
                replica.prepare_lost(operation, Failure(Code.CHAIN_BROKEN, "its disk fails"))
                return
            if error.code is Code.NO_SPACE and target.position is not None and target.position.syncing:
                target.cannot_fill("full", self._kernel.now / 1000)
                self._daemon.nudged.open()
            replica.prepare_refused(operation, Failure(error.code, error.message))
            return
        target.refresh()
        replica.prepared(operation, length)

    async def _commit(self, target: Target, operation: Operation) -> None:
        store: Any = target.store
        version = operation.version if operation.step is Step.COMMIT else operation.leftover
        try:
            await self._daemon.write(target, lambda: store.commit(operation.chunk, version))
        except EmberError as error:
            target.refresh()
            target.replica.commit_failed(operation, Failure(Code.CHAIN_BROKEN, error.message))
            return
        target.refresh()
        target.replica.committed(operation)

    async def _forget(self, target: Target, operation: Operation) -> None:
        store: Any = target.store
        try:
            await self._daemon.write(target, lambda: store.forget(operation.chunk))
        except EmberError as error:
            target.refresh()
            target.replica.forget_failed(operation, Failure(Code.CHAIN_BROKEN, error.message))
            return
        target.refresh()
        target.replica.forgotten(operation)

    async def _abandon(self, target: Target, operation: Operation) -> None:
        store: Any = target.store
        try:
            await self._daemon.write(target, lambda: store.abandon(operation.chunk, operation.version))
        except EmberError as error:
            target.refresh()
            target.replica.abandon_failed(operation, Failure(Code.CHAIN_BROKEN, error.message))
            return
        target.refresh()
        self._daemon.checks.count("abandoned")
        target.replica.abandoned(operation)

    # -- to the successor --------------------------------------------------------------------------------------

    async def _send(self, target: Target, operation: Operation) -> None:
        replica, work = target.replica, operation.request
        asked, attempt = operation.asked, 1
        while True:
            try:
                version, length = await self._attempt(target, operation, asked, work)
                failure, final = None, False
            except EmberError as error:
                failure, final = _refused(error)
            target.refresh()
            if operation.asked is not asked and not self._daemon.defects.takes_answers_of_before:
                return
            enough = self._kernel.now + _backoff_ms(attempt + 1) >= work.give_up_ms
            if failure is None:
                replica.forwarded(operation, version, length, asked)
                return
            if failure.code is Code.NEEDS_WHOLE and operation.step is Step.FORWARD:
                self._daemon.checks.count("needed_whole")
                replica.needs_whole(operation, asked)
                return
            if final or enough:
                replica.forward_failed(operation, failure, asked)
                return
            replica.forward_attempt_failed(operation, failure, asked)
            if operation.step not in SENDING or operation.asked is not asked:
                return
            self.execute(target)
            await self._kernel.sleep(self._daemon, _backoff_ms(attempt + 1))
            target.refresh()
            if not replica.try_again(operation, asked):
                return
            attempt += 1

    async def _attempt(
        self, target: Target, operation: Operation, asked: Position | None, work: Work
    ) -> tuple[int, int]:
        if asked is None or asked.successor is None:
            raise EmberError(Code.NOT_SERVING, "no place on the chain")
        left_ms = work.give_up_ms - self._kernel.now
        if left_ms < 5.0:
            raise EmberError(Code.BUSY, "no time is left")
        message = self._message(target, operation, work)
        if message is None:
            raise EmberError(Code.NOT_SERVING, "it is not where it was")
        self._daemon.trace(f"sends {message} to {asked.successor.target} ({operation.step.value})")
        if operation.step is not Step.FORWARD:
            self._daemon.checks.count("sent_" + operation.step.value.replace(" ", "_"))
        timeout_ms = min(left_ms, self._kernel.random.uniform(1_000.0, 8_000.0))
        answer: tuple[int, int] = await self._daemon.network.call(
            self._daemon,
            f"n{asked.successor.node}",
            "update",
            asked.chain,
            asked.version,
            message,
            timeout_ms,
            timeout_ms=timeout_ms,
        )
        return answer

    def _message(self, target: Target, operation: Operation, work: Work) -> Message | None:
        store: Any = target.store
        chunk = operation.chunk
        entry = store.chunks.get(chunk)
        match operation.step:
            case Step.FORWARD:
                return Message(
                    chunk,
                    work.kind,
                    work.argument,
                    operation.identity,
                    source=target.id,
                    version=operation.version,
                    digest=operation.digest,
                    base=operation.base,
                )
            case Step.RESEND | Step.FORWARD_WHOLE:
                version = operation.leftover if operation.step is Step.RESEND else operation.version
                pending = entry.pending if entry is not None else None
                if pending is None or pending.number != version:
                    return None
                state = store.state(chunk)
                return Message(
                    chunk,
                    UpdateKind.REMOVE if pending.content is None else UpdateKind.REPLACE,
                    pending.content,
                    pending.identity,
                    source=target.id,
                    version=version,
                    digest=store.digest(chunk, pending=True),
                    base=NOTHING_DIGEST if state.removed or not state.version else store.digest(chunk),
                )
            case _:
                committed = entry.committed if entry is not None else None
                number = committed.number if committed is not None else 0
                if number != operation.version:
                    return None
                if committed is None:
                    kind, content = UpdateKind.FORGET, None
                else:
                    content = committed.content
                    kind = UpdateKind.REMOVE if content is None else UpdateKind.REPLACE
                return Message(
                    chunk,
                    kind,
                    content,
                    (b"", 0, 0),
                    source=target.id,
                    version=number,
                    digest=store.digest(chunk),
                )


def _refused(error: EmberError) -> tuple[Failure, bool]:
    """As `Forwarder._refused` says it."""
    code = error.code
    final = code in _FINAL
    if code in _TOLD or code is Code.NEEDS_WHOLE:
        told = code
    elif code in _UNCLEAR or code.value.retry is Retry.MAYBE_APPLIED:
        told = Code.CHAIN_BROKEN
    else:
        told = Code.UNREACHABLE
    return Failure(told, error.message), final


def _backoff_ms(attempt: int) -> float:
    return min(BACKOFF_MS_MIN * 2.0 ** min(attempt - 2, 10), BACKOFF_MS_MAX)
