"""`-o low_latency` on a mount in use."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from fs_client.fuse.wakeful import DEVICE
from tests.mount.conftest import Mounted
from tests.system.control import wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]


def held_by(pid: int) -> bool:
    return any(os.readlink(link) == DEVICE for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink())


@pytest.mark.skipif(not os.access(DEVICE, os.W_OK), reason=f"{DEVICE} is for root, where there is one")
def test_processors_are_kept_awake_by_a_mount_that_is_used(
    cluster: LaunchedCluster, mount: Callable[..., Mounted]
) -> None:
    plain, wakeful = mount(cluster, "plain"), mount(cluster, "wakeful", "low_latency")

    def awake(one: Mounted) -> bool:
        (one.path / "file").write_bytes(b"x")
        return held_by(one.daemon.pid)

    wait_until(lambda: awake(wakeful), "the daemon asks for it")
    assert not awake(plain)
