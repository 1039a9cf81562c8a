"""`-o low_latency`: when the kernel is asked to keep processors awake."""

import asyncio
import logging
from pathlib import Path

import pytest

from fs_client.fuse.wakeful import IDLE_S, Wakeful
from tests.storage.engine.virtual_loop import run_virtual


def test_processors_are_kept_awake_from_the_first_request_until_some_time_after_the_last(tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.write_bytes(b"....")

    async def body() -> None:
        wakeful = Wakeful(asyncio.get_running_loop(), str(device))
        assert not wakeful.holding and device.read_bytes() == b"...."
        wakeful.used()
        assert wakeful.holding and device.read_bytes() == bytes(4)
        for _ in range(10):
            await asyncio.sleep(IDLE_S * 0.9)
            assert wakeful.holding
            wakeful.used()
        await asyncio.sleep(IDLE_S * 2.1)
        assert not wakeful.holding
        wakeful.used()
        assert wakeful.holding
        wakeful.close()
        assert not wakeful.holding
        wakeful.used()
        assert not wakeful.holding

    run_virtual(body())


def test_who_may_not_ask_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        wakeful = Wakeful(asyncio.get_running_loop(), str(tmp_path / "none"))
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                wakeful.used()
                await asyncio.sleep(IDLE_S)
        assert not wakeful.holding
        wakeful.close()

    run_virtual(body())
    assert len(caplog.records) == 1 and "low_latency has no effect" in caplog.text
