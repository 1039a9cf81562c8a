"""Survivors that are not whole make each other whole (as `mending`), with the real plan; and what they are asked."""

from typing import TYPE_CHECKING, Any

from fs_common.checks import check
from fs_common.errors import Code, EmberError
from fs_common.records.routing import ChainTarget
from fs_common.records.storage import UpdateKind
from fs_storage.craq.mend import Commit, Conflict, Drop, Other, Pull, Remove, Step, plan
from fs_storage.craq.operation import Step as OperationStep
from fs_storage.craq.position import Position
from fs_storage.engine.interface import Held, Remembered
from fs_storage.target import Target
from tests.sim.store import Version

if TYPE_CHECKING:
    from tests.sim.daemon import Daemon

INTERVAL_MS = 1_000.0
PAGE = 2
"""Small, so that lists have several."""
CALL_MS = 5_000.0
_UNDER_WAY = tuple(step for step in OperationStep if step not in (OperationStep.QUEUED, OperationStep.DONE))


class Mending:
    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    async def run(self) -> None:
        daemon = self._daemon
        while True:
            changed = daemon.changed.next
            for target in list(daemon.targets.values()):
                try:
                    await self._look(target)
                except EmberError as error:
                    daemon.trace(f"target {target.id} is not whole yet: {error}")
            await daemon.kernel.either(daemon, changed, INTERVAL_MS)

    async def _look(self, target: Target) -> None:
        position = target.position
        if target.store.whole or target.failed is not None or position is None or position.syncing:
            return
        if target.replica.busy_chunks or not target.admitted or not self._daemon.lease_valid():
            return
        if len(position.members) < 2:
            await self._declare_whole(target, position)
        else:
            target.mends = True
            try:
                await self._mend(target, position)
            finally:
                target.mends = False

    async def _declare_whole(self, target: Target, position: Position) -> None:
        """Nobody is left that could be asked."""
        store: Any = target.store
        await self._daemon.write(target, store.sync)
        if target.position == position:
            await self._daemon.write(target, store.declare_whole)
            self._is_whole(target, "by itself")

    def _is_whole(self, target: Target, how: str) -> None:
        daemon = self._daemon
        target.mends = False
        target.mended()
        daemon.trace(f"target {target.id} is whole {how}: {target.store.chunks}")  # type: ignore[attr-defined]
        daemon.checks.count("mended")
        daemon.updates.execute(target)
        daemon.nudged.open()
        daemon.changed.open()

    async def _mend(self, target: Target, position: Position) -> None:
        others = [member for member in position.members if member.target != target.id]
        lists = [await self._list(target, position, member) for member in others]
        floor = max(found.floor for found in lists)
        places = [member.target for member in position.members]
        chunks = sorted({chunk for found in lists for chunk in found.held} | set(target.store.chunks))  # type: ignore[attr-defined]
        for chunk in chunks:
            seen = []
            for source, (found, member) in enumerate(zip(lists, others, strict=True)):
                held = found.held.get(chunk, Held(chunk))
                seen.append(Other(held, source, places.index(member.target) > position.index))
                if held.removed:
                    floor = max(floor, held.version)
                if held.pending_removed:
                    floor = max(floor, held.pending_version)
            for step in plan(target.store.holding(chunk), seen):
                if target.position != position:
                    raise EmberError(Code.CHAIN_VERSION, "the chain changed meanwhile")
                await self._do(target, position, others, chunk, step)
        for member in others:
            after = b""
            while True:
                answers, after = await self._call(member, "remembered", position.chain, position.version, after, False)
                target.store.adopt(answers, 0)
                if not after:
                    break
        store: Any = target.store
        store.adopt((), floor)
        await self._daemon.write(target, store.sync)
        if target.position != position or not self._daemon.lease_valid():
            raise EmberError(Code.CHAIN_VERSION, "the chain changed meanwhile")
        await self._daemon.write(target, store.declare_whole)
        self._is_whole(target, f"at v{position.version}")

    async def _list(self, target: Target, position: Position, member: ChainTarget) -> "_List":
        found = _List()
        after = b""
        while True:
            page, whole, floor, _ = await self._call(
                member, "list_held", position.chain, position.version, after, PAGE, target.id
            )
            if whole and self._daemon.defects.waits_for_the_whole:
                raise EmberError(Code.NOT_SERVING, f"it waits to be filled up by target {member.target}")
            found.floor = max(found.floor, floor)
            found.held.update((held.chunk, held) for held in page)
            if len(page) < PAGE:
                return found
            after = page[-1].chunk

    async def _do(
        self, target: Target, position: Position, others: list[ChainTarget], chunk: bytes, step: Step
    ) -> None:
        store: Any = target.store
        daemon = self._daemon
        match step:
            case Remove(number):
                removal = Version(number, None, position.version, (b"", 0, 0), daemon.kernel.now)
                await daemon.write(target, lambda: store.put(chunk, removal))
            case Commit(number):
                await daemon.write(target, lambda: store.commit(chunk, number))
            case Drop(number):
                await daemon.write(target, lambda: store.abandon(chunk, number))
            case Pull():
                version: Version = await self._call(
                    others[step.source], "pull", position.chain, position.version, chunk, step.digest, step.pending
                )
                daemon.checks.count("pulled")
                if step.pending:
                    kind = UpdateKind.REMOVE if version.content is None else UpdateKind.REPLACE
                    await daemon.write(
                        target,
                        lambda: store.prepare(
                            chunk, version.number, kind, version.content, version.identity, position.version
                        ),
                    )
                else:
                    made = version._replace(chain_version=position.version)
                    await daemon.write(target, lambda: store.put(chunk, made))
            case Conflict(message):
                check(False, message)

    async def _call(self, member: ChainTarget, method: str, *arguments: Any) -> Any:
        return await self._daemon.network.call(self._daemon, f"n{member.node}", method, *arguments, timeout_ms=CALL_MS)

    # -- what others ask ---------------------------------------------------------------------------------------

    def _speaks(self, chain: int, chain_version: int) -> Target:
        target = self._daemon.target(chain)
        position = target.position
        if position is None or target.failed is not None or not target.admitted or not self._daemon.lease_valid():
            raise EmberError(Code.NOT_SERVING, f"target {target.id} does not speak")
        if position.syncing and target.mends:
            raise EmberError(Code.NOT_SERVING, f"target {target.id} is mended")
        if position.version != chain_version:
            raise EmberError(Code.CHAIN_VERSION, f"target {target.id} is at {position.version}, not {chain_version}")
        return target

    async def list_held(
        self, chain: int, chain_version: int, after: bytes, limit: int, asker: int
    ) -> tuple[list[Held], bool, int, int]:
        target = self._speaks(chain, chain_version)
        position = target.position
        assert position is not None
        if position.syncing:
            if position.predecessor is None or position.predecessor.target != asker:
                raise EmberError(Code.NOT_SERVING, "its predecessor alone may ask it")
            if not after and self._daemon.defects.waits_for_what_was_begun:
                await self._ended(target, _UNDER_WAY)
        else:
            await self._no_news_of_before(target, position, asker)
        target = self._speaks(chain, chain_version)
        store: Any = target.store
        return store.held(after, limit), store.whole, store.floor, store.opening

    async def _no_news_of_before(self, target: Target, position: Position, asker: int) -> None:
        if position.predecessor is not None and position.predecessor.target == asker:
            await self._ended(target, (OperationStep.CONFIRM, OperationStep.PREPARE))
        elif asker in [member.target for member in position.members[position.index + 1 :]]:
            await self._ended(target, (OperationStep.CONFIRM, OperationStep.COMMIT))

    async def _ended(self, target: Target, steps: tuple[OperationStep, ...]) -> None:
        for operation in target.replica.in_steps(steps):
            while operation.step in steps:
                await self._daemon.kernel.sleep(self._daemon, 10.0)

    def remembered(self, chain: int, chain_version: int, after: bytes, every: bool) -> tuple[list[Remembered], bytes]:
        store: Any = self._speaks(chain, chain_version).store
        answers: tuple[list[Remembered], bytes] = store.remembered(after, PAGE, every=every)
        return answers

    def pull(self, chain: int, chain_version: int, chunk: bytes, digest: int, pending: bool) -> Version:
        store: Any = self._speaks(chain, chain_version).store
        entry = store.chunks.get(chunk)
        version: Version | None = None if entry is None else entry.pending if pending else entry.committed
        if version is None or store.digest(chunk, pending=pending) != digest:
            raise EmberError(Code.CHUNK_NOT_FOUND, "it has not that version")
        return version


class _List:
    def __init__(self) -> None:
        self.held: dict[bytes, Held] = {}
        self.floor = 0
