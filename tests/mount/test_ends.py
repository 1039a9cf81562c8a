"""What ends while a mount is used: its daemon, a server, the mount itself. Never a hang, never wrong bytes."""

import contextlib
import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from fs_client.fuse import mountpoint as mountpoints
from tests.mount.conftest import Mounted
from tests.system.control import emberfs, kill, start_again, wait_whole

pytestmark = [pytest.mark.system, pytest.mark.slow]

MakeMount = Callable[..., Mounted]
TIMEOUT_S = 8.0
"""Of calls, as a mount option; an answer or an error comes within this and a little."""
SLACK_S = 8.0


def test_a_killed_daemon_leaves_an_error_and_the_next_mount_works(cluster: LaunchedCluster, mount: MakeMount) -> None:
    one = mount(cluster)
    (one.path / "stored").write_bytes(b"x" * 100_000)
    descriptor = os.open(one.path / "stored", os.O_RDONLY)
    one.kill()
    try:
        with pytest.raises(OSError) as failure:
            os.listdir(one.path)
        assert failure.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        again = mount(cluster)
        assert (again.path / "stored").read_bytes() == b"x" * 100_000
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_umount_stores_what_was_written(cluster: LaunchedCluster, mount: MakeMount) -> None:
    one = mount(cluster)
    with open(one.path / "file", "wb") as file:
        file.write(b"y" * 3_000_000)
        file.flush()
        emberfs("umount", "--lazy", one.path)
    one.close()
    assert mountpoints.find(str(one.path)) is None
    assert (mount(cluster).path / "file").read_bytes() == b"y" * 3_000_000


SCATTERS = """
import os, signal, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for place in range(5000):
    os.pwrite(file, b"%8d" % place, place * 4096)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_umount_waits_until_small_writes_all_over_a_file_are_stored(cluster: LaunchedCluster, mount: MakeMount) -> None:
    one = mount(cluster)
    subprocess.run([sys.executable, "-c", SCATTERS, one.path / "scattered"], check=False)
    emberfs("umount", one.path)
    assert one.daemon.poll() == 0 or one.daemon.wait(SLACK_S) == 0
    stored = (mount(cluster, "other").path / "scattered").read_bytes()
    assert [stored[place * 4096 : place * 4096 + 8] for place in range(5000)] == [
        b"%8d" % place for place in range(5000)
    ]


def test_the_metadata_server_dies_and_comes_back(
    fresh_cluster: Callable[..., LaunchedCluster], mount: MakeMount
) -> None:
    cluster = fresh_cluster()
    one = mount(cluster, "mnt", f"timeout={TIMEOUT_S}")
    (one.path / "before").write_bytes(b"before" * 1000)
    with open(one.path / "open", "wb") as file:
        file.write(b"a" * 100_000)
        kill(cluster, "meta")
        began = time.monotonic()
        with pytest.raises(OSError) as failure:
            os.mkdir(one.path / "directory")
        assert failure.value.errno in (errno.EIO, errno.ETIMEDOUT)
        assert time.monotonic() - began < TIMEOUT_S + SLACK_S
        start_again(cluster)
        os.mkdir(one.path / "directory2")
        file.write(b"b" * 100_000)
    assert (one.path / "open").read_bytes() == b"a" * 100_000 + b"b" * 100_000
    assert (one.path / "before").read_bytes() == b"before" * 1000


def test_a_storage_daemon_dies(fresh_cluster: Callable[..., LaunchedCluster], mount: MakeMount) -> None:
    """Reads go on from other replicas, writes as soon as the chains go on without it."""
    cluster = fresh_cluster()
    one = mount(cluster, "mnt", f"timeout={TIMEOUT_S}")
    content = os.urandom(6_000_000)
    (one.path / "whole").write_bytes(content)
    kill(cluster, "storage-2")
    descriptor = os.open(one.path / "whole", os.O_RDONLY | os.O_DIRECT)
    try:
        read = b"".join(os.pread(descriptor, 1 << 20, place << 20) for place in range(6))
    finally:
        os.close(descriptor)
    assert read == content
    written = os.open(one.path / "meanwhile", os.O_WRONLY | os.O_CREAT)
    try:
        assert os.write(written, content) == len(content)
        os.fsync(written)
    finally:
        os.close(written)
    start_again(cluster)
    wait_whole(cluster)
    kill(cluster, "storage-1", "storage-3")
    assert (one.path / "meanwhile").read_bytes() == content


def test_all_storage_daemons_die(fresh_cluster: Callable[..., LaunchedCluster], mount: MakeMount) -> None:
    """A write that cannot be stored is told of by fsync and close, once each."""
    cluster = fresh_cluster()
    one = mount(cluster, "mnt", f"timeout={TIMEOUT_S}")
    content = os.urandom(6_000_000)
    (one.path / "whole").write_bytes(content)
    kill(cluster, "storage-1", "storage-2", "storage-3")
    lost = os.open(one.path / "lost", os.O_WRONLY | os.O_CREAT)
    began = time.monotonic()
    os.write(lost, content)
    with pytest.raises(OSError):
        os.fsync(lost)
    assert time.monotonic() - began < 2 * TIMEOUT_S + SLACK_S
    with contextlib.suppress(OSError):
        # The length cannot be settled either.
        os.close(lost)
    start_again(cluster)
    wait_whole(cluster)
    assert (one.path / "whole").read_bytes() == content
    (one.path / "after").write_bytes(content)
    assert (one.path / "after").read_bytes() == content


def test_umount_with_the_cluster_dead(fresh_cluster: Callable[..., LaunchedCluster], mount: MakeMount) -> None:
    cluster = fresh_cluster()
    one = mount(cluster, "mnt", f"timeout={TIMEOUT_S}")
    (one.path / "file").write_bytes(b"x")
    kill(cluster, "meta", "storage-1", "storage-2", "storage-3")
    began = time.monotonic()
    emberfs("umount", one.path)
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    assert mountpoints.find(str(one.path)) is None


def test_two_mounts_at_one_place_are_refused(cluster: LaunchedCluster, mount: MakeMount, tmp_path: Path) -> None:
    one = mount(cluster)
    refused = emberfs("mount", cluster.address, one.path, "--log", tmp_path / "log", code=1)
    assert "mounted already" in refused.stderr
    assert os.listdir(one.path) is not None
