"""The demo's data: the source files of this Python's standard library, and what their contents have to be.

The digests are made here from the local files, not from anything that was written to or read from the cluster.
"""

import asyncio
import hashlib
import os
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_FILES_IN_FLIGHT = 64
_SKIPPED = frozenset({"site-packages", "dist-packages", "__pycache__"})


@dataclass(frozen=True, slots=True)
class SourceFile:
    name: str
    """Relative to the tree, with `/`."""
    path: Path
    size: int
    digest: bytes


def digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def source_files(root: Path) -> list[SourceFile]:
    """The `*.py` files below `root`, without installed packages, in byte order of their names."""
    found: list[SourceFile] = []
    for directory, below, names in os.walk(root):
        below[:] = [name for name in below if name not in _SKIPPED]
        for name in names:
            path = Path(directory, name)
            if name.endswith(".py") and path.is_file():
                data = path.read_bytes()
                found.append(SourceFile(path.relative_to(root).as_posix(), path, len(data), digest(data)))
    return sorted(found, key=lambda file: os.fsencode(file.name))


def standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


async def copy_in(address: str, files: Iterable[SourceFile], root: str, copied: Callable[[SourceFile], None]) -> None:
    """Write every file below the directory `root` of the cluster, many at a time."""
    from fs_client import aio

    files = list(files)
    async with await aio.connect(address) as fs:
        for directory in sorted({os.path.dirname(file.name) for file in files}):
            await fs.makedirs(f"{root}/{directory}", exist_ok=True)
        waiting = iter(files)

        async def lane() -> None:
            for file in waiting:
                await fs.write_file(f"{root}/{file.name}", file.path.read_bytes())
                copied(file)

        async with asyncio.TaskGroup() as group:
            for _ in range(_FILES_IN_FLIGHT):
                group.create_task(lane())
