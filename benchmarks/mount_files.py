"""Small files through a mount, one system call after another: create + write 4 KiB + close, unlink, rename.

Each process works in a directory of its own. The limit of the first is an empty FUSE server that drops what is written:
what the kernel and its four requests for each file cost; that of unlink is a file system on the local disk. What was
removed is freed before the next measurement begins.
"""

import secrets
import shutil
import tempfile
from pathlib import Path

import fs_client
from benchmarks.context import Context
from benchmarks.file_calls import PROCESSES, create, create_side_by_side, filled, fresh, rename, unlink
from benchmarks.files import DIRECTORY
from benchmarks.limits import empty_fuse
from benchmarks.limits.process import Worker
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from benchmarks.mounted import mounted
from benchmarks.space import Space


def run(context: Context) -> list[Figure]:
    count = context.count(2000)

    def unlinked(top: Path) -> float:
        directory = fresh(top)
        space = Space(context.cluster)
        create(directory, count)
        value = unlink(directory)
        space.wait_until_free()
        return value

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
                    lambda: create(fresh(top), count),
                    lambda: create(Path(empty_directory), count),
                    lambda: create(fresh(local), count),
                    lambda: create_side_by_side(top, count // 2),
                    lambda: unlinked(top),
                    lambda: unlink(filled(local, count)),
                    lambda: rename(filled(top, count)),
                    lambda: rename(filled(local, count)),
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
