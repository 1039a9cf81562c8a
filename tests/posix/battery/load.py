"""Load generators that verify what they do: stress-ng, dbench, fio."""

import re
import subprocess
from pathlib import Path

from tests.posix.battery.place import Failed, Place, need

NOT_OF_THE_DIRECTORY = {"bind-mount", "binderfs", "eventfd", "procfs", "ioprio", "fanotify", "dnotify", "touch-sync"}
"""stress-ng counts them as `filesystem`, but they work elsewhere or need a kernel option."""
_NOTHING_DONE = (3, 4)
"""stress-ng: no resources for it, or not implemented here."""
ENGINES = {
    "psync": ("--ioengine=psync",),
    "pvsync2": ("--ioengine=pvsync2",),
    "libaio": ("--ioengine=libaio", "--iodepth=16", "--direct=1"),
    "mmap": ("--ioengine=mmap",),
}
JOBS = {
    "random": ("--rw=randrw", "--bsrange=4k-64k"),
    "small": ("--rw=randwrite", "--bs=512"),
    "sequential": ("--rw=write", "--bs=1m"),
}


def stress_ng(place: Place) -> None:
    """Each stressor of the class for some seconds, with --verify; all failures are reported together."""
    need("stress-ng", "stress-ng")
    listed = subprocess.run(["stress-ng", "--class", "filesystem?"], capture_output=True, text=True)
    names = [name for name in listed.stdout.split(":", 1)[1].split() if name not in NOT_OF_THE_DIRECTORY]
    seconds = max(2, place.seconds // 10)
    failures, nothing = [], []
    for name in names:
        try:
            result = place.run(
                *("stress-ng", f"--{name}", "2", "--verify", "--timeout", str(seconds), "--temp-path", place.path),
                timeout_s=seconds + 120,
                ok=(0, *_NOTHING_DONE),
            )
        except Failed as failure:
            lines = [line for line in str(failure).splitlines() if "fail" in line or "did not end" in line]
            failures.append(f"{name}: {' / '.join(lines[:4] or str(failure).splitlines()[-3:])[:600]}")
            continue
        if result.returncode in _NOTHING_DONE:
            nothing.append(name)
    if failures:
        raise Failed("\n".join(failures))
    if len(nothing) > len(names) // 2:
        raise Failed(f"most stressors did nothing: {' '.join(nothing)}")


def dbench(place: Place) -> None:
    """The file operations of a file server's clients, four at once; it stops at the first error."""
    need("dbench", "dbench")
    script = next((path for path in map(Path, ("/usr/share/dbench/client.txt",)) if path.exists()), None)
    extra = () if script is None else ("-c", script)
    output = place.run(
        "dbench", "-t", str(place.seconds), "-D", place.path, *extra, "4", timeout_s=place.seconds * 3 + 300
    ).stdout
    if not re.search(r"Throughput\s+[\d.]+ MB/sec", output) or re.search(r"failed for|child failed|ERROR", output):
        raise Failed(output[-1500:])


def fio(place: Place) -> None:
    """Every block carries a CRC32C and its place; written in several ways, verified while and after writing."""
    need("fio", "fio")
    for engine, flags in ENGINES.items():
        for job, shape in JOBS.items():
            if engine == "libaio" and job == "small":
                continue  # direct I/O smaller than a page need not be possible
            name = f"{engine}-{job}"
            files = ("--name", name, "--directory", place.path, "--size=8m", "--numjobs=2", "--thread")
            checks = ("--verify=crc32c", "--verify_fatal=1", "--verify_backlog=256", "--do_verify=1", "--end_fsync=1")
            common = (*files, *checks, *flags, *shape)
            place.run("fio", *common, timeout_s=300)
            place.run("fio", *common, "--verify_only", timeout_s=300)
