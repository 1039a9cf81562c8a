"""The copying engine, between two local folders that it takes for two file systems."""

import asyncio
import errno
import os
import stat
import subprocess
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fs_client.cli.copy import beneath, engine
from fs_client.cli.copy.engine import BLOCK_BYTES, Copier, Counts, Source
from fs_client.cli.copy.existing import Existing
from fs_client.cli.copy.local import LocalFile, LocalPlace
from fs_client.cli.copy.place import Item, Type, Writer
from tests.support import run


class Elsewhere(LocalPlace):
    """The same disk as another file system, which can be made to fail."""

    identity = "elsewhere"

    def __init__(self, top: Path, before_write: Callable[[str, int], None] = lambda path, offset: None) -> None:
        super().__init__(str(top))
        self.before_write = before_write
        self.writing = asyncio.Event()

    async def open_to_write(self, path: str, mode: int, *, exclusive: bool) -> Writer:
        file: LocalFile = await super().open_to_write(path, mode, exclusive=exclusive)
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


async def copy(
    source: Path,
    target: Path,
    to: LocalPlace | None = None,
    *,
    preserve: bool = False,
    existing: Existing = Existing.REPLACE,
    force: bool = False,
    copied: Callable[[str, str], None] | None = None,
) -> Copied:
    failures: list[tuple[str, str]] = []
    copier = Copier(
        to or Elsewhere(target),
        jobs=4,
        preserve=preserve,
        failed=lambda subject, reason: failures.append((subject, reason)),
        moved=lambda counts: None,
        existing=existing,
        force=force,
        copied=copied,
    )
    place = LocalPlace(str(source))
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


def _two_of_three(source: Path, target: Path) -> None:
    """The target has an older `small` and a `link`; its `nothing` is newer."""
    target.mkdir()
    for name, time_s in (("small", 1), ("nothing", 10**10)):
        (target / name).write_bytes(b"there before")
        os.utime(target / name, (time_s, time_s))
    (target / "link").symlink_to("there/before")
    os.utime(target / "link", (1, 1), follow_symlinks=False)


def test_files_that_are_there_stay(source: Path, tmp_path: Path) -> None:
    _two_of_three(source, tmp_path / "target")
    told: list[tuple[str, str]] = []
    copied = run(
        copy(source, tmp_path / "target", existing=Existing.KEEP, copied=lambda one, other: told.append((one, other)))
    )
    assert copied.failures == []
    assert (copied.counts.kept, copied.counts.files, copied.counts.found_files) == (3, 3, 3)
    assert copied.counts.bytes == copied.counts.found_bytes
    found = tree_of(tmp_path / "target")
    assert found["small"] == found["nothing"] == b"there before" and found["link"] == ("link", "there/before")
    others = {name: value for name, value in tree_of(source).items() if name not in ("small", "nothing", "link")}
    assert {name: found[name] for name in others} == others
    assert sorted(told) == sorted((str(source / name), str(tmp_path / "target" / name)) for name in others)


def test_older_files_are_replaced_and_no_others(source: Path, tmp_path: Path) -> None:
    _two_of_three(source, tmp_path / "target")
    copied = run(copy(source, tmp_path / "target", existing=Existing.UPDATE))
    assert (copied.failures, copied.counts.kept, copied.counts.files) == ([], 1, 5)
    assert tree_of(tmp_path / "target") == tree_of(source) | {"nothing": b"there before"}


def test_a_file_that_comes_between_stays_too(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    target = tmp_path / "target"

    class Racing(Elsewhere):
        async def open_to_write(self, path: str, mode: int, *, exclusive: bool) -> Writer:
            Path(path).write_bytes(b"somebody else's")
            return await super().open_to_write(path, mode, exclusive=exclusive)

    copied = run(copy(tmp_path / "source", target, Racing(target), existing=Existing.KEEP))
    assert (copied.failures, copied.counts.kept, copied.counts.files) == ([], 1, 0)
    assert target.read_bytes() == b"somebody else's"


def test_files_that_may_not_be_written_are_removed_if_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    target = tmp_path / "target"
    target.write_bytes(b"old")

    class Guarded(Elsewhere):
        async def open_to_write(self, path: str, mode: int, *, exclusive: bool) -> Writer:
            if target.exists():
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return await super().open_to_write(path, mode, exclusive=exclusive)

    refused = run(copy(tmp_path / "source", target, Guarded(target)))
    assert refused.failures == [(str(target), "Permission denied")] and target.read_bytes() == b"old"
    assert run(copy(tmp_path / "source", target, Guarded(target), force=True)).failures == []
    assert target.read_bytes() == b"new"


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

    copied = run(copy(source, tmp_path / "target", Elsewhere(tmp_path / "target", break_large)))
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

    copied = run(copy(tmp_path / "source", tmp_path / "target", Elsewhere(tmp_path / "target", fill_up)))
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

        task = asyncio.create_task(
            copy(source / "deep" / "deeper", tmp_path / "target", Elsewhere(tmp_path / "target", note_large))
        )
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

    copied = run(copy(tmp_path / "log", tmp_path / "copy", Elsewhere(tmp_path / "copy", cut)))
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
    copied = run(copy(tmp_path / "a", tmp_path / "b", LocalPlace(str(tmp_path / "b"))))
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


# Links, and others who may write into the tree


@pytest.fixture(params=["one call", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How directories are opened: as the kernel can, or as any can."""
    if request.param == "walk":

        def no_such_call(at: int, path: str) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(beneath, "_openat2", no_such_call)
    return str(request.param)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder outside of what is copied."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "precious").write_bytes(b"precious")
    return tmp_path / "victim"


def untouched(victim: Path) -> bool:
    return tree_of(victim) == {"precious": b"precious"}


def test_a_link_where_a_directory_goes_is_not_followed(source: Path, victim: Path, tmp_path: Path, way: str) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "deep").symlink_to(victim)
    copied = run(copy(source, tmp_path / "target", preserve=True))
    reason = f"goes where {tmp_path / 'target' / 'deep'} is a symbolic link, which is not followed: remove it"
    assert copied.failures == [(str(source / "deep"), reason)]
    assert untouched(victim)
    assert (tmp_path / "target" / "small").read_bytes() == b"x"


def test_a_link_where_a_file_goes_is_replaced(source: Path, victim: Path, tmp_path: Path, way: str) -> None:
    (tmp_path / "target" / "deep").mkdir(parents=True)
    (tmp_path / "target" / "small").symlink_to(victim / "precious")
    (tmp_path / "target" / "deep" / "exact").symlink_to("nowhere")
    copied = run(copy(source, tmp_path / "target", preserve=True))
    assert copied.failures == []
    assert untouched(victim)
    assert tree_of(tmp_path / "target") == tree_of(source)


@pytest.mark.parametrize("what", ["tree", "file"])
def test_the_destination_itself_may_be_a_link(what: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    copied_from = source if what == "tree" else source / "small"
    there = tmp_path / "disk" / "there"
    if what == "tree":
        there.mkdir()
    else:
        there.write_bytes(b"old and longer")
    (tmp_path / "target").symlink_to(there)
    assert run(copy(copied_from, tmp_path / "target", preserve=True)).failures == []
    assert (tmp_path / "target").is_symlink()
    assert there.read_bytes() == b"x" if what == "file" else tree_of(there) == tree_of(source)


def test_directories_that_become_links_while_they_are_filled(victim: Path, tmp_path: Path, way: str) -> None:
    folder = tmp_path / "source" / "a" / "b"
    folder.mkdir(parents=True)
    for number in range(100):
        (folder / str(number)).write_bytes(b"x")
    target = tmp_path / "target"

    def swap(path: str, offset: int) -> None:
        if not (target / "a" / "b").is_symlink():
            (target / "a" / "b").rename(target / "a" / "away")
            (target / "a" / "b").symlink_to(victim)

    copied = run(copy(tmp_path / "source", target, Elsewhere(target, swap), preserve=True))
    assert copied.failures
    assert untouched(victim)


def test_directories_that_become_links_while_they_are_read(victim: Path, tmp_path: Path, way: str) -> None:
    folder = tmp_path / "source" / "a" / "b"
    folder.mkdir(parents=True)
    for number in range(100):
        (folder / str(number)).write_bytes(b"x")
    (victim / "99").write_bytes(b"secret")
    target = tmp_path / "target"

    def swap(path: str, offset: int) -> None:
        if not folder.is_symlink():
            folder.rename(tmp_path / "away")
            folder.symlink_to(victim)

    copied = run(copy(tmp_path / "source", target, Elsewhere(target, swap)))
    assert copied.failures
    assert {path.read_bytes() for path in target.rglob("*") if path.is_file()} == {b"x"}


class Hostile(LocalPlace):
    """Its listings name things twice, once as links and once as what is to be written through them."""

    identity = "hostile"

    def __init__(self, top: Path, victim: Path) -> None:
        super().__init__(str(top))
        self.victim = victim

    async def list(self, path: str) -> AsyncGenerator[Item, None]:
        link = Item("d", Type.SYMLINK, 0, 0o777, 0, 0, 0, 0, (0, 1))
        if path == self.top:
            yield link
            yield replace(link, type=Type.DIRECTORY, mode=0o755)
            yield replace(link, name="f")
            yield replace(link, name="f", type=Type.FILE, size=1)
            for name in ("..", ".", "", "a/b", "../victim/x", "/etc/x"):
                yield replace(link, name=name, type=Type.FILE, size=1)
        else:
            yield replace(link, name="planted", type=Type.FILE, size=1)

    async def read_link(self, path: str) -> str:
        return str(self.victim / "precious") if path.endswith("f") else str(self.victim)

    async def open_to_read(self, path: str) -> LocalFile:
        return await LocalPlace("/proc/version").open_to_read("/proc/version")


def test_names_that_are_listed_twice(victim: Path, tmp_path: Path) -> None:
    async def main() -> list[str]:
        failures: list[str] = []
        place = Hostile(tmp_path / "source", victim)
        target = LocalPlace(str(tmp_path / "target"))
        copier = Copier(
            target, jobs=1, preserve=False, failed=lambda _, reason: failures.append(reason), moved=lambda counts: None
        )
        top = Item("source", Type.DIRECTORY, 0, 0o755, 0, 0, 0, 0, (0, 1))
        await copier.copy([Source(place, place.top, top, target.top)])
        return failures

    failures = run(main())
    assert untouched(victim)
    assert sum("is a symbolic link, which is not followed" in reason for reason in failures) == 1
    assert sum("impossible name" in reason for reason in failures) == 6
    assert not (tmp_path / "target" / "f").is_symlink()


def test_a_fifo_in_the_place_of_a_file_stops_nobody(source: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    os.mkfifo(tmp_path / "target" / "small")
    copied = run(copy(source, tmp_path / "target"))
    assert [subject for subject, _ in copied.failures] == [str(tmp_path / "target" / "small")]


# Owners and set-id bits


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_keeps_owners_and_set_id_bits_together(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "d"
    folder.mkdir(parents=True)
    (folder / "program").write_bytes(b"#!/bin/true\n")
    (folder / "link").symlink_to("program")
    for path in (folder / "program", folder, folder / "link"):
        os.chown(path, 12345, 23456, follow_symlinks=False)
    (folder / "program").chmod(0o6755)
    folder.chmod(0o2775)
    assert run(copy(tmp_path / "source", tmp_path / "target", preserve=True)).failures == []
    for name, mode in (("d", 0o2775), ("d/program", 0o6755), ("d/link", 0o777)):
        found = (tmp_path / "target" / name).lstat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 23456, mode), name


@pytest.mark.parametrize("mine", [True, False])
def test_set_id_bits_do_not_come_without_their_owner(
    mine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "program").write_bytes(b"#!/bin/true\n")
    (tmp_path / "source" / "program").chmod(0o6755)
    (tmp_path / "source" / "sub").mkdir()
    (tmp_path / "source" / "sub").chmod(0o3775)

    def refuse(*arguments: object, **more: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if not mine:
        monkeypatch.setattr(os, "chown", refuse)
    assert run(copy(tmp_path / "source", tmp_path / "target", preserve=True)).failures == []

    def mode(name: str) -> int:
        return stat.S_IMODE((tmp_path / "target" / name).stat().st_mode)

    assert (mode("program"), mode("sub")) == ((0o6755, 0o3775) if mine else (0o755, 0o775))


def test_a_file_is_open_to_nobody_else_before_it_has_its_owner(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"secret")
    (tmp_path / "a").chmod(0o644)
    modes: list[int] = []

    def look(path: str, offset: int) -> None:
        modes.append(stat.S_IMODE(os.stat(path).st_mode))

    assert run(copy(tmp_path / "a", tmp_path / "b", Elsewhere(tmp_path / "b", look), preserve=True)).failures == []
    assert modes == [0o600]
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o644
