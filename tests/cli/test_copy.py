"""The copying engine, between two local folders that it takes for two file systems."""

import asyncio
import errno
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fs_client.cli.copy import engine
from fs_client.cli.copy.engine import BLOCK_BYTES, Copier, Counts, Source
from fs_client.cli.copy.local import LocalFile, LocalPlace
from fs_client.cli.copy.place import Writer
from tests.support import run


class Elsewhere(LocalPlace):
    """The same disk as another file system, which can be made to fail."""

    identity = "elsewhere"

    def __init__(self, before_write: Callable[[str, int], None] = lambda path, offset: None) -> None:
        self.before_write = before_write
        self.writing = asyncio.Event()

    async def open_to_write(self, path: str, mode: int) -> Writer:
        file: LocalFile = await super().open_to_write(path, mode)
        original = file.write

        async def write(offset: int, view: memoryview) -> None:
            self.writing.set()
            self.before_write(path, offset)
            await original(offset, view)

        file.write = write  # type: ignore[method-assign]
        return file


class Copied:
    def __init__(self, counts: Counts, failures: list[tuple[str, str]]) -> None:
        self.counts = counts
        self.failures = failures


async def copy(source: Path, target: Path, to: LocalPlace | None = None, *, preserve: bool = False) -> Copied:
    failures: list[tuple[str, str]] = []
    copier = Copier(
        to or Elsewhere(),
        jobs=4,
        preserve=preserve,
        failed=lambda subject, reason: failures.append((subject, reason)),
        moved=lambda counts: None,
    )
    place = LocalPlace()
    item = await place.look(str(source), follow=False)
    assert item is not None
    await copier.copy([Source(place, str(source), item, str(target))])
    return Copied(copier.counts, failures)


def tree_of(folder: Path) -> dict[str, object]:
    """Everything below: contents, link targets, None for directories."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "nothing").write_bytes(b"")
    (folder / "small").write_bytes(b"x")
    (folder / "deep" / "exact").write_bytes(os.urandom(BLOCK_BYTES))
    (folder / "deep" / "deeper" / "large").write_bytes(os.urandom(3 * BLOCK_BYTES + 17))
    (folder / "link").symlink_to("nowhere/at all")
    (folder / "naïve \udce4 \n").write_bytes(b"awkward name")
    return folder


def test_a_tree_arrives_whole(source: Path, tmp_path: Path) -> None:
    copied = run(copy(source, tmp_path / "target"))
    assert copied.failures == []
    assert tree_of(tmp_path / "target") == tree_of(source)
    assert copied.counts.files == copied.counts.found_files == 6
    assert copied.counts.bytes == copied.counts.found_bytes == 4 * BLOCK_BYTES + 17 + 1 + 12


def test_a_copy_onto_a_copy_replaces_contents(source: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        await copy(source, tmp_path / "target")
        (source / "small").write_bytes(b"")
        (source / "link").unlink()
        (source / "link").symlink_to("elsewhere")
        assert (await copy(source, tmp_path / "target")).failures == []

    run(scenario())
    assert tree_of(tmp_path / "target") == tree_of(source)


def test_preserve_keeps_modes_and_times_of_files_directories_and_links(source: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(source.rglob("*"), reverse=True)):
        if not path.is_symlink():
            path.chmod(0o500 + number)
        os.utime(path, ns=(10**18 + number, 10**18 + 1000 + number), follow_symlinks=False)
    run(copy(source, tmp_path / "target", preserve=True))

    def attributes(path: Path) -> tuple[int, int]:
        found = path.lstat()
        return found.st_mode, found.st_mtime_ns

    names = [path.relative_to(source) for path in source.rglob("*")]
    assert {n: attributes(tmp_path / "target" / n) for n in names} == {n: attributes(source / n) for n in names}


def test_without_preserve_the_umask_holds(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "a").chmod(0o4777)
    old = os.umask(0o027)
    try:
        run(copy(tmp_path / "a", tmp_path / "b"))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o750


def test_a_file_that_fails_is_named_and_leaves_nothing_while_others_arrive(source: Path, tmp_path: Path) -> None:
    def break_large(path: str, offset: int) -> None:
        if path.endswith("large") and offset >= 2 * BLOCK_BYTES:
            raise OSError(errno.EIO, "the disk made a noise", path)

    copied = run(copy(source, tmp_path / "target", Elsewhere(break_large)))
    large = str(tmp_path / "target" / "deep" / "deeper" / "large")
    assert copied.failures == [(large, "Input/output error (the disk made a noise)")]
    expected = tree_of(source)
    del expected["deep/deeper/large"]
    assert tree_of(tmp_path / "target") == expected
    assert copied.counts.files == 5


def test_a_full_disk_ends_the_copying(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for number in range(200):
        (tmp_path / "source" / str(number)).write_bytes(b"x")
    written = []

    def fill_up(path: str, offset: int) -> None:
        written.append(path)
        if len(written) > 10:
            raise OSError(errno.ENOSPC, "No space left on device", path)

    copied = run(copy(tmp_path / "source", tmp_path / "target", Elsewhere(fill_up)))
    assert copied.failures
    assert {reason for _, reason in copied.failures} == {"No space left on device"}
    assert len(written) < 50
    arrived = list((tmp_path / "target").iterdir())
    assert len(arrived) == copied.counts.files
    assert all(path.read_bytes() == b"x" for path in arrived)


def test_cancelling_leaves_no_half_file(source: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        reached = asyncio.Event()

        def note_large(path: str, offset: int) -> None:
            if path.endswith("large"):
                reached.set()

        task = asyncio.create_task(copy(source / "deep" / "deeper", tmp_path / "target", Elsewhere(note_large)))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario())
    assert tree_of(tmp_path / "target") == {}


def test_a_file_that_shrinks_meanwhile_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BLOCKS_OF_A_FILE_MAX", 1)
    (tmp_path / "log").write_bytes(bytes(2 * BLOCK_BYTES))

    def cut(path: str, offset: int) -> None:
        os.truncate(tmp_path / "log", BLOCK_BYTES + 1)

    copied = run(copy(tmp_path / "log", tmp_path / "copy", Elsewhere(cut)))
    reason = f"became shorter while it was copied: {BLOCK_BYTES + 1} bytes of {2 * BLOCK_BYTES}"
    assert copied.failures == [(str(tmp_path / "log"), reason)]
    assert not (tmp_path / "copy").exists()


def test_files_that_do_not_tell_their_size(tmp_path: Path) -> None:
    copied = run(copy(Path("/proc/version"), tmp_path / "version"))
    assert copied.failures == []
    assert (tmp_path / "version").read_bytes() == Path("/proc/version").read_bytes()


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    os.mkfifo(tmp_path / "source" / "fifo")
    copied = run(copy(tmp_path / "source", tmp_path / "target"))
    reason = "is neither a file nor a directory nor a symbolic link"
    assert copied.failures == [(str(tmp_path / "source" / "fifo"), reason)]


def test_a_file_is_not_copied_onto_itself(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"precious")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    copied = run(copy(tmp_path / "a", tmp_path / "b", LocalPlace()))
    assert "is the same file as" in copied.failures[0][1]
    assert (tmp_path / "a").read_bytes() == b"precious"


def test_a_file_in_the_place_of_a_directory(source: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "deep").write_bytes(b"in the way")
    copied = run(copy(source, tmp_path / "target"))
    assert copied.failures == [(str(tmp_path / "target" / "deep"), "File exists")]
    assert (tmp_path / "target" / "small").read_bytes() == b"x"


def test_a_tree_deeper_than_the_stack(tmp_path: Path) -> None:
    depth = 1200
    os.makedirs(tmp_path / "target")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for name in ["source"] + ["d"] * depth:
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    try:
        copied = run(copy(tmp_path / "source", tmp_path / "target"))
        assert copied.failures == []
        assert (tmp_path / "target" / "/".join(["d"] * depth)).is_dir()
    finally:
        # Python's own removal of trees, which pytest cleans up with, is recursive.
        subprocess.run(["rm", "-rf", tmp_path / "source", tmp_path / "target"], check=True)


def test_memory_is_bounded_by_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BLOCK_BYTES", 4096)
    (tmp_path / "large").write_bytes(os.urandom(1000 * 4096 + 1))
    made = 0

    class Counting(bytearray):
        def __init__(self, size: int) -> None:
            nonlocal made
            made += 1
            super().__init__(size)

    monkeypatch.setattr(engine, "bytearray", Counting, raising=False)
    run(copy(tmp_path / "large", tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "large").read_bytes()
    assert 0 < made <= engine.BLOCKS_OF_A_FILE_MAX
