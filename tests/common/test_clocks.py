"""The clock of leases, and who counts by it."""

import time

import pytest

from fs_common.clocks import boottime_s


def test_leases_run_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep_s = 3600.0
    seconds = {time.CLOCK_BOOTTIME: 100.0 + asleep_s, time.CLOCK_MONOTONIC: 100.0}
    monkeypatch.setattr(time, "clock_gettime", seconds.__getitem__)
    assert boottime_s() == 3700.0


def test_without_such_a_clock_they_stand_still_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    assert boottime_s() == 5.0
