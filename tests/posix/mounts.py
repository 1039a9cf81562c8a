"""Clusters of real processes with mounts of them, for whoever tests through the kernel."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fs_client.cli.local.configuration import Options
from fs_client.cli.local.launch import launch
from tests.conftest import FAST_SETTINGS

ROOT = Path(__file__).parents[2]
COMMAND_TIMEOUT_S = 60.0
SETTINGS = tuple(setting for setting in FAST_SETTINGS if not setting.startswith("meta.gc_delay_ms="))
"""What was removed on one mount is kept for a while for who reads it on the other."""


def emberfs(*arguments: str | Path, timeout_s: float = COMMAND_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fs_client.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        timeout=timeout_s,
    )


def require_mount() -> None:
    """Skip where nothing can be mounted, with the reason."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no /dev/fuse that this user may open")
    if emberfs("mount", "--help").returncode != 0:
        pytest.skip("there is no `emberfs mount`")


@contextlib.contextmanager
def mounted(address: str, mountpoint: Path, *options: str) -> Iterator[Path]:
    """The cluster at `address`, mounted; unmounted at the end, by force if need be."""
    mountpoint.mkdir(exist_ok=True)
    flags = ("-o", ",".join(options)) if options else ()
    result = emberfs("mount", address, mountpoint, *flags)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    try:
        yield mountpoint
    finally:
        unmount(mountpoint)


def unmount(mountpoint: Path) -> None:
    """A mount that does not end when it is told to is a failure, but goes away nevertheless."""
    result = emberfs("umount", mountpoint)
    if result.returncode != 0:
        subprocess.run(["umount", "-l", str(mountpoint)], capture_output=True, timeout=COMMAND_TIMEOUT_S)
    assert result.returncode == 0, f"emberfs umount: {result.stdout}\n{result.stderr}"


@contextlib.contextmanager
def cluster_with_two_mounts(path: Path) -> Iterator[tuple[Path, Path]]:
    """A cluster of three daemons and three replicas, its files in `path`, mounted twice for all users: as a system has
    its own file systems, with `suid` and `dev` where root mounts, and as it has those of others."""
    require_mount()
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="posix-mounts-")))
        place.chmod(0o755)
        cluster = stack.enter_context(
            launch(path / "cluster", Options(port=0, durability="memory", settings=SETTINGS), restart=False)
        )
        own = ("suid", "dev") if os.geteuid() == 0 else ()
        yield (
            stack.enter_context(mounted(cluster.address, place / "first", *own)),
            stack.enter_context(mounted(cluster.address, place / "second")),
        )
