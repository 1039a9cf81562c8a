"""The engines the contract suite runs on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fs_common.limits import MIB
from fs_meta.kv.interface import KeyValueStore
from fs_meta.kv.lmdb_engine import Bounds, LmdbStore
from fs_meta.kv.memory_engine import MemoryStore


@dataclass(frozen=True)
class Engine:
    name: str
    durable: bool
    open: Callable[[Path], KeyValueStore]


BUSY = Bounds(changes=2, journal_bytes=MIB, interval_s=0.001)
"""There is always a checkpoint under way."""

ENGINES = [
    Engine("lmdb", True, lambda directory: LmdbStore.open(directory / "kv", map_size_bytes=64 * MIB)),
    Engine("lmdb-busy", True, lambda directory: LmdbStore.open(directory / "kv", map_size_bytes=MIB, bounds=BUSY)),
    Engine("memory", False, lambda directory: MemoryStore()),
]

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
each_durable_engine = pytest.mark.parametrize(
    "engine", [engine for engine in ENGINES if engine.durable], ids=lambda engine: engine.name
)
