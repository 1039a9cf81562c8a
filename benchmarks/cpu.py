"""Processor time that the client and the daemons spend on a measurement.

Wall-clock figures of a machine that others use move by tens of percent; processor time for each operation hardly does,
and it says who has to become faster.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class CpuMeter:
    """Adds up, over all runs of one measurement."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        """`processes`: daemon name to pid; empty where the daemons are not ours to look at."""
        self._processes = processes
        self._client_s = 0.0
        self._daemons_s = 0.0
        self._operations = 0

    def metered(self, measure: Callable[[], float], operations: int) -> Callable[[], float]:
        """`measure`, which does so many operations, with its processor time added to this meter's."""

        def run() -> float:
            client_s, daemons_s = time.process_time(), self._daemons()
            value = measure()
            self._client_s += time.process_time() - client_s
            self._daemons_s += self._daemons() - daemons_s
            self._operations += operations
            return value

        return run

    def note(self, operation: str) -> str:
        """One line: microseconds of processor time for each operation."""
        each = 1e6 / max(self._operations, 1)
        text = f"processor time for each {operation}: client {self._client_s * each:,.3g} us"
        return f"{text}, daemons together {self._daemons_s * each:,.3g} us" if self._processes else text

    def _daemons(self) -> float:
        return sum(_cpu_s(pid) for pid in self._processes.values())


def _cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S
