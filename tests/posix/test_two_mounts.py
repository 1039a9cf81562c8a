"""The same directory through two mounts: close-to-open. On a local subject both are one, where it holds trivially.

What one has closed, the other sees when it opens; names are seen at once by who looks them up anew, and within the time
that entries and attributes are kept by who has looked them up before.
"""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.calls import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, fallocate, unsupported
from tests.posix.files import DEADLINE_S, exists, make, names, opened, pattern, read_all, refused
from tests.posix.people import actor
from tests.posix.subject import Subject

STALE_S = 5.0
"""Longer than a mount keeps names and attributes by default (1 s), with room for a slow machine."""
_POLL_S = 0.01


def within(seconds: float, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s not yet: {what}"
        time.sleep(_POLL_S)


def test_closed_is_seen_at_open(subject: Subject) -> None:
    for number in range(20):
        writer, reader = (subject.path, subject.other) if number % 2 else (subject.other, subject.path)
        make(writer / "f", pattern(10_000 + number * 1000, number))
        with opened(reader / "f") as descriptor:
            assert os.fstat(descriptor).st_size == 10_000 + number * 1000
            assert read_all(descriptor) == pattern(10_000 + number * 1000, number)


def test_same_length_other_bytes(subject: Subject) -> None:
    """Nothing but the bytes tells that the file changed."""
    for number in range(20):
        writer, reader = (subject.path, subject.other) if number % 2 else (subject.other, subject.path)
        with opened(writer / "f", os.O_RDWR | os.O_CREAT) as descriptor:
            os.pwrite(descriptor, pattern(300_000, number), 0)
        assert (reader / "f").read_bytes() == pattern(300_000, number)


def test_small_change_in_the_middle(subject: Subject) -> None:
    expected = bytearray(pattern(2_000_000))
    make(subject.path / "f", bytes(expected))
    for number in range(20):
        writer, reader = (subject.path, subject.other) if number % 2 else (subject.other, subject.path)
        offset = number * 98_765
        with opened(writer / "f", os.O_RDWR) as descriptor:
            os.pwrite(descriptor, b"CHANGED", offset)
        expected[offset : offset + 7] = b"CHANGED"
        assert (reader / "f").read_bytes() == expected


def test_synced_is_seen_at_open(subject: Subject) -> None:
    with opened(subject.path / "f", os.O_RDWR | os.O_CREAT) as descriptor:
        os.write(descriptor, pattern(100_000))
        os.fsync(descriptor)
        assert (subject.other / "f").read_bytes() == pattern(100_000)


def test_cut_and_grown(subject: Subject) -> None:
    make(subject.path / "f", pattern(100_000))
    assert (subject.other / "f").read_bytes() == pattern(100_000)
    os.truncate(subject.path / "f", 50_000)
    assert (subject.other / "f").read_bytes() == pattern(100_000)[:50_000]
    os.truncate(subject.other / "f", 60_000)
    assert (subject.path / "f").read_bytes() == pattern(100_000)[:50_000] + bytes(10_000)


@pytest.mark.parametrize("mode", [0, FALLOC_FL_ZERO_RANGE])
def test_allocated_after_the_other_cut_it(subject: Subject, mode: int) -> None:
    """Both have it open. No byte is stored at the end that the allocation gives the file."""
    make(subject.path / "f", pattern(1000))
    with opened(subject.path / "f", os.O_RDWR) as first, opened(subject.other / "f", os.O_RDWR) as second:
        for length in (500, 200):
            os.ftruncate(first, length)
            try:
                fallocate(second, mode, length, 3_000_000)
            except OSError as error:
                if unsupported(error):
                    pytest.skip("this file system has no such mode")
                raise
            assert os.fstat(second).st_size == length + 3_000_000
            assert read_all(second) == pattern(1000)[:length] + bytes(3_000_000)
    assert (subject.path / "f").read_bytes() == pattern(1000)[:200] + bytes(3_000_000)


def test_hole_up_to_the_end_of_before(subject: Subject) -> None:
    """What the other has put behind it meanwhile stays."""
    make(subject.path / "f", pattern(1000))
    with opened(subject.other / "f", os.O_RDWR) as descriptor:
        assert os.fstat(descriptor).st_size == 1000
        with opened(subject.path / "f", os.O_RDWR) as writer:
            os.pwrite(writer, pattern(1000, 1), 1000)
        fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1000)
    assert (subject.path / "f").read_bytes() == bytes(1000) + pattern(1000, 1)


def test_hole_in_what_the_other_has_written(subject: Subject) -> None:
    make(subject.path / "f", pattern(1000))
    with opened(subject.other / "f", os.O_RDWR) as descriptor:
        assert os.fstat(descriptor).st_size == 1000
        with opened(subject.path / "f", os.O_RDWR) as writer:
            os.pwrite(writer, pattern(1000, 1), 1000)
        fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1500, 200)
    expected = pattern(1000) + pattern(1000, 1)
    assert (subject.path / "f").read_bytes() == expected[:1500] + bytes(200) + expected[1700:]


def test_written_from_both_sides_in_different_places(subject: Subject) -> None:
    """Two writers with the file open at once, each in bytes of its own: nobody's bytes are lost."""
    make(subject.path / "f", bytes(4_000_000))
    with opened(subject.path / "f", os.O_WRONLY) as first, opened(subject.other / "f", os.O_WRONLY) as second:
        for number in range(40):
            os.pwrite(first if number % 2 else second, pattern(100_000, number), number * 100_000)
    expected = b"".join(pattern(100_000, number) for number in range(40))
    assert (subject.path / "f").read_bytes() == expected
    assert (subject.other / "f").read_bytes() == expected


def test_grown_from_both_sides(subject: Subject) -> None:
    make(subject.path / "f")
    with opened(subject.path / "f", os.O_WRONLY) as first, opened(subject.other / "f", os.O_WRONLY) as second:
        os.pwrite(second, b"far", 1_000_000)
        os.pwrite(first, b"near", 0)
    for place in (subject.path, subject.other):
        assert (place / "f").read_bytes() == b"near" + bytes(999_996) + b"far"


def test_new_names_are_seen_at_once(subject: Subject) -> None:
    for number in range(20):
        writer, reader = (subject.path, subject.other) if number % 2 else (subject.other, subject.path)
        make(writer / f"f{number}")
        assert exists(reader / f"f{number}")
        assert names(reader) == {f"f{other}" for other in range(number + 1)}


def test_exclusive_create_has_one_winner(subject: Subject) -> None:
    with opened(subject.path / "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY):
        with refused(17):
            os.open(subject.other / "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with refused(17):
        os.mkdir(subject.other / "f")


def test_removed_names_go_in_time(subject: Subject) -> None:
    make(subject.path / "f", b"abc")
    assert (subject.other / "f").read_bytes() == b"abc"
    (subject.path / "f").unlink()
    within(STALE_S, lambda: not exists(subject.other / "f"), "the name is gone on the other mount")
    assert names(subject.other) == set()


def test_missing_names_come_in_time(subject: Subject) -> None:
    """Who has asked for it in vain before may have remembered that."""
    assert not exists(subject.other / "f")
    make(subject.path / "f")
    within(STALE_S, lambda: exists(subject.other / "f"), "the name is there on the other mount")


def test_renamed_names_move_in_time(subject: Subject) -> None:
    make(subject.path / "a", b"abc")
    assert exists(subject.other / "a")
    (subject.path / "a").rename(subject.path / "b")
    assert (subject.other / "b").read_bytes() == b"abc"
    within(STALE_S, lambda: not exists(subject.other / "a"), "the old name is gone on the other mount")


def test_replaced_file_is_the_new_one_at_open(subject: Subject) -> None:
    make(subject.path / "f", b"old")
    assert (subject.other / "f").read_bytes() == b"old"
    make(subject.path / "new", b"new!").rename(subject.path / "f")
    within(STALE_S, lambda: (subject.other / "f").read_bytes() == b"new!", "the new file is there on the other mount")


@pytest.mark.parametrize("held_for", [os.O_RDONLY, os.O_RDWR])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT])
def test_open_gets_the_file_that_has_the_name(subject: Subject, held_for: int, flags: int) -> None:
    """Not the one that had it a moment ago, though somebody there still has that open, and the name is remembered."""
    for number in range(10):
        here, there = (subject.path, subject.other) if number % 2 else (subject.other, subject.path)
        name = f"f{number}"
        make(there / name, b"old")
        with opened(there / name, held_for) as old:
            assert (here / name).read_bytes() == b"old"
            (there / name).unlink()
            make(there / name, b"new!")
            with opened(here / name, flags) as descriptor:
                assert read_all(descriptor) == b"new!"
            assert read_all(old) == b"old"
        assert (here / name).read_bytes() == b"new!"


def test_file_without_a_name_is_opened_through_its_descriptor(subject: Subject) -> None:
    make(subject.path / "f", b"old")
    with opened(subject.path / "f", os.O_RDWR) as descriptor:
        (subject.other / "f").unlink()
        for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY):
            with opened(Path(f"/proc/self/fd/{descriptor}"), flags) as again:
                assert os.fstat(again).st_ino == os.fstat(descriptor).st_ino
        assert read_all(descriptor) == b"old"


def test_attributes_follow_in_time(subject: Subject) -> None:
    make(subject.path / "f")
    assert (subject.other / "f").stat().st_size == 0
    (subject.path / "f").chmod(0o600)
    os.utime(subject.path / "f", ns=(5, 7))

    def followed() -> bool:
        status = (subject.other / "f").stat()
        return (status.st_mode & 0o777, status.st_mtime_ns) == (0o600, 7)

    within(STALE_S, followed, "mode and time are there on the other mount")


def test_attributes_of_an_open_are_fresh(subject: Subject) -> None:
    for number in range(10):
        make(subject.path / "f", pattern(1000 * number))
        with opened(subject.other / "f") as descriptor:
            assert os.fstat(descriptor).st_size == 1000 * number


def test_mode_and_times_of_an_open_are_fresh(subject: Subject) -> None:
    """Changes that leave the contents what they are."""
    make(subject.path / "f", b"abc")
    for number in range(10):
        assert (subject.other / "f").stat().st_size == 3
        (subject.path / "f").chmod(0o600 + number)
        os.utime(subject.path / "f", ns=(number, number))
        with opened(subject.other / "f") as descriptor:
            status = os.fstat(descriptor)
            assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o600 + number, number)
        os.truncate(subject.path / "f", 3)
        with opened(subject.other / "f") as descriptor:
            assert os.fstat(descriptor).st_mtime_ns == (subject.path / "f").stat().st_mtime_ns != number


def test_blocks_tell_of_holes_that_the_other_made(subject: Subject) -> None:
    path, other = subject.path / "f", subject.other / "f"
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        os.pwrite(descriptor, pattern(5000), 40 << 20)
    with opened(other) as descriptor:
        assert os.fstat(descriptor).st_blocks * 512 < 20 << 20
    with opened(path, os.O_RDWR) as descriptor:
        os.pwrite(descriptor, bytes(30 << 20), 0)
        os.fsync(descriptor)
    with opened(other) as descriptor:
        assert os.fstat(descriptor).st_blocks * 512 >= 30 << 20


def test_file_that_is_open_here_survives_its_removal_there(subject: Subject) -> None:
    make(subject.path / "f", pattern(100_000))
    with opened(subject.path / "f", os.O_RDWR) as descriptor:
        (subject.other / "f").unlink()
        os.pwrite(descriptor, b"XYZ", 0)
        assert read_all(descriptor) == b"XYZ" + pattern(100_000)[3:]
        os.fsync(descriptor)


def test_directory_with_what_the_other_made_is_not_empty(subject: Subject) -> None:
    (subject.path / "d").mkdir()
    assert names(subject.other / "d") == set()
    make(subject.path / "d" / "f")
    with refused(39):
        (subject.other / "d").rmdir()


def test_circle_of_directories_made_by_two_is_refused(subject: Subject) -> None:
    """Each move is fine by itself; both would detach a circle from the tree."""
    (subject.path / "a").mkdir()
    (subject.path / "b").mkdir()
    with actor() as first, actor() as second:
        first.start(os.rename, subject.path / "a", subject.path / "b" / "a")
        second.start(os.rename, subject.other / "b", subject.other / "a" / "b")
        failures = 0
        for one in (first, second):
            try:
                one.result()
            except OSError as error:
                assert error.errno in (2, 22), error
                failures += 1
    assert failures == 1
    within(STALE_S, lambda: len(names(subject.path)) == len(names(subject.other)) == 1, "one of them is in the other")


def _read_until(path: Path, last: int) -> list[int]:
    """Numbers seen, each once; until `last`."""
    seen: list[int] = []
    deadline = time.monotonic() + DEADLINE_S
    while not seen or seen[-1] != last:
        assert time.monotonic() < deadline
        number = int(path.read_bytes() or b"-1")
        if not seen or number != seen[-1]:
            seen.append(number)
    return seen


@pytest.mark.parametrize("replace", [False, True])
def test_reader_never_goes_back(subject: Subject, replace: bool) -> None:
    """One writes 0, 1, 2 and so on; who reads on the other mount sees a rising sequence."""
    make(subject.path / "f", b"%08d" % 0)
    with actor() as reader:
        reader.start(_read_until, subject.other / "f", 199)
        for number in range(200):
            if replace:
                make(subject.path / "new", b"%08d" % number).rename(subject.path / "f")
            else:
                with opened(subject.path / "f", os.O_WRONLY) as descriptor:
                    os.pwrite(descriptor, b"%08d" % number, 0)
        seen = reader.result()
    assert seen == sorted(seen)


def _look_from_inside(removed: Path, inside: Path) -> None:
    os.chdir(inside)
    with opened(inside, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        removed.rmdir()
        with refused(errno.ENOENT):
            os.stat("x")
        with refused(errno.ENOENT):
            os.open("x", os.O_WRONLY | os.O_CREAT)
        with refused(errno.ENOENT):
            os.mkdir("y")
        with refused(errno.ENOENT):
            os.symlink("target", "z")
        with refused(errno.ENOENT):
            os.unlink("x")
        assert os.listdir(descriptor) == []
        assert os.listdir(".") == []
        assert os.stat(".").st_nlink == os.fstat(descriptor).st_nlink == 0


def test_a_directory_that_the_other_removed_is_empty_to_who_is_in_it(subject: Subject) -> None:
    (subject.path / "d").mkdir()
    within(STALE_S, lambda: exists(subject.other / "d"), "the other mount sees the new directory")

    with actor() as one:
        one(_look_from_inside, subject.path / "d", subject.other / "d")


def test_an_open_directory_that_the_other_removed_is_empty(subject: Subject) -> None:
    (subject.path / "d").mkdir()
    within(STALE_S, lambda: exists(subject.other / "d"), "the other mount sees the new directory")
    with opened(subject.other / "d", os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        (subject.path / "d").rmdir()
        assert os.listdir(descriptor) == []


def test_a_directory_in_the_place_of_one_that_was_removed_is_found(subject: Subject) -> None:
    for number in range(10):
        (subject.path / "d").mkdir()
        (subject.path / "d" / f"f{number}").touch()
        assert (subject.other / "d" / f"f{number}").read_bytes() == b""
        (subject.path / "d" / f"f{number}").unlink()
        (subject.path / "d").rmdir()
