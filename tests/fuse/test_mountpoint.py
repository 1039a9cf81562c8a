"""Mounting: each thing that can be wrong with the place is one clear error; what a dead daemon left is cleared."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.limits import empty_fuse
from benchmarks.limits.process import Worker
from fs_client.fuse import mountpoint
from fs_client.fuse.mountpoint import Answer, MountEntry, MountError
from tests.fuse.mounting import SOURCE, needs_mount, needs_root, settings

ROOT = Path(__file__).resolve().parents[2]
system = pytest.mark.system


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mount"
    path.mkdir()
    yield path
    while mountpoint.find(str(path)):
        mountpoint.unmount(str(path), lazy=True, force=True)


def test_places_that_cannot_be_mounted_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "entry").touch()
    for name, code, message in (
        ("missing", errno.ENOENT, "does not exist; make the directory first"),
        ("file", errno.ENOTDIR, "is not a directory; mount on a directory"),
        ("file/below", errno.ENOTDIR, "cannot be mounted on: Not a directory"),
        ("full", errno.ENOTEMPTY, "is not empty; .* use -o nonempty"),
    ):
        with pytest.raises(MountError, match=message) as caught:
            mountpoint.mount(str(tmp_path / name), settings())
        assert caught.value.errno == code
        assert str(tmp_path / name) in str(caught.value)


def test_nothing_to_unmount(tmp_path: Path) -> None:
    with pytest.raises(MountError, match=f"{tmp_path} is not a mount point"):
        mountpoint.unmount(str(tmp_path))


def test_mounts_are_read_from_the_kernel() -> None:
    entries = mountpoint.mounts()
    assert "/" in [entry.mountpoint for entry in entries]
    assert mountpoint.find("/proc") in [None, *entries]
    assert mountpoint.find("/no/such/place") is None


def test_the_bound_of_one_request_is_what_the_kernel_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content, expected in (("1024\n", 1024), ("nonsense", 256), (None, 256)):
        path = tmp_path / "limit"
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        monkeypatch.setattr(mountpoint, "MAX_PAGES_FILE", path)
        assert mountpoint.max_pages_limit() == expected


def test_what_is_not_permitted_is_told_not_raised(tmp_path: Path) -> None:
    entry = MountEntry(str(tmp_path), "0:999999", mountpoint.TYPE, SOURCE)
    assert not mountpoint.set_read_ahead(entry, 1 << 20)


def test_without_the_helper_only_root_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MountError, match="fusermount3, and it is not installed: apt-get install fuse3"):
        mountpoint.mount(str(tmp_path), settings())


@system
@needs_mount
def test_names_with_all_kinds_of_bytes(place: Path) -> None:
    strange = place / "blank and\ttab\nnewline \\ back, comma \u00fc"
    strange.mkdir()
    descriptor = mountpoint.mount(str(strange), settings())
    try:
        entry = mountpoint.find(str(strange))
        assert entry is not None
        assert (entry.mountpoint, entry.type, entry.source) == (str(strange), "fuse.emberfs", SOURCE)
    finally:
        os.close(descriptor)
        mountpoint.unmount(str(strange), lazy=True)
    assert mountpoint.find(str(strange)) is None


@system
@needs_mount
def test_a_place_has_one_name(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(place)
    (tmp_path / "above").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    os.close(mountpoint.mount("link", settings()))
    for name in (f"{tmp_path}/link", f"{tmp_path}/above/mount", "mount", "above/link/", str(place)):
        entry = mountpoint.find(name)
        assert entry is not None
        assert entry.mountpoint == str(place)
    mountpoint.unmount("above/link")
    assert mountpoint.find(str(place)) is None


def flags_of(place: Path) -> set[str]:
    (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {place} " in line]
    return set(line.split(" ")[5].split(",")) | set(line.split(" - ")[1].split(" ")[2].split(","))


@system
@needs_root
@needs_mount
def test_flags_change_while_it_is_mounted(place: Path) -> None:
    worker = Worker(empty_fuse.serve, str(place), 1 << 20)
    try:
        assert "ro" not in flags_of(place)
        mountpoint.remount(str(place), frozenset({"ro", "nosuid", "noatime"}))
        flags = flags_of(place)
        assert {"ro", "nosuid", "noatime"} <= flags and not flags & {"rw", "nodev", "relatime"}
        with pytest.raises(OSError, match="Read-only file system"):
            (place / "new").touch()
        mountpoint.remount(str(place), frozenset({"nodev", "noatime"}))
        flags = flags_of(place)
        assert {"rw", "nodev", "noatime"} <= flags and not flags & {"ro", "nosuid"}
    finally:
        worker.stop()


def test_what_is_not_mounted_is_not_mounted_again(tmp_path: Path) -> None:
    for path in (str(tmp_path), "/proc"):
        with pytest.raises(MountError, match=f"{path} has no EmberFS mounted; mount without remount"):
            mountpoint.remount(path, frozenset())


@system
@needs_mount
def test_a_full_directory_may_be_hidden(place: Path) -> None:
    (place / "entry").touch()
    os.close(mountpoint.mount(str(place), settings(nonempty=True)))
    mountpoint.unmount(str(place))
    assert os.listdir(place) == ["entry"]


@system
@needs_mount
def test_a_living_mount_is_not_mounted_over(place: Path) -> None:
    worker = Worker(empty_fuse.serve, str(place), 1 << 20)
    try:
        assert mountpoint.probe(str(place)) is Answer.ALIVE
        with pytest.raises(MountError, match=f"has empty mounted already; to mount again: emberfs umount {place}"):
            mountpoint.mount(str(place), settings(nonempty=True))
        assert len([entry for entry in mountpoint.mounts() if entry.mountpoint == str(place)]) == 1
    finally:
        worker.stop()


@system
@needs_mount
def test_after_kill_9_the_next_mount_works_at_the_same_place(place: Path) -> None:
    for _ in range(2):
        worker = Worker(empty_fuse.serve, str(place), 1 << 20)
        try:
            descriptor = os.open(place / "file", os.O_RDONLY)
            pid = worker._process.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            worker._process.join()
            with pytest.raises(OSError) as caught:
                os.listdir(place)
            assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
            assert mountpoint.probe(str(place)) is Answer.DEAD
            assert mountpoint.find(str(place)) is not None
            with pytest.raises(OSError):
                os.close(descriptor)
        finally:
            worker.stop()
    # Mounted over what is dead twice by now: all of it goes.
    assert mountpoint.clear_stale(str(place))
    assert mountpoint.find(str(place)) is None
    assert not mountpoint.clear_stale(str(place))
    assert os.listdir(place) == []


@system
@needs_mount
def test_who_waits_for_a_daemon_gets_an_error_when_it_is_killed(place: Path) -> None:
    worker = Worker(empty_fuse.serve, str(place), 1 << 20)
    pid = worker._process.pid
    assert pid is not None
    outcome: list[int | None] = []

    def read() -> None:
        try:
            (place / "file").read_bytes()
        except OSError as error:
            outcome.append(error.errno)

    try:
        os.kill(pid, signal.SIGSTOP)
        reader = threading.Thread(target=read)
        reader.start()
        os.kill(pid, signal.SIGKILL)
        reader.join(30)
        assert not reader.is_alive()
        assert outcome[0] in (errno.ECONNABORTED, errno.ENOTCONN)
    finally:
        worker.stop()


@system
@needs_mount
@needs_root
def test_a_mount_whose_daemon_hangs_is_not_waited_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(empty_fuse.serve, str(place), 1 << 20)
    try:
        assert worker._process.pid is not None
        os.kill(worker._process.pid, signal.SIGSTOP)
        monkeypatch.setattr(mountpoint.probe, "__defaults__", (0.05,))
        assert mountpoint.probe(str(place)) is Answer.NONE
        with pytest.raises(MountError, match=f"does not answer; to end it: emberfs umount --force {place}"):
            mountpoint.mount(str(place), settings())
        mountpoint.unmount(str(place), force=True)
        assert mountpoint.find(str(place)) is None
    finally:
        worker._process.kill()
        worker.stop()


@system
@needs_mount
@needs_root
def test_the_kernel_reads_ahead_as_much_as_it_is_told(place: Path) -> None:
    worker = Worker(empty_fuse.serve, str(place), 1 << 20)
    try:
        entry = mountpoint.find(str(place))
        assert entry is not None
        assert mountpoint.set_read_ahead(entry, 16 << 20)
        assert Path(f"/sys/class/bdi/{entry.device}/read_ahead_kb").read_text().strip() == "16384"
    finally:
        worker.stop()


AS_A_USER = """
import asyncio, sys
from benchmarks.limits.empty_fuse import serve_until
from fs_client.fuse import mountpoint

async def main():
    def use():
        entry = mountpoint.find(sys.argv[1])
        print(entry.type, entry.source, len(open(sys.argv[1] + "/file", "rb").read()))
        mountpoint.unmount(sys.argv[1])
    loop = asyncio.get_running_loop()
    await serve_until(asyncio.Event(), sys.argv[1], 65536, lambda: loop.run_in_executor(None, use))
    print(mountpoint.find(sys.argv[1]))

asyncio.run(main())
"""
NOBODY = 65534


def may_run_python(user: int) -> bool:
    try:
        command = [sys.executable, "-c", "import benchmarks.limits.empty_fuse, uvloop"]
        return subprocess.run(command, cwd=ROOT, user=user, stderr=subprocess.DEVNULL).returncode == 0
    except PermissionError:
        return False


@system
@needs_mount
@pytest.mark.skipif(shutil.which("fusermount3") is None, reason="fusermount3 is not installed")
@pytest.mark.parametrize("who", ["who runs the tests", "nobody"])
def test_a_user_mounts_by_the_helper(who: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = AS_A_USER
    user = None
    if who == "nobody":
        if os.geteuid() != 0:
            pytest.skip("needs root to be somebody else")
        if os.stat(mountpoint.DEVICE).st_mode & 0o006 != 0o006:
            pytest.skip("/dev/fuse is not for other users here")
        if not may_run_python(NOBODY):
            pytest.skip("other users may not run this Python")
        user = NOBODY
    else:
        # Root as well, as if it was not: what the helper is told and gives back is the same.
        code = "import os; os.geteuid = lambda: 1000\n" + code
    # Below directories that everybody may enter, as those of pytest are not.
    directory = f"/tmp/emberfs-test-{os.getpid()}"
    os.mkdir(directory, 0o755)
    try:
        if user is not None:
            os.chown(directory, user, user)
        done = subprocess.run(
            [sys.executable, "-c", code, directory],
            capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment, user=user, group=user,
        )  # fmt: skip
        assert done.stdout == "fuse.emberfs empty 65536\nNone\n", done.stderr
    finally:
        if mountpoint.find(directory):
            mountpoint.unmount(directory, lazy=True)
        os.rmdir(directory)


@system
@needs_mount
@needs_root
@pytest.mark.skipif(shutil.which("fusermount3") is None, reason="fusermount3 is not installed")
def test_what_the_helper_refuses_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = place / "bin" / "fusermount3"
    helper.parent.mkdir()
    helper.write_text(
        "#!/bin/sh\necho 'fusermount3: option allow_other only allowed if user_allow_other is set' >&2\nexit 1\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(helper.parent), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (place / "here").mkdir()
    with pytest.raises(MountError, match=r"here is not mounted: option allow_other .* -o noallow_other"):
        mountpoint.mount(str(place / "here"), settings(allow_other=True))


@system
@needs_mount
def test_a_daemon_finds_its_own_mount_without_asking_it(place: Path, tmp_path: Path) -> None:
    """Also where it was mounted on a symbolic link: nobody would answer. (Nobody reads this mount's requests.)"""
    (tmp_path / "link").symlink_to(place.name)
    (tmp_path / "second").symlink_to(tmp_path / "link")
    name = str(tmp_path / "second")
    path = mountpoint.resolved(name)
    assert path == str(place)
    descriptor = mountpoint.mount(path, settings())
    try:
        assert mountpoint.entry_of(path) is not None
        # A command that names the link does not ask either.
        code = "import sys; from fs_client.fuse.mountpoint import unmount; unmount(sys.argv[1], lazy=True)"
        subprocess.run([sys.executable, "-c", code, name], timeout=60, check=True)
        assert mountpoint.entry_of(path) is None
    finally:
        os.close(descriptor)
