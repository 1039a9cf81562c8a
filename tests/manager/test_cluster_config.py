"""The cluster's configuration: versions in the store, the push to nodes over real gRPC, how each node stands to it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fs_client.cli.manager_api import manager_at
from fs_client.options import Address
from fs_common import control_pb2 as pb
from fs_common.errors import Code, EmberError
from fs_common.live_config import LiveConfig
from fs_common.manager_client import ManagerClient, NodeAddress, NodeStatus, pull_config
from fs_common.records.cluster_config import ConfigStatus, PushedConfig
from fs_common.records.routing import NodeState
from fs_common.settings import MetaSettings, StorageSettings
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.manager.cluster_config import VERSIONS_KEPT, ClusterConfig, stored_config
from fs_meta.manager.growth import config_of
from fs_meta.manager.lease import ManagerLease
from fs_meta.manager.membership import Member
from fs_meta.manager.service import RunningManager, start_manager
from tests.manager.cluster import LIVELY, Clock, identity
from tests.support import run


class Stored:
    """A configuration without the rest of a manager."""

    def __init__(self) -> None:
        self.kv = MemoryStore()
        self.clock = Clock()
        self.lease = ManagerLease(self.kv, 8000, self.clock)
        self.config = ClusterConfig(self.kv, self.lease, lambda: 77)

    async def open(self) -> None:
        await self.lease.try_acquire()
        await self.config.load()


def test_versions_are_kept_and_the_newest_counts() -> None:
    async def scenario() -> None:
        stored = Stored()
        await stored.open()
        assert stored.config.current("storage").version == 0
        for number in range(1, 4):
            await stored.config.set("storage", f"read_threads = {number}", f"change {number}", None)
        await stored.config.set("meta", "moves_at_once = 3", "", None)
        versions = await stored.config.versions("storage", 0, 10)
        assert [(each.version, each.comment, each.set_ms) for each in versions] == [
            (3, "change 3", 77),
            (2, "change 2", 77),
            (1, "change 1", 77),
        ]
        assert [each.version for each in await stored.config.versions("storage", 3, 1)] == [2]
        assert (await stored.config.version("storage", 2)).text == "read_threads = 2"
        again = ClusterConfig(stored.kv, stored.lease)
        await again.load()
        assert again.pushed("storage") == PushedConfig(3, "read_threads = 3")
        assert await stored_config(stored.kv, "meta") == PushedConfig(1, "moves_at_once = 3")

    run(scenario())


def test_old_versions_go_at_last() -> None:
    async def scenario() -> None:
        stored = Stored()
        await stored.open()
        for _ in range(VERSIONS_KEPT + 2):
            await stored.config.set("storage", "", "", None)
        kept = await stored.config.versions("storage", 0, 0)
        assert (kept[0].version, kept[-1].version, len(kept)) == (VERSIONS_KEPT + 2, 3, VERSIONS_KEPT)

    run(scenario())


def test_who_has_not_seen_the_newest_version_does_not_change_it() -> None:
    async def scenario() -> None:
        stored = Stored()
        await stored.open()
        await stored.config.set("storage", "read_threads = 1", "", 0)
        with pytest.raises(EmberError, match="at version 1 by now, not 0") as refused:
            await stored.config.set("storage", "read_threads = 2", "", 0)
        assert refused.value.code is Code.INVALID
        assert stored.config.current("storage").text == "read_threads = 1"

    run(scenario())


def test_who_is_not_the_manager_any_more_changes_nothing() -> None:
    async def scenario() -> None:
        stored = Stored()
        await stored.open()
        await stored.lease.release()
        with pytest.raises(EmberError) as refused:
            await stored.config.set("storage", "read_threads = 1", "", None)
        assert refused.value.code is Code.NOT_MANAGER
        assert stored.config.current("storage").version == 0

    run(scenario())


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("console", "", "no configuration for 'console'"),
        ("storage", "read_threads = 0", "read_threads: at least 1"),
        ("storage", f"read_threads = {'[' * 20_000}", "storage: is not TOML: "),
        ("storage", f"read_threads = {'9' * 20_000}", "storage: is not TOML: "),
    ],
    ids=["kind", "bound", "depth", "digits"],
)
def test_what_is_not_valid_is_not_stored(kind: str, text: str, says: str) -> None:
    async def scenario() -> None:
        stored = Stored()
        await stored.open()
        with pytest.raises(EmberError, match=says) as refused:
            await stored.config.set(kind, text, "", None)
        assert refused.value.code is Code.INVALID
        assert await stored.config.versions("storage", 0, 0) == []

    run(scenario())


def test_the_metadata_server_that_is_asked_takes_it_and_may_refuse_it() -> None:
    class Server(MetaSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
        at_most: int = 0

        def problems(self) -> list[str]:
            return ["moves_at_once: too many"] if self.moves_at_once > self.at_most else []

    async def scenario() -> None:
        stored = Stored()
        live = LiveConfig("meta", Server, {"at_most": 64})
        stored.config.follow("meta", live)
        await stored.open()
        with pytest.raises(EmberError, match="moves_at_once: too many"):
            await stored.config.set("meta", "moves_at_once = 65", "", None)
        await stored.config.set("meta", "moves_at_once = 63", "", None)
        assert live.running.moves_at_once == 63 and stored.config.own_report("meta").version == 1

    run(scenario())


def test_how_a_node_stands_to_the_newest_version() -> None:
    member = Member(identity(1), NodeState.UP, 0)
    assert config_of(member, 0).status is ConfigStatus.UNKNOWN, "it says nothing"
    live = LiveConfig("storage", Node, {})
    member.config = live.report
    assert config_of(member, 0).status is ConfigStatus.NORMAL
    assert config_of(member, 1).status is ConfigStatus.STALE
    live.offer(PushedConfig(1, ""))
    member.config = live.report
    assert config_of(member, 1).status is ConfigStatus.NORMAL
    member.state = NodeState.FAILED
    assert config_of(member, 1).status is ConfigStatus.UNKNOWN


class Node(StorageSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Daemon:
    """A node that takes what it is told."""

    def __init__(self, port: int, node: int, **own: object) -> None:
        self.live = LiveConfig("storage", Node, own)
        self.live.connect(lambda config: None)
        address = NodeAddress("test", node, "127.0.0.1", 9)
        self.client = ManagerClient(f"127.0.0.1:{port}", address, lambda: NodeStatus(1000, 10))
        self.client.follow_config(lambda: self.live.report, self.live.offer)
        self.client.start()


async def node_where(api: Any, node: int, condition: Callable[[Any], bool]) -> Any:
    while True:
        found = await api.read("GetNode", node=node)
        if condition(found):
            return found
        await asyncio.sleep(0.005)


async def with_manager(scenario: Callable[[RunningManager, Any], Any]) -> None:
    running = await start_manager(MemoryStore(), LIVELY)
    try:
        async with manager_at(Address("127.0.0.1", running.port)) as api:
            await scenario(running, api)
    finally:
        await running.close()


def test_a_version_reaches_each_node_with_its_next_heartbeat() -> None:
    async def scenario(running: RunningManager, api: Any) -> None:
        plain, own = Daemon(running.port, 1), Daemon(running.port, 2, read_threads=5)
        await plain.client.wait_acknowledged(20)
        await own.client.wait_acknowledged(20)
        try:
            assert (await node_where(api, 1, lambda node: True)).config.status == pb.CONFIG_STATUS_NORMAL
            text = "read_threads = 7\nscrub_bytes_per_s = 9"
            version = await api.order("SetConfig", kind="storage", text=text, comment="why", checked=True)
            assert (version.version, version.text, version.comment) == (1, text, "why")
            node = await node_where(api, 1, lambda node: node.config.version == 1)
            assert node.config.status == pb.CONFIG_STATUS_DIRTY and list(node.config.waiting) == ["read_threads"]
            assert plain.live.running.scrub_bytes_per_s == 9
            node = await node_where(api, 2, lambda node: node.config.version == 1)
            assert node.config.status == pb.CONFIG_STATUS_NORMAL, "its own file says how many threads it has"

            settings = {each.key: each for each in (await api.read("ListSettings", kind="storage", node=2)).settings}
            told = {key: (settings[key].value, settings[key].origin) for key in ("read_threads", "scrub_bytes_per_s")}
            assert told == {"read_threads": ("5", "file"), "scrub_bytes_per_s": ("9", "cluster")}
            assert settings["log_level"].value == '"info"' and settings["log_level"].origin == "built-in"
            settings = {each.key: each for each in (await api.read("ListSettings", kind="storage", node=1)).settings}
            assert settings["read_threads"].waiting and not settings["read_threads"].live
            assert settings["scrub_bytes_per_s"].live and settings["scrub_bytes_per_s"].built_in == str(32 << 20)

            pulled = await pull_config(f"127.0.0.1:{running.port}", "test", "storage", 10)
            assert pulled == PushedConfig(1, text)
            assert await pull_config(f"127.0.0.1:{running.port}", "other", "storage", 10) is None
        finally:
            await plain.client.close()
            await own.client.close()

    run(with_manager(scenario))


def test_a_node_of_an_older_release_is_told_nothing_and_is_unknown() -> None:
    async def scenario(running: RunningManager, api: Any) -> None:
        client = ManagerClient(
            f"127.0.0.1:{running.port}", NodeAddress("test", 1, "127.0.0.1", 9), lambda: NodeStatus(1000, 10)
        )
        client.follow_config(client._config_report, lambda pushed: pytest.fail("it does not know what that is"))
        await api.order("SetConfig", kind="storage", text="read_threads = 7")
        client.start()
        try:
            await client.wait_acknowledged(20)
            node = await api.read("GetNode", node=1)
            assert node.config.status == pb.CONFIG_STATUS_UNKNOWN
        finally:
            await client.close()

    run(with_manager(scenario))


def test_history_is_listed_in_pages_and_a_change_may_be_tried() -> None:
    async def scenario(running: RunningManager, api: Any) -> None:
        tried = await api.order("SetConfig", kind="storage", text="read_threads = 7", dry_run=True)
        assert tried.version == 0 and not (await api.read("ListConfigVersions", kind="storage")).versions
        with pytest.raises(EmberError, match="read_threads: at least 1"):
            await api.order("SetConfig", kind="storage", text="read_threads = 0", dry_run=True)
        for number in range(1, 6):
            await api.order("SetConfig", kind="storage", text=f"read_threads = {number}")
        pages = [page async for page in api.pages("ListConfigVersions", kind="storage", limit=2)]
        assert [[each.version for each in page.versions] for page in pages] == [[5, 4], [3, 2], [1]]
        assert (await api.read("GetConfig", kind="storage")).version == 5
        assert (await api.read("GetConfig", kind="storage", version=2)).text == "read_threads = 2"
        with pytest.raises(EmberError, match="has no version 9"):
            await api.read("GetConfig", kind="storage", version=9)
        with pytest.raises(EmberError, match="there is no node of kind 'meta'"):
            await api.read("ListSettings", kind="meta", node=1)

    run(with_manager(scenario))


def test_a_version_whose_caller_goes_away_is_told_to_everybody() -> None:
    """It is committed: what this process makes of it must not end with the call."""

    class Held(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.hold = False
            self.committed = asyncio.Event()
            self.go_on = asyncio.Event()

        async def transact(self, *arguments: Any, **how: Any) -> Any:
            result = await super().transact(*arguments, **how)
            if self.hold:
                self.committed.set()
                await self.go_on.wait()
            return result

    async def scenario() -> None:
        kv = Held()
        running = await start_manager(kv, LIVELY)
        try:
            kv.hold = True
            setting = asyncio.create_task(running.manager.set_config("storage", "read_threads = 7", "", None))
            await kv.committed.wait()
            setting.cancel()
            await asyncio.wait([setting])
            kv.hold = False
            kv.go_on.set()
            while running.manager.cluster_config.pushed("storage").version != 1:
                await asyncio.sleep(0.001)
        finally:
            await running.close()

    run(scenario())
