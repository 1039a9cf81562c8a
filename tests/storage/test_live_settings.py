"""Every key that takes effect at once does, in a daemon that runs."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fs_common.settings import StorageSettings
from fs_storage.config import StorageConfig
from fs_storage.engine.interface import ChunkStore
from fs_storage.service import Daemon
from tests.support import run

CHANGES: dict[str, Any] = {
    "log_level": "error",
    "slow_operation_ms": 7,
    "low_space_bytes": 1 << 20,
    "payload_memory_bytes": 512 << 20,
    "updates_in_flight": 9,
    "resync_bytes_per_s": 11,
    "scrub_bytes_per_s": 13,
    "scrub_interval_h": 15,
}


@pytest.fixture(autouse=True)
def log_level_kept() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


def works_by(daemon: Daemon) -> dict[str, Any]:
    """What each key has become in the parts of the daemon."""
    return {
        "log_level": logging.getLevelName(logging.getLogger().level).lower(),
        "slow_operation_ms": daemon.service.slow_operations.threshold_ns // 1_000_000,
        "low_space_bytes": daemon._disk.low_space_bytes,
        "payload_memory_bytes": daemon._memory.limit_bytes,
        "updates_in_flight": daemon.updates.in_flight_max,
        "resync_bytes_per_s": daemon._throttle.bytes_per_s,
        "scrub_bytes_per_s": daemon._scrub.bytes_per_s,
        "scrub_interval_h": daemon._scrub.interval_s // 3600,
    }


def test_all_of_them_are_here() -> None:
    assert CHANGES.keys() == StorageSettings.LIVE


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_key_takes_effect_and_no_other_changes(tmp_path: Path, key: str) -> None:
    async def scenario() -> None:
        async def open_store(target: int, make: bool) -> ChunkStore:
            raise AssertionError("no manager, no target")

        config = StorageConfig(cluster="test", node=1, directory=str(tmp_path), manager="127.0.0.1:1", port=0)
        daemon = Daemon(config, open_store)
        try:
            daemon.apply(config)
            before = works_by(daemon)
            assert before[key] != CHANGES[key]
            daemon.apply(msgspec.structs.replace(config, **{key: CHANGES[key]}))
            assert works_by(daemon) == before | {key: CHANGES[key]}
        finally:
            await daemon.close()

    run(scenario())
