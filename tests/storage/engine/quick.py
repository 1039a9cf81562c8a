"""The engine on real files, without waiting for the device: for tests that do not crash the machine."""

import time
from collections.abc import Callable
from pathlib import Path

from fs_storage.engine.disk import FileSystemSpace, RealDisk
from fs_storage.engine.index import LmdbIndex
from fs_storage.engine.store import EngineStore, open_store

TARGET = 101


class QuickDisk(RealDisk):
    """Syncs nothing, and looks small, so that little is allocated in advance."""

    def __init__(self) -> None:
        super().__init__()
        self.sync = lambda file: None

    def sync_directory(self, path: Path) -> None:
        pass

    def space(self, path: Path) -> FileSystemSpace:
        return FileSystemSpace(256 << 20, super().space(path).free_bytes)


class QuickIndex(LmdbIndex):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 1 << 30, durable=False)


async def open_quick_store(
    directory: Path,
    *,
    capacity_bytes: int = 0,
    clock: Callable[[], float] = time.monotonic,
    disk: QuickDisk | None = None,
    **rest: object,
) -> EngineStore:
    return await open_store(
        directory,
        target=TARGET,
        capacity_bytes=capacity_bytes,
        disk=disk or QuickDisk(),
        open_index=QuickIndex,
        clock=clock,
        **rest,  # type: ignore[arg-type]
    )
