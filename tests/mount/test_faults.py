"""Programs at work while a part of the cluster or the mount's daemon dies and comes back.

Each call gets its answer or an error within its deadline; no byte is wrong; nothing that was acknowledged (fsync had
returned) is lost; and once all parts run again, everybody goes on.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from fs_client.fuse.in_work import CHANGE_WAITS
from fs_common.settings import MetaSettings
from tests.mount.conftest import Mounted
from tests.mount.witnesses import POLL_S, Reads, Witness, witnesses
from tests.posix.locks import WRITE, wait_lock
from tests.posix.people import actor
from tests.system.control import kill, start_again

pytestmark = [pytest.mark.system, pytest.mark.slow]

MakeMount = Callable[..., Mounted]
TIMEOUT_S = 6
"""Of a request, as a mount option."""
SHORT_TIMEOUT_S = 3
"""The same, where many calls end by it."""
CALL_S = CHANGE_WAITS * TIMEOUT_S + 10.0
"""A change ends with the outcome of what it waits for, within this bound of the mount's; on a machine that does other
things, too."""
CLIENT_TIMEOUT_S = MetaSettings().client_timeout_ms / 1000
"""After so long a client that is gone has lost its locks, the one of a file that it was appending to, too."""
STEP_S = 4 * CALL_S
"""A step is several calls, as is what some witnesses take the time of (`Witness.CALLS`)."""
ACKNOWLEDGED = 5
"""Steps of each witness before anything breaks."""


@pytest.fixture
def cluster(fresh_cluster: Callable[..., LaunchedCluster]) -> LaunchedCluster:
    return fresh_cluster(durability="memory")


@pytest.fixture
def mounted(cluster: LaunchedCluster, mount: MakeMount) -> Mounted:
    return mount(cluster, "mnt", f"timeout={TIMEOUT_S}")


@contextlib.contextmanager
def at_work(mounted: Mounted, outside: Path) -> Iterator[list[Witness]]:
    with witnesses(mounted.path, outside) as group:
        wait_for(group, lambda one: len(one.acknowledged()) >= ACKNOWLEDGED, STEP_S, "works before anything breaks")
        yield group


def wait_for(group: list[Witness], condition: Callable[[Witness], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    waiting = list(group)
    while waiting := [one for one in waiting if not condition(one)]:
        if time.monotonic() > deadline:
            late = {one.name: [event[0:2] + event[3:] for event in one.events()[-3:]] for one in waiting}
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}: {late}")
        time.sleep(POLL_S)


def everybody_gets_an_answer(group: list[Witness]) -> None:
    """A step that began after this moment has ended, well or not."""
    now = time.monotonic()
    wait_for(group, lambda one: one.has_ended_a_step_since(now), STEP_S, "gets an answer or an error")


def everybody_goes_on(group: list[Witness]) -> None:
    now = time.monotonic()
    wait_for(group, lambda one: one.has_succeeded_since(now), STEP_S, "works again")


def promises_were_kept(group: list[Witness], locked_s: float = 0.0) -> None:
    """`locked_s`: how long what a dead client had locked may have been waited for."""
    for one in group:
        assert one.stop(STEP_S), f"{one.name} hangs"
    for one in group:
        events = one.events()
        assert [event for event in events if event.kind == "wrong"] == [], one.name
        slowest = max(events, key=lambda event: event.longest_s)
        assert slowest.longest_s <= locked_s + one.CALLS * CALL_S, f"{one.name}: {slowest}"
        assert one.verify() == [], one.name


@pytest.mark.parametrize("victim", ["storage-1", "storage-2", "storage-3"])
def test_a_storage_daemon_is_killed(cluster: LaunchedCluster, mount: MakeMount, tmp_path: Path, victim: str) -> None:
    """Reads do not even notice; writes fail while a replica is missing, and go on when it is back."""
    mounted = mount(cluster, "mnt", f"timeout={SHORT_TIMEOUT_S}")
    with at_work(mounted, tmp_path / "outside") as group:
        kill(cluster, victim)
        everybody_gets_an_answer(group)
        start_again(cluster)
        everybody_goes_on(group)
        promises_were_kept(group)
        reads = next(one for one in group if isinstance(one, Reads))
        assert [event for event in reads.events() if event.kind == "error"] == []


def test_the_metadata_server_is_killed(cluster: LaunchedCluster, mounted: Mounted, tmp_path: Path) -> None:
    with at_work(mounted, tmp_path / "outside") as group:
        kill(cluster, "meta")
        everybody_gets_an_answer(group)
        start_again(cluster)
        everybody_goes_on(group)
        promises_were_kept(group)


def test_the_metadata_server_is_killed_and_back_at_once(
    cluster: LaunchedCluster, mounted: Mounted, tmp_path: Path
) -> None:
    """Several times. Calls wait for it rather than fail."""
    with at_work(mounted, tmp_path / "outside") as group:
        for _ in range(3):
            kill(cluster, "meta")
            start_again(cluster)
            everybody_goes_on(group)
        promises_were_kept(group)
        for one in group:
            assert [event for event in one.events() if event.kind == "error"] == [], one.name


def test_everything_is_killed_at_once(cluster: LaunchedCluster, mounted: Mounted, tmp_path: Path) -> None:
    with at_work(mounted, tmp_path / "outside") as group:
        kill(cluster, "meta", "storage-1", "storage-2", "storage-3")
        everybody_gets_an_answer(group)
        start_again(cluster)
        everybody_goes_on(group)
        promises_were_kept(group)


def test_the_mounts_daemon_is_killed(
    cluster: LaunchedCluster, mounted: Mounted, mount: MakeMount, tmp_path: Path
) -> None:
    """Everybody gets an error at once; after the next mount at the same place they go on."""
    with at_work(mounted, tmp_path / "outside") as group:
        mounted.kill()
        everybody_gets_an_answer(group)
        for one in group:
            assert one.events()[-1].kind == "error", one.name
        mount(cluster, "mnt", f"timeout={TIMEOUT_S}")
        everybody_goes_on(group)
        promises_were_kept(group, CLIENT_TIMEOUT_S)


def test_the_mounts_daemon_is_killed_and_another_mount_sees_what_was_acknowledged(
    cluster: LaunchedCluster, mounted: Mounted, mount: MakeMount, tmp_path: Path
) -> None:
    second = mount(cluster, "second", f"timeout={TIMEOUT_S}")
    with at_work(mounted, tmp_path / "outside") as group:
        mounted.kill()
        everybody_gets_an_answer(group)
        for one in group:
            assert one.stop(STEP_S), f"{one.name} hangs"
            one.place = second.path / one.name
            assert one.verify() == [], one.name


def test_locks_of_a_dead_mount_are_released(cluster: LaunchedCluster, mounted: Mounted, mount: MakeMount) -> None:
    """Who waits on another mount gets the lock when the service has given up the dead one."""
    second = mount(cluster, "second", f"timeout={TIMEOUT_S}")
    (mounted.path / "f").write_bytes(b"x")
    with actor() as other:
        theirs = other(os.open, second.path / "f", os.O_RDWR)
        descriptor = os.open(mounted.path / "f", os.O_RDWR)
        try:
            wait_lock(descriptor, WRITE)
            other.start(wait_lock, theirs, WRITE)
            other.wait_in("fcntl")
            mounted.kill()
            assert other.finished(60.0)
            other.result()
        finally:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        other(os.close, theirs)


def test_parts_are_killed_in_turn(cluster: LaunchedCluster, mounted: Mounted, tmp_path: Path) -> None:
    """One after the other, as in an upgrade: each is back before the next one goes."""
    with at_work(mounted, tmp_path / "outside") as group:
        for victim in ("storage-3", "meta", "storage-1", "storage-2", "meta"):
            kill(cluster, victim)
            start_again(cluster)
            everybody_goes_on(group)
        promises_were_kept(group)
