"""What the cluster configures for mounts: taken while they run, beneath what each was told itself."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from fs_client.fuse.cluster_settings import LOOK_S, ClusterSettings
from fs_client.fuse.options import parse
from fs_common.errors import Code, EmberError
from fs_common.records.cluster_config import PushedConfig
from fs_common.settings import MountConfig
from tests.mount.conftest import Mounted
from tests.storage.engine.virtual_loop import run_virtual
from tests.system.control import emberfs, wait_until

ONE, TWO = ("one", 1), ("two", 2)


class Servers:
    """Metadata servers, of which the last one is the manager."""

    def __init__(self) -> None:
        self.pushed = PushedConfig(0, "")
        self.refuses = Code.NOT_MANAGER
        self.options = SimpleNamespace(addresses=(ONE, TWO))
        self.pool = self
        self.asked = 0

    async def call(self, address: Any, *_: object, timeout: float) -> PushedConfig:
        self.asked += 1
        if address == ONE or self.refuses is Code.UNKNOWN_METHOD:
            raise EmberError(self.refuses)
        return self.pushed


def taking(own: dict[str, Any], scenario: Callable[[Servers, list[MountConfig]], Any]) -> None:
    async def body() -> None:
        servers, taken = Servers(), list[MountConfig]()
        settings = ClusterSettings(servers, own, taken.append)  # type: ignore[arg-type]
        settings.begin()
        await scenario(servers, taken)
        await settings.close()

    run_virtual(body())


def test_a_running_mount_takes_what_the_cluster_says() -> None:
    async def scenario(servers: Servers, taken: list[MountConfig]) -> None:
        await asyncio.sleep(LOOK_S / 2)
        assert not taken, "nothing was ever configured"
        servers.pushed = PushedConfig(1, 'log_level = "debug"\nslow_operation_ms = 20\n')
        await asyncio.sleep(LOOK_S)
        assert taken == [MountConfig(log_level="debug", slow_operation_ms=20)]
        servers.pushed = PushedConfig(2, "nonsense = 1\n")
        await asyncio.sleep(LOOK_S)
        servers.pushed = PushedConfig(3, "")
        await asyncio.sleep(LOOK_S)
        assert taken[1:] == [MountConfig()]

    taking({}, scenario)


def test_what_a_mount_was_told_itself_wins() -> None:
    own = parse(["log_level=warning"]).own
    assert own == {"log_level": "warning"} and not parse(["ro"]).own

    async def scenario(servers: Servers, taken: list[MountConfig]) -> None:
        servers.pushed = PushedConfig(1, 'log_level = "debug"\nslow_operation_ms = 20\n')
        await asyncio.sleep(LOOK_S)
        assert taken == [MountConfig(log_level="warning", slow_operation_ms=20)]

    taking(own, scenario)


def test_an_older_cluster_is_not_asked_again() -> None:
    async def scenario(servers: Servers, taken: list[MountConfig]) -> None:
        servers.refuses = Code.UNKNOWN_METHOD
        await asyncio.sleep(10 * LOOK_S)
        assert servers.asked == 1 and not taken

    taking({}, scenario)


@pytest.mark.system
def test_the_command_configures_mounts(
    fresh_cluster: Callable[..., LaunchedCluster], mount: Callable[..., Mounted]
) -> None:
    cluster = fresh_cluster(storage=1)
    shown = emberfs("config", "show", "mount", "--origin", cluster=cluster.address).stdout
    assert "slow_operation_ms = 1000" in shown and "built-in" in shown and "log_json" not in shown
    emberfs("config", "set", "mount.log_level=debug", cluster=cluster.address)
    shown = emberfs("config", "show", "mount", "--origin", cluster=cluster.address).stdout
    assert any("debug" in line and "cluster" in line and "at once" in line for line in shown.splitlines()), shown
    refused = emberfs("config", "set", "mount.read_threads=1", cluster=cluster.address, code=1)
    assert "no key read_threads" in refused.stdout + refused.stderr
    one, other = mount(cluster, "one"), mount(cluster, "other", "log_level=info")
    for each in (one, other):
        wait_until(lambda each=each: "version 1 of the cluster's configuration" in each.log.read_text(), "it is taken")
        (each.path / f"made-in-{each.path.name}").touch()
        each.close()
    assert [line for line in one.log.read_text().splitlines() if "DEBUG" in line and "made-in-one" in line]
    assert "DEBUG" not in other.log.read_text()
