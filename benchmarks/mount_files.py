"""Small files through a mount, one system call after another: create + write 4 KiB + close, unlink, rename.

Each process works in a directory of its own. The limit of the first is an empty FUSE server that drops what is written:
what the kernel and its four requests for each file cost; that of unlink is a file system on the local disk.
"""

import multiprocessing
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path

import fs_client
from benchmarks.context import Context
from benchmarks.files import DIRECTORY
from benchmarks.limits import empty_fuse
from benchmarks.limits.process import Worker
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from benchmarks.mounted import mounted

PROCESSES = 8
_DATA = os.urandom(4096)


def run(context: Context) -> list[Figure]:
    count = context.count(2000)
    with fs_client.connect(context.cluster) as fs, mounted(context, "files") as mount:
        name = f"{DIRECTORY}/mount-files-{secrets.token_hex(4)}"
        fs.makedirs(name)
        top = mount.path / name.lstrip("/")
        local = Path(tempfile.mkdtemp(dir=context.directory))
        with tempfile.TemporaryDirectory(dir=context.directory) as empty_directory:
            empty = Worker(empty_fuse.serve, empty_directory, 4096)
            try:
                one, one_empty, one_local, many, unlinks, unlinks_local, renames, renames_local = alternate(
                    context.repeat,
                    lambda: _create(_fresh(top), count),
                    lambda: _create(Path(empty_directory), count),
                    lambda: _create(_fresh(local), count),
                    lambda: _create_side_by_side(top, count // 2),
                    lambda: _unlink(_filled(top, count)),
                    lambda: _unlink(_filled(local, count)),
                    lambda: _rename(_filled(top, count)),
                    lambda: _rename(_filled(local, count)),
                )
            finally:
                empty.stop()
        fs.rmtree(name)
        shutil.rmtree(local)

    def limit(runs: tuple[float, ...], title: str = "local disk, page cache") -> Limit:
        return Limit(title, Series("1/s", runs))

    return [
        Figure(
            "mount_files.create.1",
            "create + write 4 KiB + close through a mount, 1 process",
            Series("1/s", one),
            (limit(one_empty, "empty FUSE server"), limit(one_local)),
            Goal("value", ">=", 1500),
        ),
        Figure(
            "mount_files.create.8",
            f"the same, {PROCESSES} processes",
            Series("1/s", many),
            goal=Goal("value", ">=", 4000),
        ),
        Figure(
            "mount_files.unlink",
            "unlink through a mount, 1 process",
            Series("1/s", unlinks),
            (limit(unlinks_local),),
            Goal("value", ">=", 3000),
        ),
        Figure(
            "mount_files.rename",
            "rename through a mount, 1 process",
            Series("1/s", renames),
            (limit(renames_local),),
            Goal("value", ">=", 3000),
        ),
    ]


def _fresh(top: Path) -> Path:
    directory = top / secrets.token_hex(4)
    directory.mkdir()
    return directory


def _filled(top: Path, count: int) -> Path:
    directory = _fresh(top)
    _create(directory, count)
    return directory


def _create(directory: Path, count: int) -> float:
    """Files a second."""
    paths = [f"{directory}/{secrets.token_hex(4)}-{i}" for i in range(count)]
    start = time.perf_counter()
    for path in paths:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(file, _DATA)
        os.close(file)
    return count / (time.perf_counter() - start)


def _create_side_by_side(top: Path, count: int) -> float:
    directories = [_fresh(top) for _ in range(PROCESSES)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES) as pool:
        pool.map(os.path.exists, directories)  # all of them are up
        start = time.perf_counter()
        pool.starmap(_create, [(directory, count) for directory in directories], chunksize=1)
        return PROCESSES * count / (time.perf_counter() - start)


def _unlink(directory: Path) -> float:
    paths = [entry.path for entry in os.scandir(directory)]
    start = time.perf_counter()
    for path in paths:
        os.unlink(path)
    return len(paths) / (time.perf_counter() - start)


def _rename(directory: Path) -> float:
    paths = [(entry.path, f"{entry.path}.renamed") for entry in os.scandir(directory)]
    start = time.perf_counter()
    for old, new in paths:
        os.rename(old, new)
    return len(paths) / (time.perf_counter() - start)
