"""Memory of a mount's daemon after many files were listed with their attributes.

A million files, in directories of 10,000, each listed from end to end as `ls -l` does, with everybody's attributes.
The daemon's resident memory is read after each directory, and the most of it is the figure. Beside it: the daemon
right after the mount, which is the least that it could be. The same of one directory of a million, of which names alone
are listed, as `ls -f` does.
"""

import os
import secrets
from pathlib import Path

import fs_client
from benchmarks.context import Context
from benchmarks.files import DIRECTORY
from benchmarks.idle_memory import resident_mb
from benchmarks.measure import Figure, Goal, Limit, Series
from benchmarks.mounted import mounted

FILES_PER_DIRECTORY = 10_000


def run(context: Context) -> list[Figure]:
    files = context.count(1_000_000)
    directories = -(-files // FILES_PER_DIRECTORY)
    with fs_client.connect(context.cluster) as fs, mounted(context, "memory") as mount:
        name = f"{DIRECTORY}/mount-memory-{secrets.token_hex(4)}"
        names = [f"sample-{number:06}.jpg" for number in range(FILES_PER_DIRECTORY)]
        for place in range(directories):
            fs.makedirs(f"{name}/many/d{place:04}")
            fs.create_many(f"{name}/many/d{place:04}", names)
        fs.makedirs(f"{name}/one")
        for place in range(directories):
            fs.create_many(f"{name}/one", [f"{place:04}-{sample}" for sample in names])
        top = mount.path / name.lstrip("/")
        before, most = _most(mount.daemon(), sorted((top / "many").iterdir()), attributes=True)
        mount.again()
        before_one, most_one = _most(mount.daemon(), [top / "one"], attributes=False)
        fs.rmtree(name)
    return [
        Figure(
            "mount_memory.listed",
            f"a mount, {directories * FILES_PER_DIRECTORY:,} files listed with attributes",
            Series("MB", (most,)),
            (Limit("right after the mount", Series("MB", (before,))),),
            Goal("value", "<=", 200),
        ),
        Figure(
            "mount_memory.one_directory",
            f"a mount, names of one directory of {directories * FILES_PER_DIRECTORY:,}",
            Series("MB", (most_one,)),
            (Limit("right after the mount", Series("MB", (before_one,))),),
            Goal("value", "<=", 200),
        ),
    ]


def _most(daemon: int, directories: list[Path], *, attributes: bool) -> tuple[float, float]:
    """Megabytes of the daemon before these are listed, and the most meanwhile."""
    before = most = resident_mb(daemon)
    for directory in directories:
        with os.scandir(directory) as entries:
            for count, entry in enumerate(entries, 1):
                if attributes:
                    entry.stat(follow_symlinks=False)
                if count % FILES_PER_DIRECTORY == 0:
                    most = max(most, resident_mb(daemon))
    return before, most
