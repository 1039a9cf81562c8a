"""Mounts of real clusters for tests."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from fs_client.cli.mounting import launch as launch_mount
from fs_client.fuse import mountpoint as mountpoints
from tests.system.control import wait_until

END_S = 30.0


class Mounted:
    """A mount whose daemon is a process of its own."""

    def __init__(self, source: str, path: Path, words: tuple[str, ...] = ()) -> None:
        self.path = path
        self.words = words
        self.log = path.with_name(f"{path.name}.log")
        path.mkdir(exist_ok=True)
        self.daemon = launch_mount(source, path, words, self.log)

    def take_over(self, source: str) -> None:
        """Another daemon takes the place of this one, which ends."""
        old = self.daemon
        self.daemon = launch_mount(source, self.path, self.words, self.log, takeover=True)
        assert old.wait(END_S) == 0, self.log.read_text()

    def kill(self) -> None:
        """SIGKILL the daemon, and wait until it is gone."""
        self.daemon.kill()
        self.daemon.wait()

    def close(self) -> None:
        """Unmount, and wait for the daemon's end."""
        if mountpoints.find(str(self.path)) is not None:
            mountpoints.unmount(str(self.path), lazy=True)
        try:
            self.daemon.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the daemon did not end; its log: {self.log.read_text()}") from None


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Mounted]]:
    """Makes mounts for one test: `mount(cluster, "name", "option", ..., at="/directory of the cluster")`."""
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("no /dev/fuse that this user may open")
    with contextlib.ExitStack() as mounted:

        def make(cluster: LaunchedCluster, name: str = "mnt", *words: str, at: str = "") -> Mounted:
            one = Mounted(f"{cluster.address}:{at}" if at else cluster.address, tmp_path / name, words)
            mounted.callback(one.close)
            return one

        yield make


def run(command: str, cwd: Path, timeout: float = 60.0) -> str:
    """A line of the shell; fails unless it succeeds. Returns what it wrote."""
    done = subprocess.run(["bash", "-ec", command], cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


__all__ = ["Mounted", "run", "wait_until"]
