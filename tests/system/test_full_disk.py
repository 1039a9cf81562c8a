"""The disk of the cluster is full: writers are told so, what is there stays, and removing files makes room again."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from tests.system.control import assert_works, emberfs, is_healthy, wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]

DISK_BYTES = 512 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of `DISK_BYTES`; its folder `cluster` is where `fresh_cluster("disk/cluster")` puts its data."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "emberfs-test", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fits(write: Callable[[], object]) -> bool:
    """Whether there is room for what `write` writes."""
    try:
        write()
    except OSError as error:
        assert error.errno == errno.ENOSPC
        return False
    return True


def test_a_full_disk(small_disk: Path, fresh_cluster: Callable[..., LaunchedCluster], tmp_path: Path) -> None:
    cluster = fresh_cluster("disk/cluster", durability="disk")
    written: dict[str, bytes] = {}
    try:
        with fs_client.connect(cluster.address) as fs:
            block = os.urandom(4 << 20)
            with pytest.raises(OSError) as caught:
                for number in range(DISK_BYTES // len(block)):
                    path = f"/file-{number}"
                    fs.write_file(path, block)
                    written[path] = block
            assert caught.value.errno == errno.ENOSPC
            assert len(written) >= 4
            for path, data in written.items():
                assert fs.read_file(path) == data

            (tmp_path / "more").write_bytes(block)
            # A target that is low on space gives back what it does not use, so some of them may have room.
            for number in range(DISK_BYTES // len(block)):
                copied = emberfs(
                    "cp", "-q", tmp_path / "more", f"ember:/more-{number}", cluster=cluster.address, code=None
                )
                if copied.returncode:
                    break
            assert copied.returncode == 1
            assert copied.stderr.startswith(f"emberfs: ember:/more-{number}: No space left on device (")

            removed = list(written)[: len(written) // 2]
            for path in removed:
                fs.unlink(path)
                del written[path]

            def room() -> None:
                fs.write_file("/room", block * 3)
                fs.write_file("/again", block)

            wait_until(lambda: fits(room), "removed files have made room")
            assert fs.read_file("/again") == block
            for path, data in written.items():
                assert fs.read_file(path) == data
        # Chunks of another size need units of their own, and storage comes back little by little.
        wait_until(lambda: fits(lambda: assert_works(cluster.address)), "there is room for small chunks, too")
        assert is_healthy(cluster.address)
    finally:
        # Before the disk is unmounted.
        cluster.stop()
