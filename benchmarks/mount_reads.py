"""4-KiB random reads through a mount, past the kernel's page cache (direct I/O), one reader and 16.

`cached`: the mount's daemon has the bytes in its own cache and answers without asking anybody. `stored`: it has not
(`cache=0`), and every read goes to a storage daemon and is verified. The limit of both is an empty FUSE server on the
same channel (`limits/empty_fuse`): what the kernel, the hand-overs and the protocol cost.
"""

import mmap
import os
import secrets
import tempfile
from pathlib import Path

import fs_client
from benchmarks.context import MIB, Context
from benchmarks.files import DIRECTORY, pattern
from benchmarks.fuse_requests import reads_per_s
from benchmarks.limits import empty_fuse
from benchmarks.limits.process import Worker
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from benchmarks.mounted import mounted
from benchmarks.space import Space
from fs_common.layout import Durability

READERS = 16
_SECONDS = 2.0


def run(context: Context) -> list[Figure]:
    size = 16 * MIB if context.quick else 128 * MIB
    with fs_client.connect(context.cluster) as fs:
        directory = f"{DIRECTORY}/mount-reads-{secrets.token_hex(4)}"
        space = Space(context.cluster)
        fs.makedirs(directory)
        fs.set_layout(directory, durability=Durability.MEMORY)
        fs.write_file(f"{directory}/file", pattern(size))
        try:
            return _measure(context, f"{directory}/file".lstrip("/"), size)
        finally:
            fs.rmtree(directory)
            space.wait_until_free()


def _measure(context: Context, name: str, size: int) -> list[Figure]:
    seconds = 1.0 if context.quick else _SECONDS
    with (
        mounted(context, "cached", f"cache={2 * size}") as cached,
        mounted(context, "stored", "cache=0") as stored,
        tempfile.TemporaryDirectory(dir=context.directory) as empty_directory,
    ):
        empty = Worker(empty_fuse.serve, empty_directory, size)
        try:
            empty_file = str(Path(empty_directory) / empty_fuse.NAME.decode())
            who = reads_per_s(str(cached.path / name), size, 1, 1.0)[1]
            _read_all(cached.path / name)
            rates = alternate(
                context.repeat,
                *(
                    lambda path=path, readers=readers: reads_per_s(path, size, readers, seconds)[0]
                    for readers in (1, READERS)
                    for path in (str(cached.path / name), str(stored.path / name), empty_file)
                ),
            )
        finally:
            empty.stop()
    one_cached, one_stored, one_empty, many_cached, many_stored, many_empty = (Series("1/s", runs) for runs in rates)
    return [
        _figure("cached.1", "4-KiB direct reads from the mount's memory, 1 reader", one_cached, one_empty, 0.7, who),
        _figure("cached.16", f"the same, {READERS} readers", many_cached, many_empty, 0.7, who),
        _figure("stored.1", "4-KiB direct reads from storage daemons, 1 reader", one_stored, one_empty, 0.35, who),
        Figure(
            "mount_reads.stored.16",
            f"the same, {READERS} readers",
            many_stored,
            (Limit("empty FUSE server", many_empty),),
            Goal("value", ">=", 20_000),
            f"readers are {who}",
        ),
    ]


def _figure(name: str, title: str, ours: Series, empty: Series, least: float, who: str) -> Figure:
    limit = Limit("empty FUSE server", empty)
    return Figure(f"mount_reads.{name}", title, ours, (limit,), Goal("ratio", ">=", least), f"readers are {who}")


def _read_all(path: Path) -> None:
    """Once from start to end, direct: afterwards the daemon has all of it."""
    buffer = mmap.mmap(-1, MIB)
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        offset = 0
        while count := os.preadv(file, [buffer], offset):
            offset += count
    finally:
        os.close(file)
