"""A daemon takes the place of another one while programs have files open."""

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from tests.mount.conftest import Mounted
from tests.system.control import emberfs

pytestmark = pytest.mark.system

MakeMount = Callable[..., Mounted]


def test_what_is_open_lives_on(cluster: LaunchedCluster, mount: MakeMount) -> None:
    one = mount(cluster)
    home = one.path / "handed-over"
    home.mkdir()
    content = os.urandom(2_500_000)
    reader = os.open(home / "read", os.O_RDWR | os.O_CREAT)
    os.write(reader, content)
    writer = os.open(home / "written", os.O_WRONLY | os.O_CREAT)
    os.write(writer, b"before ")
    removed = os.open(home / "removed", os.O_RDWR | os.O_CREAT)
    os.write(removed, b"still here")
    os.unlink(home / "removed")
    for number in range(300):
        (home / f"name{number:03}").touch()
    listing = os.scandir(home)
    seen = [next(listing).name for _ in range(5)]
    fcntl.flock(reader, fcntl.LOCK_EX)
    try:
        old = one.daemon.pid
        one.take_over(cluster.address)
        assert one.daemon.pid != old
        assert os.pread(reader, len(content), 0) == content
        os.write(writer, b"after")
        os.fsync(writer)
        assert (home / "written").read_bytes() == b"before after"
        assert os.pread(removed, 100, 0) == b"still here" and os.fstat(removed).st_nlink == 0
        seen += [entry.name for entry in listing]
        assert sorted(seen) == sorted(["read", "written", *(f"name{number:03}" for number in range(300))])
        other = mount(cluster, "other")
        descriptor = os.open(other.path / "handed-over" / "read", os.O_RDWR)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(reader, fcntl.LOCK_UN)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
    finally:
        listing.close()
        for descriptor in (reader, writer, removed):
            os.close(descriptor)


def test_programs_that_go_on_meanwhile_notice_nothing(cluster: LaunchedCluster, mount: MakeMount) -> None:
    one = mount(cluster)
    (one.path / "busy").mkdir()
    stop = threading.Event()
    done: list[int] = []
    errors: list[BaseException] = []

    def work(name: str) -> None:
        number = 0
        try:
            while not stop.is_set():
                path = one.path / "busy" / f"{name}{number}"
                path.write_bytes(f"{name} {number}".encode() * 100)
                assert path.read_bytes() == f"{name} {number}".encode() * 100
                number += 1
        except BaseException as error:
            errors.append(error)
        done.append(number)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for _ in range(3):
        one.take_over(cluster.address)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors and all(done)
    assert len(os.listdir(one.path / "busy")) == sum(done)


def test_there_has_to_be_a_daemon(cluster: LaunchedCluster, mount: MakeMount) -> None:
    one = mount(cluster)
    one.close()
    refused = emberfs("mount", cluster.address, one.path, "--takeover", "--log", one.log, code=1)
    assert "has no daemon that could be relieved" in refused.stderr


def test_a_mount_on_a_symbolic_link_serves_and_is_relieved_by_any_name(
    cluster: LaunchedCluster, mount: MakeMount, tmp_path: Path
) -> None:
    """The daemon looks at its mountpoint once, before it is one."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    one = mount(cluster, "link")
    (tmp_path / "real" / "through-the-link").write_bytes(b"x")
    assert (one.path / "through-the-link").read_bytes() == b"x"
    os.symlink(f"{one.path}/through-the-link", one.path / ".emberfs" / "rm-rf" / "x")
    assert not (one.path / "through-the-link").exists()
    within = emberfs("mount", cluster.address, one.path, "--takeover", "--log", one.path / "log", code=1)
    assert "would be in the mount itself" in within.stderr
    one.take_over(cluster.address)
    assert (tmp_path / "real").stat().st_dev == one.path.stat().st_dev
