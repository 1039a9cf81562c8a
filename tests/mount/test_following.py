"""What the metadata service has promised a mount: it is not asked again, and never shows what others have changed.

The mounts here tell the kernel to believe nothing, so that every look is answered by the daemon: by its memory, as far
as that is promised.
"""

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fs_client
from fs_client import aio
from fs_client.cli.local.launch import LaunchedCluster
from fs_common import methods
from fs_common.records.session import Empty
from tests.mount.conftest import Mounted
from tests.support import run
from tests.system.control import daemon, kill, start_again, wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]

MakeMount = Callable[..., Mounted]
ASK = ("attr_timeout=0", "entry_timeout=0", "negative_timeout=0")
LOOKS = 50
ASKING = ("lookup", "stat", "open", "readdir")


def counters(cluster: LaunchedCluster) -> dict[str, int]:
    async def ask() -> dict[str, int]:
        async with await aio.connect(cluster.address) as fs:
            found: dict[str, int] = (await fs.metadata.call(methods.STATS, Empty())).counters
            return found

    return run(ask())


def at_the_service(cluster: LaunchedCluster, path: str) -> list[str]:
    with fs_client.connect(cluster.address) as fs:
        return fs.listdir(path)


def questions(cluster: LaunchedCluster) -> int:
    """Calls so far that ask what names and attributes are."""
    found = counters(cluster)
    return sum(found[f"rpc_{name}_calls"] for name in ASKING)


def is_promised(cluster: LaunchedCluster, look: Callable[[], object]) -> bool:
    """Looking again asks the service nothing."""
    look()
    before = questions(cluster)
    look()
    return questions(cluster) == before


def looks(path: Path) -> tuple[object, ...]:
    """All that a look by name tells of a file; its bytes, too, if it has some."""
    try:
        found = path.lstat()
        listed = sorted(os.listdir(path)) if path.is_dir() else None
        data = path.read_bytes() if path.is_file() else None
    except OSError as error:
        return (error.errno,)
    return (
        found.st_ino,
        found.st_mode,
        found.st_nlink,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        listed,
        data,
    )


def test_what_is_promised_is_not_asked_again(cluster: LaunchedCluster, mount: MakeMount) -> None:
    one, other = mount(cluster, "one", *ASK), mount(cluster, "other", *ASK)
    home = one.path / "calm"
    home.mkdir()
    (home / "f").write_bytes(b"abc")
    there = other.path / "calm"

    def look() -> None:
        for _ in range(LOOKS):
            assert (there / "f").read_bytes() == b"abc"
            assert sorted(os.listdir(there)) == ["f"]
            assert not (there / "g").exists()

    wait_until(lambda: is_promised(cluster, lambda: (there / "f").read_bytes()), "reading asks nothing")
    os.listdir(there)
    before = counters(cluster)
    look()
    after = counters(cluster)
    assert [after[f"rpc_{name}_calls"] - before[f"rpc_{name}_calls"] for name in ASKING] == [0] * len(ASKING)


def test_a_new_directory_is_known_to_be_empty(cluster: LaunchedCluster, mount: MakeMount) -> None:
    """Files are made in it without asking first whether they are there."""
    one = mount(cluster, "one", *ASK)
    (one.path / "first").mkdir()
    wait_until(lambda: is_promised(cluster, (one.path / "first").stat), "the mount follows")
    home = one.path / "fresh"
    home.mkdir()
    wait_until(lambda: is_promised(cluster, home.stat), "its own name is promised")
    before = counters(cluster)["rpc_lookup_calls"]
    for number in range(LOOKS):
        (home / f"{number}").write_bytes(b"x")
        assert not (home / f"{number}.none").exists()
    assert counters(cluster)["rpc_lookup_calls"] == before
    assert len(os.listdir(home)) == LOOKS


def _mode(home: Path) -> None:
    (home / "f").chmod(0o600 if (home / "f").stat().st_mode & 0o77 else 0o644)


def _times(home: Path) -> None:
    os.utime(home / "f", ns=(5, (home / "f").stat().st_mtime_ns + 7))


def _longer(home: Path) -> None:
    with open(home / "f", "ab") as file:
        file.write(b"more")


def _other_bytes(home: Path) -> None:
    with open(home / "f", "r+b") as file:
        file.write(os.urandom(4))


def _cut(home: Path) -> None:
    os.truncate(home / "f", 2)


def _replaced(home: Path) -> None:
    (home / "new").write_bytes(os.urandom(5))
    (home / "new").rename(home / "f")


def _removed_and_made(home: Path) -> None:
    (home / "f").unlink()
    (home / "f").write_bytes(os.urandom(6))


def _linked(home: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        (home / "g").unlink()
    (home / "g").hardlink_to(home / "f")


def _made(home: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        (home / "g").unlink()
    (home / "g").write_bytes(b"g")


def _gone(home: Path) -> None:
    (home / "g").write_bytes(b"g")
    (home / "g").unlink()


def _directory(home: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        (home / "d").rmdir()
    (home / "d").mkdir()


def _moved_away(home: Path) -> None:
    (home / "d").mkdir(exist_ok=True)
    (home / "f").rename(home / "d" / "f")
    (home / "d" / "f").rename(home / "f")


CHANGES = [
    _mode, _times, _longer, _other_bytes, _cut, _replaced, _removed_and_made, _linked, _made, _gone, _directory,
    _moved_away,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_what_another_mount_has_changed_is_seen_at_once(
    cluster: LaunchedCluster, mount: MakeMount, change: Callable[[Path], None]
) -> None:
    one, other = mount(cluster, "one", *ASK), mount(cluster, "other", *ASK)
    name = f"changed{change.__name__}"
    (one.path / name).mkdir()
    (one.path / name / "f").write_bytes(b"first bytes")
    for turn in range(6):
        here, there = (one, other) if turn % 2 else (other, one)
        places = [Path(name), *(Path(name) / entry for entry in "fgd")]
        if turn < 2:
            wait_until(lambda at=there.path / name: is_promised(cluster, lambda: looks(at / "f")), "it is promised")
        for place in places:
            looks(there.path / place)
        change(here.path / name)
        assert [looks(there.path / place) for place in places] == [looks(here.path / place) for place in places]


def test_a_tree_removed_through_the_control_directory_is_gone_here_too(
    cluster: LaunchedCluster, mount: MakeMount
) -> None:
    one = mount(cluster, "one", *ASK)
    inner = one.path / "tree" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "f").write_bytes(b"x")
    wait_until(lambda: is_promised(cluster, lambda: (inner / "f").stat()), "it is promised")
    os.symlink("tree/a/b", one.path / ".emberfs" / "rm-rf" / "now")
    assert os.listdir(one.path / "tree" / "a") == []
    with pytest.raises(OSError) as failure:
        (inner / "f").stat()
    assert failure.value.errno in (errno.ENOENT, errno.ESTALE)


def test_a_name_removed_through_the_control_directory_is_gone_when_the_order_returns(
    cluster: LaunchedCluster, mount: MakeMount
) -> None:
    """The kernel is told before the order is answered, not by the way: many times, as it was a race."""
    one = mount(cluster)
    left = []
    for turn in range(300):
        (one.path / f"file{turn}").write_bytes(b"x")
        os.symlink(f"file{turn}", one.path / ".emberfs" / "rm-rf" / "now")
        if (one.path / f"file{turn}").exists():
            left.append(turn)
    assert not left


@contextlib.contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_a_mount_that_stands_still_delays_others_by_a_lease_and_then_shows_what_they_changed(
    cluster: LaunchedCluster, mount: MakeMount
) -> None:
    one, other = mount(cluster, "one", *ASK), mount(cluster, "other", *ASK)
    (one.path / "still").write_bytes(b"old")
    there = other.path / "still"
    wait_until(lambda: is_promised(cluster, there.read_bytes), "it is promised")
    with stopped(other.daemon.pid):
        (one.path / "still").write_bytes(b"newer")
        (one.path / "still").chmod(0o600)
    assert there.read_bytes() == b"newer"
    assert there.stat().st_mode & 0o777 == 0o600
    wait_until(lambda: is_promised(cluster, there.read_bytes), "it is promised again")


def test_a_change_whose_outcome_nobody_knows_is_seen_when_it_is_made(
    fresh_cluster: Callable[..., LaunchedCluster], mount: MakeMount
) -> None:
    cluster = fresh_cluster()
    one = mount(cluster, "one", *ASK, "timeout=2")
    (one.path / "first").mkdir()
    wait_until(lambda: is_promised(cluster, (one.path / "first").stat), "the mount follows")
    home = one.path / "home"
    home.mkdir()
    assert not (home / "late").exists()
    service = daemon(cluster, "meta").process
    assert service is not None
    with stopped(service.pid), pytest.raises(OSError) as failure:
        (home / "late").mkdir()
    assert failure.value.errno == errno.ETIMEDOUT
    wait_until(lambda: "late" in at_the_service(cluster, "/home"), "the service has made it all the same")
    assert (home / "late").is_dir()


def test_promises_end_with_the_service(fresh_cluster: Callable[..., LaunchedCluster], mount: MakeMount) -> None:
    cluster = fresh_cluster()
    one, other = mount(cluster, "one", *ASK), mount(cluster, "other", *ASK)
    (one.path / "f").write_bytes(b"old")
    there = other.path / "f"
    wait_until(lambda: is_promised(cluster, there.read_bytes), "it is promised")
    with stopped(other.daemon.pid):
        kill(cluster, "meta")
        start_again(cluster)
        (one.path / "f").write_bytes(b"newer")
    assert there.read_bytes() == b"newer"
    wait_until(lambda: is_promised(cluster, there.read_bytes), "it is promised again")


@pytest.mark.parametrize("consistency", ["strict", "dataset"])
def test_mounts_that_have_no_use_for_promises_do_not_follow(
    fresh_cluster: Callable[..., LaunchedCluster], mount: MakeMount, consistency: str
) -> None:
    cluster = fresh_cluster(storage=1, replicas=1)
    one = mount(cluster, "one", f"consistency={consistency}")
    os.listdir(one.path)
    assert counters(cluster)["rpc_follow_calls"] == 0
