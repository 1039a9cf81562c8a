"""A store serves on the manager's word only: what a daemon makes of each verdict."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_common.manager_client import TargetStatus, TargetVerdict
from fs_common.records.routing import Chain, ChainTable, ChainTarget, LocalState, PublicState, Routing, StoreVerdict
from fs_storage.engine.interface import ChunkStore, NoStore
from fs_storage.engine.memory_store import MemoryStore
from fs_storage.targets import Targets
from tests.storage.chain import eventually
from tests.support import run

TARGET = 101
ROUTING = Routing(1, "c", [], [Chain(1, 1, [ChainTarget(TARGET, 1, PublicState.SERVING)])], [ChainTable(1, 1, [1])], 1)


class Host:
    """A daemon's targets, without the daemon."""

    def __init__(self, store: MemoryStore | None) -> None:
        self.store = store
        self.made = 0
        self.routing = ROUTING
        self.targets = Targets(1, self, self._open)

    def lease_valid(self) -> bool:
        return True

    async def _open(self, target: int, make: bool) -> ChunkStore:
        await asyncio.sleep(0)
        if self.store is None:
            if not make:
                raise NoStore
            self.made += 1
            self.store = MemoryStore()
        return self.store

    async def begin(self) -> None:
        self.targets.apply(self.routing)
        await eventually(lambda: not self.targets._opening)

    @property
    def report(self) -> TargetStatus:
        (status,) = self.targets.statuses()
        return status

    async def told(self, verdict: StoreVerdict, known: tuple[int, int] = (0, 0), reason: str = "") -> None:
        self.targets.judge([TargetVerdict(TARGET, verdict, self.report.opening, *known, reason)])
        await eventually(lambda: not self.targets._opening and not self.targets._renewing and not self.targets._alone)

    def serves(self) -> bool:
        target = self.targets.by_chain.get(1)
        return target is not None and target.serves


def with_host(store: MemoryStore | None, case: Callable[[Host], object]) -> None:
    async def body() -> None:
        host = Host(store)
        await host.begin()
        await case(host)  # type: ignore[misc]
        await host.targets.close()

    run(body())


def test_nothing_is_served_before_the_verdict() -> None:
    async def case(host: Host) -> None:
        assert (host.report.store, host.report.opening, host.report.no_store) == (host.store.identity, 1, False)  # type: ignore[union-attr]
        assert not host.serves()
        with pytest.raises(EmberError) as error:
            host.targets.require(1).require(1)
        assert error.value.code is Code.NOT_SERVING and "manager's word" in str(error.value)
        assert host.targets.troubles() == {}, "that is a moment"
        await host.told(StoreVerdict.SERVE)
        assert host.serves()

    with_host(MemoryStore(), case)


def test_an_empty_directory_is_made_a_store_on_the_managers_word_only() -> None:
    async def case(host: Host) -> None:
        assert host.report.no_store and host.report.store == b"" and host.made == 0
        host.targets.apply(ROUTING)  # asked again
        await eventually(lambda: not host.targets._opening)
        assert host.made == 0 and not host.serves()
        await host.told(StoreVerdict.FORMAT)
        assert host.made == 1 and not host.serves() and host.report.store
        await host.told(StoreVerdict.SERVE)
        assert host.serves()

    with_host(None, case)


def test_a_lost_store_is_not_made_again_and_said_in_words() -> None:
    async def case(host: Host) -> None:
        await host.told(StoreVerdict.FOREIGN, reason="the store of target 101 is lost")
        assert host.made == 0 and not host.serves()
        assert host.targets.troubles() == {TARGET: "the store of target 101 is lost"}
        host.store = MemoryStore()  # the disk is back
        host.targets.apply(ROUTING)
        await eventually(lambda: not host.targets._opening)
        await host.told(StoreVerdict.SERVE)
        assert host.serves() and host.targets.troubles() == {}

    with_host(None, case)


def test_a_foreign_store_serves_nothing_even_if_it_did() -> None:
    async def case(host: Host) -> None:
        await host.told(StoreVerdict.SERVE)
        await host.told(StoreVerdict.FOREIGN, reason="another store")
        assert not host.serves() and host.targets.troubles() == {TARGET: "another store"}

    with_host(MemoryStore(), case)


def test_an_old_copy_is_renewed_and_judged_again() -> None:
    async def case(host: Host) -> None:
        assert host.store is not None
        late = TargetVerdict(TARGET, StoreVerdict.ROLLED_BACK, host.store.opening, 9, 4, "an old copy")
        await host.told(StoreVerdict.ROLLED_BACK, (9, 4), "an old copy")
        assert (host.store.opening, host.store.incarnation, host.store.whole) == (10, 5, False)
        assert not host.serves() and host.targets.troubles() == {TARGET: "an old copy"}
        host.targets.judge([late])  # of what was reported before
        assert not host.targets._renewing
        await host.told(StoreVerdict.SERVE)
        # It is alone on its chain.
        assert host.store.whole and host.store.incarnation == 5
        assert not host.serves(), "the manager has heard that it is not whole, and may have gone on without it"
        await host.told(StoreVerdict.SERVE)
        assert host.serves()

    with_host(MemoryStore(), case)


def test_what_is_not_whole_and_not_alone_waits_for_its_chain() -> None:
    async def case(host: Host) -> None:
        others = [ChainTarget(TARGET, 1, PublicState.SERVING), ChainTarget(201, 2, PublicState.SERVING)]
        host.routing = Routing(2, "c", [], [Chain(1, 1, others)], ROUTING.tables, 2)
        host.targets.apply(host.routing)
        assert host.store is not None
        await host.store.renew(0, 0)
        await host.told(StoreVerdict.SERVE)
        assert not host.serves() and "may have lost something" in host.targets.troubles()[TARGET]

    with_host(MemoryStore(), case)


def test_a_directory_that_cannot_be_opened_is_not_reported_as_empty(tmp_path: Path) -> None:
    async def body() -> None:
        async def broken(target: int, make: bool) -> ChunkStore:
            raise EmberError(Code.DISK_FAILED, "damaged")

        host = Host(None)
        host.targets = Targets(1, host, broken)
        await host.begin()
        assert not host.report.no_store and not host.report.store
        assert "damaged" in host.targets.troubles()[TARGET]
        await host.targets.close()

    run(body())


def test_an_answer_to_an_older_heartbeat_does_not_let_one_serve_that_has_become_whole_since() -> None:
    async def case(host: Host) -> None:
        assert host.store is not None
        await host.told(StoreVerdict.ROLLED_BACK, (9, 4), "an old copy")
        assert not host.report.whole
        answer = TargetVerdict(TARGET, StoreVerdict.SERVE, host.store.opening, 0, 0, "")
        host.targets.judge([answer])
        await eventually(lambda: not host.targets._alone)
        assert host.store.whole
        host.targets.judge([answer])
        assert not host.serves()
        assert host.report.whole
        host.targets.judge([answer])
        assert host.serves()

    with_host(MemoryStore(), case)


def test_an_answer_that_comes_while_a_store_is_declared_whole_does_not_let_it_serve() -> None:
    class Slow(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.declaring = asyncio.Event()
            self.may_end = asyncio.Event()

        async def declare_whole(self) -> None:
            self.declaring.set()
            await self.may_end.wait()
            await super().declare_whole()

    store = Slow()

    async def case(host: Host) -> None:
        host.targets.judge([TargetVerdict(TARGET, StoreVerdict.ROLLED_BACK, store.opening, 9, 4, "an old copy")])
        await eventually(lambda: not host.targets._renewing)
        assert not host.report.whole
        answer = TargetVerdict(TARGET, StoreVerdict.SERVE, store.opening, 0, 0, "")
        host.targets.judge([answer])
        await store.declaring.wait()
        host.targets.judge([answer])
        store.may_end.set()
        await eventually(lambda: store.whole and not host.targets._alone)
        assert not host.serves()
        assert host.report.whole
        host.targets.judge([answer])
        assert host.serves()

    with_host(store, case)


def test_what_is_not_known_yet_is_no_word_of_the_end() -> None:
    """The manager goes on without who says OFFLINE."""

    async def case(host: Host) -> None:
        assert (host.report.state, host.report.no_store) == (LocalState.OPENING, True), "it may never have had one"
        host.targets.judge([TargetVerdict(TARGET, StoreVerdict.FORMAT, 0, 0, 0, "")])
        assert (host.report.state, host.report.no_store) == (LocalState.OPENING, False), "it is being made"
        await eventually(lambda: not host.targets._opening)
        assert (host.report.state, host.report.whole) == (LocalState.UPTODATE, True)

    with_host(None, case)


def test_a_store_that_was_lost_is_offline() -> None:
    async def case(host: Host) -> None:
        await host.told(StoreVerdict.FOREIGN, reason="lost")
        assert (host.report.state, host.report.trouble) == (LocalState.OFFLINE, "lost")

    with_host(None, case)
