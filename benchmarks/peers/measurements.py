"""What is measured on every system, in the same calls: the only module that knows sizes and steps.

A measurement works below the system's directory, in files that `fill` made or that it makes and removes itself. It
gives one value for each of its rows.
"""

import os
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.context import MIB
from benchmarks.file_calls import (
    PIECE,
    PROCESSES,
    create,
    create_side_by_side,
    fresh,
    read_through,
    rename,
    seconds,
    stat_samples,
    touch_samples,
    unlink,
    write_and_sync,
)
from benchmarks.files import pattern
from benchmarks.fuse_requests import reads_per_s
from benchmarks.peers.system import System

READERS = 16
_LARGE = shutil.ignore_patterns("site-packages", "__pycache__", "config-*")


@dataclass(frozen=True, slots=True)
class Sizes:
    random_bytes: int
    """Of the file that is read at random: fits every cache."""
    read_s: float
    stream_bytes: int
    files: int
    """Made, renamed and removed by one process; eight together make as many."""
    stats: int
    listed: int
    tree: str
    """Part of the standard library that find and du walk; empty: all of it."""


FULL = Sizes(64 * MIB, 1.0, 256 * MIB, 800, 5_000, 20_000, "")
QUICK = Sizes(8 * MIB, 1.0, 16 * MIB, 64, 100, 300, "asyncio")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    unit: str
    less_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    rows: tuple[Row, ...]
    run: Callable[[System, Sizes], tuple[float, ...]]
    """One value for each row."""


def fill(system: System, sizes: Sizes) -> None:
    """The files that are only looked at."""
    write_and_sync(system.path / "random", pattern(sizes.random_bytes))
    write_and_sync(system.path / "stream", pattern(sizes.stream_bytes))
    touch_samples(system.path / "samples", sizes.listed)
    tree = Path(sysconfig.get_paths()["stdlib"], sizes.tree)
    shutil.copytree(tree, system.path / "stdlib", symlinks=True, ignore=_LARGE)


def _random_reads(system: System, sizes: Sizes) -> tuple[float, ...]:
    path = system.path / "random"
    read_through(path, sizes.random_bytes)  # servers have it in memory, and each client what it keeps by itself
    return tuple(reads_per_s(str(path), sizes.random_bytes, readers, sizes.read_s)[0] for readers in (1, READERS))


def _stream_read(system: System, sizes: Sizes) -> tuple[float, ...]:
    system.cold()
    return (read_through(system.path / "stream", sizes.stream_bytes),)


def _stream_write(system: System, sizes: Sizes) -> tuple[float, ...]:
    path = system.path / "written"
    data = pattern(sizes.stream_bytes)
    os.sync()
    rate = write_and_sync(path, data)
    path.unlink()
    return (rate,)


def _small_files(system: System, sizes: Sizes) -> tuple[float, ...]:
    directory = fresh(system.path)
    created = create(directory, sizes.files)
    renamed = rename(directory)
    unlinked = unlink(directory)
    directory.rmdir()
    return created, renamed, unlinked


def _small_files_side_by_side(system: System, sizes: Sizes) -> tuple[float, ...]:
    directory = fresh(system.path)
    rate = create_side_by_side(directory, sizes.files // PROCESSES)
    shutil.rmtree(directory)
    return (rate,)


def _stats(system: System, sizes: Sizes) -> tuple[float, ...]:
    system.cold()
    return (stat_samples(system.path / "samples", sizes.stats),)


def _cold_command(*command: str) -> Callable[[System, Sizes], tuple[float, ...]]:
    """A command over a directory of the system, whose name within it is the `{}` of an argument."""

    def run(system: System, sizes: Sizes) -> tuple[float, ...]:
        system.cold()
        return (seconds([argument.format(system.path) for argument in command]),)

    return run


MEASUREMENTS = (
    Measurement(
        (
            Row("read.1", "4-KiB random direct reads, 1 reader", "1/s"),
            Row("read.16", f"4-KiB random direct reads, {READERS} readers", "1/s"),
        ),
        _random_reads,
    ),
    Measurement((Row("stream.read", "sequential read, cold", "GB/s"),), _stream_read),
    Measurement((Row("stream.write", f"sequential write in {PIECE // MIB}-MiB pieces, fsync", "GB/s"),), _stream_write),
    Measurement(
        (
            Row("files.create.1", "create + write 4 KiB + close, 1 process", "1/s"),
            Row("files.rename", "rename, 1 process", "1/s"),
            Row("files.unlink", "unlink, 1 process", "1/s"),
        ),
        _small_files,
    ),
    Measurement(
        (Row("files.create.8", f"create + write 4 KiB + close, {PROCESSES} processes", "1/s"),),
        _small_files_side_by_side,
    ),
    Measurement((Row("names.stat", "stat of single files, cold", "1/s"),), _stats),
    Measurement(
        (Row("names.list", "ls -l of a large directory, cold", "s", less_is_better=True),),
        _cold_command("ls", "-l", "{}/samples"),
    ),
    Measurement(
        (Row("names.find", "find -size over the standard library, cold", "s", less_is_better=True),),
        _cold_command("find", "{}/stdlib", "-size", "+1k"),
    ),
    Measurement(
        (Row("names.du", "du -s over the standard library, cold", "s", less_is_better=True),),
        _cold_command("du", "-s", "{}/stdlib"),
    ),
)
