"""Every key that takes effect at once does, in a metadata server that runs."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fs_common.settings import MetaSettings
from fs_meta import server
from fs_meta.config import MetaConfig
from fs_meta.format import prepare_store
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.manager.service import RunningManager, start_manager
from tests.support import run

CHANGES: dict[str, Any] = {
    "log_level": "error",
    "slow_operation_ms": 7,
    "targets_per_node": 9,
    "moves_per_node": 11,
    "moves_at_once": 13,
    "replace_lost_after_ms": 15_000,
    "gc_interval_ms": 17,
    "gc_retry_ms": 19,
    "storage_timeout_ms": 21,
}


@pytest.fixture(autouse=True)
def log_level_kept() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


def works_by(running: server.MetaServer, manager: RunningManager) -> dict[str, Any]:
    """What each key has become in the parts of the server."""
    watch = manager.manager.move_watch
    return {
        "log_level": logging.getLevelName(logging.getLogger().level).lower(),
        "slow_operation_ms": running.slow_operations.threshold_ns // 1_000_000,
        "targets_per_node": manager.manager.targets_per_node,
        "moves_per_node": watch.limits.per_node,
        "moves_at_once": watch.limits.at_once,
        "replace_lost_after_ms": watch.lost_after_ms,
        "gc_interval_ms": round(running._collector.interval_s * 1000),
        "gc_retry_ms": running._collector.retry_ns // 1_000_000,
        "storage_timeout_ms": round(running._chunks.timeout_s * 1000),
    }


def test_all_of_them_are_here() -> None:
    assert CHANGES.keys() == MetaSettings.LIVE


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_key_takes_effect_and_no_other_changes(tmp_path: Path, key: str) -> None:
    async def scenario() -> None:
        config = MetaConfig(cluster="test", directory=str(tmp_path), port=0, grpc_port=0)
        kv = MemoryStore()
        await prepare_store(kv, "test", config.root_layout, 0, 0, 1)
        manager = await start_manager(kv, config)
        running = await server.start(config, kv, manager)
        try:
            running.apply(config)
            before = works_by(running, manager)
            assert before[key] != CHANGES[key]
            running.apply(msgspec.structs.replace(config, **{key: CHANGES[key]}))
            assert works_by(running, manager) == before | {key: CHANGES[key]}
        finally:
            await running.close()

    run(scenario())
