"""The engines the contract suite runs on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fs_meta.kv.interface import KeyValueStore
from fs_meta.kv.open import open_store


@dataclass(frozen=True)
class Engine:
    name: str
    durable: bool
    url: Callable[[Path], str]

    def open(self, directory: Path) -> KeyValueStore:
        return open_store(self.url(directory))


ENGINES = [
    Engine("lmdb", True, lambda directory: f"lmdb://{directory}/kv"),
    Engine("memory", False, lambda directory: "memory://"),
]

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
each_durable_engine = pytest.mark.parametrize(
    "engine", [engine for engine in ENGINES if engine.durable], ids=lambda engine: engine.name
)
