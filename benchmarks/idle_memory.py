"""Resident memory of idle daemons, measured right after the cluster became ready.

VmRSS counts every page the process has in memory, PSS divides those it shares (the interpreter, libraries) by the
number of processes that share them. There is no limit to set beside it but a bare interpreter with the same event loop
and serialisation imported, which is given for scale.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.context import Context
from benchmarks.measure import Figure, Goal, Limit, Series

_BARE = "import asyncio, uvloop, msgspec; print(open('/proc/self/smaps_rollup').read())"


def run(context: Context) -> list[Figure]:
    bare = subprocess.run([sys.executable, "-c", _BARE], capture_output=True, text=True, check=True).stdout
    figures = []
    for kind in ("Rss", "Pss"):
        limit = Limit("Python with uvloop and msgspec", Series("MB", (_mb(bare, kind),)))
        for role, title in (("meta", "metadata server"), ("storage", "storage daemon")):
            values = tuple(
                _mb(Path(f"/proc/{pid}/smaps_rollup").read_text(), kind)
                for name, pid in context.processes.items()
                if name.startswith(role)
            )
            if values:
                figures.append(
                    Figure(
                        f"idle_memory.{role}.{kind.lower()}",
                        f"idle {title}, {kind.upper()}",
                        Series("MB", (max(values),)),
                        (limit,),
                        Goal("value", "<=", 120) if kind == "Rss" else None,
                        note="the largest of the daemons" if len(values) > 1 else "",
                    )
                )
    return figures


def resident_mb(pid: int) -> float:
    return _mb(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Rss")


def _mb(rollup: str, field: str) -> float:
    """A field of smaps_rollup, given there in KiB."""
    for line in rollup.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no {field} in smaps_rollup")
