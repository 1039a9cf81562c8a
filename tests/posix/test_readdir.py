"""opendir, readdir, telldir, seekdir, rewinddir, getdents: every entry once, whatever else happens."""

import errno
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix import calls
from tests.posix.calls import DirectoryStream
from tests.posix.files import make, names, opened, refused, remove_tree
from tests.posix.people import actor, as_user
from tests.posix.subject import Subject

MANY = 1500
"""More entries than one answer of any kind holds."""


def fill(directory: Path, count: int = MANY) -> set[bytes]:
    """Names of one file: links are cheaper to make than files, and no different to who lists them."""
    wanted = {_name(number) for number in range(count)}
    first = make(directory / _name(0))
    for name in wanted - {_name(0)}:
        os.link(first, directory / name)
    return {name.encode() for name in wanted}


def _name(number: int) -> str:
    return f"entry-{number:05d}" + "-long" * (number % 7)


@pytest.fixture
def full(subject: Subject) -> Path:
    """For who changes it."""
    path = subject.path / "full"
    path.mkdir()
    fill(path)
    return path


@pytest.fixture(scope="module")
def settled(root: Subject) -> Iterator[Path]:
    """For who only reads it: one for all of them."""
    path = root.path / "settled"
    path.mkdir()
    fill(path)
    yield path
    remove_tree(path)


def test_empty_directory_has_dot_and_dot_dot(directory: Path) -> None:
    with DirectoryStream(directory) as stream:
        assert sorted(entry.name for entry in stream.rest()) == [b".", b".."]
        assert stream.read() is None


def test_each_entry_once(settled: Path) -> None:
    with DirectoryStream(settled) as stream:
        found = [entry.name for entry in stream.rest()]
    assert len(found) == MANY + 2
    assert set(found) == {_name(number).encode() for number in range(MANY)} | {b".", b".."}


def test_inodes_and_types(directory: Path) -> None:
    make(directory / "file")
    (directory / "directory").mkdir()
    (directory / "symlink").symlink_to("file")
    os.mkfifo(directory / "fifo")
    os.mknod(directory / "socket", stat.S_IFSOCK | 0o600)
    with DirectoryStream(directory) as stream:
        entries = {entry.name: entry for entry in stream.rest()}
    for name in (b"file", b"directory", b"symlink", b"fifo", b"socket", b"."):
        status = os.lstat(os.path.join(os.fsencode(directory), name))
        assert entries[name].inode == status.st_ino
        assert entries[name].type in (stat.S_IFMT(status.st_mode) >> 12, 0)
    assert entries[b".."].inode == directory.parent.stat().st_ino


def test_scandir_agrees_with_stat(directory: Path) -> None:
    make(directory / "file", b"abc")
    (directory / "directory").mkdir()
    (directory / "symlink").symlink_to("directory")
    with os.scandir(directory) as entries:
        for entry in entries:
            status = os.lstat(entry.path)
            assert entry.inode() == status.st_ino
            assert entry.stat(follow_symlinks=False).st_size == status.st_size
            assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(status.st_mode)
            assert entry.is_symlink() == stat.S_ISLNK(status.st_mode)


def test_tell_and_seek_return_to_any_place(settled: Path) -> None:
    with DirectoryStream(settled) as stream:
        places = [stream.tell()]
        order = []
        while (entry := stream.read()) is not None:
            order.append(entry.name)
            places.append(stream.tell())
        chosen = random.Random(7).sample(range(len(order)), 60)
        for index in (0, len(order) - 1, *chosen):
            stream.seek(places[index])
            entry = stream.read()
            assert entry is not None
            assert entry.name == order[index]
        stream.seek(places[-1])
        assert stream.read() is None
        stream.seek(places[len(order) // 2])
        assert [entry.name for entry in stream.rest()] == order[len(order) // 2 :]


def test_positions_of_one_stream_hold_in_another(settled: Path) -> None:
    """NFS servers and Samba rely on it; POSIX does not promise it, every Linux file system keeps it."""
    with DirectoryStream(settled) as first, DirectoryStream(settled) as second:
        for _ in range(500):
            first.read()
        second.seek(first.tell())
        assert [entry.name for entry in second.rest()] == [entry.name for entry in first.rest()]


def test_rewind_sees_what_is_new(directory: Path) -> None:
    make(directory / "a")
    with DirectoryStream(directory) as stream:
        assert {entry.name for entry in stream.rest()} == {b".", b"..", b"a"}
        make(directory / "b")
        (directory / "a").unlink()
        stream.rewind()
        assert {entry.name for entry in stream.rest()} == {b".", b"..", b"b"}


def test_descriptor_reads_from_the_start_after_lseek(directory: Path) -> None:
    make(directory / "a")
    with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        first = calls.getdents(descriptor, 4096)
        assert first
        assert calls.getdents(descriptor, 4096) == b""
        assert os.lseek(descriptor, 0, os.SEEK_SET) == 0
        assert calls.getdents(descriptor, 4096) == first


def test_memory_too_small_for_one_entry(settled: Path) -> None:
    with opened(settled, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        with refused(errno.EINVAL):
            calls.getdents(descriptor, 10)
        assert calls.getdents(descriptor, 300)


def test_others_stay_while_what_was_read_is_removed(full: Path) -> None:
    """`rm -r`: read some, remove them, read on. No entry is skipped."""
    removed = set()
    with DirectoryStream(full) as stream:
        while (entry := stream.read()) is not None:
            if entry.name not in (b".", b".."):
                os.unlink(os.path.join(os.fsencode(full), entry.name))
                removed.add(entry.name)
    assert len(removed) == MANY
    full.rmdir()


def test_those_that_stay_are_read_once_while_others_come_and_go(full: Path) -> None:
    """An entry that comes or goes meanwhile may be seen or not; one that stays is seen exactly once."""
    stays = {_name(number).encode() for number in range(0, MANY, 2)}
    goes = [_name(number) for number in range(1, MANY, 2)]
    seen: list[bytes] = []
    added = 0
    with DirectoryStream(full) as stream:
        while (entry := stream.read()) is not None:
            seen.append(entry.name)
            if len(seen) % 3 == 0 and goes:
                (full / goes.pop()).unlink()
            if len(seen) % 5 == 0 and added < 300:
                make(full / f"added-{added}")
                added += 1
    for name in stays:
        assert seen.count(name) == 1
    assert len(seen) == len(set(seen))


def _churn(directory: Path, count: int) -> None:
    for number in range(count):
        make(directory / f"churn-{number % 50}")
        os.rename(directory / f"churn-{number % 50}", directory / f"moved-{number % 50}")
        if number % 3 == 0:
            os.unlink(directory / f"moved-{number % 50}")


def test_those_that_stay_are_read_once_while_another_process_works(subject: Subject) -> None:
    full = subject.path / "full"
    full.mkdir()
    stays = fill(full, 300)
    with actor() as other:
        other.start(_churn, subject.other / "full", 300)
        rounds = 0
        while not other.finished() or rounds == 0:
            with DirectoryStream(full) as stream:
                found = [entry.name for entry in stream.rest()]
            assert sorted(name for name in found if name.startswith(b"entry")) == sorted(stays)
            rounds += 1
        other.result()


def test_a_listing_after_each_change_is_right(directory: Path) -> None:
    model: set[str] = set()
    chance = random.Random(11)
    for number in range(150):
        if model and chance.random() < 0.4:
            name = chance.choice(sorted(model))
            (directory / name).unlink()
            model.remove(name)
        elif model and chance.random() < 0.3:
            name = chance.choice(sorted(model))
            (directory / name).rename(directory / f"r{number}")
            model.remove(name)
            model.add(f"r{number}")
        else:
            make(directory / f"f{number}")
            model.add(f"f{number}")
        assert names(directory) == model


def test_permission(directory: Path) -> None:
    make(directory / "f")
    directory.chmod(0o711)
    with refused(errno.EACCES):
        as_user(os.listdir, directory)
    directory.chmod(0o744)
    assert as_user(os.listdir, directory) == ["f"]
    with refused(errno.EACCES):
        as_user(os.stat, directory / "f")


def test_permission_of_an_open_directory_is_kept(directory: Path) -> None:
    make(directory / "f")

    def read() -> list[str]:
        with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            os.setresuid(3001, 3001, 3001)
            return os.listdir(descriptor)

    directory.chmod(0o700)
    assert as_user(read, uid=0) == ["f"]


def test_not_a_directory(directory: Path) -> None:
    make(directory / "f")
    with refused(errno.ENOTDIR):
        os.listdir(directory / "f")
    with refused(errno.ENOENT):
        os.listdir(directory / "missing")
    with opened(directory / "f") as descriptor, refused(errno.ENOTDIR):
        calls.getdents(descriptor, 4096)


def test_several_streams_at_once(settled: Path) -> None:
    streams = [DirectoryStream(settled) for _ in range(8)]
    try:
        counts = [0] * len(streams)
        chance = random.Random(3)
        running = list(range(len(streams)))
        while running:
            index = chance.choice(running)
            for _ in range(chance.randrange(1, 200)):
                if streams[index].read() is None:
                    running.remove(index)
                    break
                counts[index] += 1
        assert counts == [MANY + 2] * len(streams)
    finally:
        for stream in streams:
            stream.close()
