"""A target that leaves its chain: it stops, says so for as long as it might be taken to serve, and its store goes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_common.making import Making
from fs_common.manager_client import TargetVerdict
from fs_common.records.routing import Chain, ChainTarget, LocalState, PublicState, Routing, StoreVerdict
from fs_storage.directory import NodeDirectory, claim
from fs_storage.engine.interface import ChunkStore, NoStore
from fs_storage.engine.memory_store import MemoryStore
from fs_storage.targets import Targets
from tests.storage.chain import eventually
from tests.storage.engine.updates import apply, write
from tests.support import run

S, Y, O = PublicState.SERVING, PublicState.SYNCING, PublicState.OFFLINE


def routing(version: int, *members: tuple[int, PublicState]) -> Routing:
    chain = Chain(1, version, [ChainTarget(target, target // 100, state) for target, state in members])
    return Routing(version, "c", [], [chain], [], 2)


BOTH = routing(1, (101, S), (201, S))
DROPPED = routing(2, (201, S), (101, O))
GONE = routing(3, (201, S))


class Disk:
    """A directory, of names only."""

    def __init__(self, *targets: int) -> None:
        self.targets = list(targets)
        self.fails = False

    def stored(self) -> list[int]:
        return list(self.targets)

    def remove_target(self, target: int) -> None:
        if self.fails:
            raise OSError(5, "Input/output error")
        self.targets.remove(target)


class Host:
    """The targets of node 1, without its daemon."""

    def __init__(self, *, disk: Disk | None = None, now: Routing = BOTH) -> None:
        self.store = MemoryStore()
        self.disk = disk or Disk(101)
        self.routing = now
        self.targets = Targets(1, self, self._open, self.disk)

    def lease_valid(self) -> bool:
        return True

    async def _open(self, target: int, make: bool) -> ChunkStore:
        if target not in self.disk.targets:
            raise NoStore
        return self.store

    async def follow(self, now: Routing) -> None:
        self.routing = now
        self.targets.apply(now)
        await eventually(lambda: not self.targets._opening)

    def told(self, verdict: StoreVerdict, *, remove: bool = False) -> None:
        """An answer to a heartbeat that was just sent."""
        self.targets.statuses()
        opening = self.store.opening
        self.targets.statuses()  # the heartbeat that is answered
        self.targets.judge([TargetVerdict(101, verdict, opening, 0, 0, "it is drained", remove)])

    @property
    def state(self) -> LocalState:
        return next(status.state for status in self.targets.statuses() if status.target == 101)

    @property
    def serves(self) -> bool:
        target = self.targets.by_chain.get(1)
        return target is not None and target.serves


def with_host(host: Callable[[], Host], case: Callable[[Host], Awaitable[None]]) -> None:
    async def body() -> None:
        made = host()
        await made.follow(made.routing)
        made.told(StoreVerdict.SERVE)
        await case(made)
        await made.targets.close()

    run(body())


def test_who_is_told_to_retire_serves_nothing_and_says_so() -> None:
    async def case(host: Host) -> None:
        assert host.serves
        nudged = []
        host.targets.changed = lambda: nudged.append(host.state)
        host.told(StoreVerdict.RETIRE)
        assert not host.serves and host.state is LocalState.OFFLINE
        with pytest.raises(EmberError) as caught:
            host.targets.require(1).require(1)
        assert caught.value.code is Code.NOT_SERVING and "it is drained" in caught.value.message
        assert not host.targets.troubles(), "nothing is wrong with it"
        await eventually(lambda: nudged == [LocalState.OFFLINE])

    with_host(Host, case)


def test_it_does_not_serve_again_in_the_same_place() -> None:
    """It has said OFFLINE: the manager may have gone on without it, and it has not heard of that."""

    async def case(host: Host) -> None:
        host.told(StoreVerdict.RETIRE)
        host.told(StoreVerdict.SERVE)
        assert not host.serves and host.state is LocalState.OFFLINE
        await host.follow(DROPPED)
        assert host.state is LocalState.OFFLINE, "until the manager wants it"
        host.told(StoreVerdict.SERVE)
        assert host.state is LocalState.ONLINE, "it can be filled up again"
        await host.follow(routing(4, (101, S)))  # all others have gone
        assert host.serves

    with_host(Host, case)


def test_the_store_of_one_that_is_off_its_chain_is_emptied() -> None:
    async def case(host: Host) -> None:
        chunks = [bytes([number]) * 12 for number in range(3)]
        for chunk in chunks:
            await apply(host.store, write(1, b"data", chunk=chunk))
        assert len(host.store.held(b"", 10)) == 3
        host.told(StoreVerdict.RETIRE, remove=True)
        assert len(host.store.held(b"", 10)) == 3, "not while it is on a chain, as far as it knows"
        await host.follow(GONE)
        host.targets.all()[0].in_flight = 1
        host.told(StoreVerdict.RETIRE, remove=True)
        await asyncio.sleep(0)
        assert len(host.store.held(b"", 10)) == 3, "something is in work"
        host.targets.all()[0].in_flight = 0
        host.told(StoreVerdict.RETIRE, remove=True)
        await eventually(lambda: not host.store.held(b"", 10))
        assert host.disk.targets == [101], "its files are in use until this process ends"

    with_host(Host, case)


def test_what_a_former_process_held_is_told_and_removed() -> None:
    async def case(host: Host) -> None:
        assert host.state is LocalState.OFFLINE
        host.told(StoreVerdict.SERVE)
        host.told(StoreVerdict.RETIRE)
        assert host.disk.targets == [101]
        host.told(StoreVerdict.RETIRE, remove=True)
        await eventually(lambda: host.disk.targets == [])
        await eventually(lambda: not host.targets.statuses())

    with_host(lambda: Host(now=GONE), case)


def test_nothing_is_removed_that_the_manager_does_not_name() -> None:
    async def case(host: Host) -> None:
        assert [status.target for status in host.targets.statuses()] == [101, 107]
        host.told(StoreVerdict.RETIRE, remove=True)
        await eventually(lambda: host.disk.targets == [107])

    with_host(lambda: Host(disk=Disk(101, 107), now=GONE), case)


def test_what_cannot_be_removed_stays() -> None:
    async def case(host: Host) -> None:
        host.disk.fails = True
        host.told(StoreVerdict.RETIRE, remove=True)
        await eventually(lambda: all(task.done() for task in host.targets.retiring._gone.values()))
        assert host.disk.targets == [101] and host.state is LocalState.OFFLINE

    with_host(lambda: Host(now=GONE), case)


def test_a_lost_store_is_not_asked_for_any_more() -> None:
    async def case(host: Host) -> None:
        assert host.targets.statuses()[0].no_store
        await host.follow(GONE)
        host.told(StoreVerdict.RETIRE, remove=True)
        assert not host.targets.statuses()

    with_host(lambda: Host(disk=Disk()), case)


def test_a_folder_is_renamed_before_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> NodeDirectory:
        return claim(tmp_path / "node", "c", 1, Making.IF_MISSING)

    with made() as directory:
        for name in ("target-101/blocks", "target-107", "target-x", "other"):
            (directory.path / name).mkdir(parents=True)
        assert directory.stored() == [101, 107]

        def cut(path: Path, ignore_errors: bool = False) -> None:
            if not ignore_errors:
                raise OSError(5, "the power goes")

        with monkeypatch.context() as patch:
            patch.setattr("shutil.rmtree", cut)
            with pytest.raises(OSError):
                directory.remove_target(101)
        assert directory.stored() == [107] and (directory.path / "retired-101").is_dir()
        directory.sweep()
        assert not (directory.path / "retired-101").exists()
        directory.remove_target(107)
        assert sorted(path.name for path in directory.path.iterdir()) == ["lock", "node.json", "other", "target-x"]
