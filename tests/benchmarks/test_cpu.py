"""Processor time is charged to whoever spent it."""

import os
import subprocess
import sys

from benchmarks.cpu import CpuMeter


def burn() -> float:
    start = os.times().user
    while os.times().user - start < 0.05:
        pass
    return 1.0


def test_the_clients_time_is_divided_by_operations() -> None:
    meter = CpuMeter({})
    assert meter.metered(burn, 1000)() == 1.0
    note = meter.note("read")
    assert note.startswith("processor time for each read: client ")
    assert 40 < float(note.split()[-2]) < 5000, "50 ms over 1000 operations is 50 us"
    assert "daemons" not in note


def test_the_daemons_time_is_theirs() -> None:
    code = "import sys\nfor line in sys.stdin:\n    sum(range(3_000_000)); print(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdin is not None
        assert daemon.stdout is not None

        def ask() -> float:
            daemon.stdin.write("\n")  # type: ignore[union-attr]
            daemon.stdin.flush()  # type: ignore[union-attr]
            daemon.stdout.readline()  # type: ignore[union-attr]
            return 1.0

        meter = CpuMeter({"daemon": daemon.pid})
        meter.metered(ask, 1)()
        daemon.stdin.close()
    words = meter.note("call").replace(",", "").split()
    client_us, daemons_us = float(words[words.index("client") + 1]), float(words[-2])
    assert daemons_us > client_us
