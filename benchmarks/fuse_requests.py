"""4-KiB random direct reads a second through the kernel and an empty FUSE server: `python -m benchmarks.fuse_requests`.

The limit of every mount served by one Python process on this machine: requests are parsed, counted and answered from
one buffer, and nothing else is done. Readers are fio's where it is installed, else Python processes; the output says
which, since the readers share the processors with the server.
"""

import argparse
import json
import mmap
import multiprocessing
import os
import random
import shutil
import subprocess
import tempfile
import time
from multiprocessing.synchronize import Barrier

from benchmarks.limits import empty_fuse
from benchmarks.limits.process import Worker
from benchmarks.measure import Series

LENGTH = 4096
MIB = 1 << 20


def reads_per_s(path: str, size: int, readers: int, seconds: float) -> tuple[float, str]:
    """(reads a second of all readers together, who they are). Direct, random, each reader one at a time."""
    if fio := shutil.which("fio"):
        return _fio(fio, path, size, readers, seconds), "fio"
    return _processes(path, size, readers, seconds), "Python processes"


def _fio(fio: str, path: str, size: int, readers: int, seconds: float) -> float:
    command = [
        fio, "--name=reads", f"--filename={path}", "--rw=randread", f"--bs={LENGTH}", "--direct=1", "--ioengine=psync",
        f"--size={size}", f"--numjobs={readers}", "--thread", "--group_reporting", "--time_based",
        f"--runtime={max(seconds, 1):.0f}s", "--norandommap", "--randrepeat=0", "--output-format=json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    return float(json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]["read"]["iops"])


def _processes(path: str, size: int, readers: int, seconds: float) -> float:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(readers)
    with context.Pool(readers, _set_barrier, (barrier,)) as pool:
        return sum(pool.starmap(_read, [(path, size, seconds, number) for number in range(readers)]))


_barrier: Barrier


def _set_barrier(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _read(path: str, size: int, seconds: float, seed: int) -> float:
    """One reader process: reads a second."""
    chance = random.Random(seed)
    offsets = [chance.randrange(size // LENGTH) * LENGTH for _ in range(1024)]
    buffer = [mmap.mmap(-1, LENGTH)]
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    preadv = os.preadv
    _barrier.wait()
    count = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for offset in offsets:
            preadv(file, buffer, offset)
        count += len(offsets)
    os.close(file)
    return count / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--path", help="a file to read instead of the empty server's")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emberfs-empty-") as directory:
        worker = None
        path = options.path
        if path is None:
            worker = Worker(empty_fuse.serve, directory, options.mib * MIB)
            path = os.path.join(directory, os.fsdecode(empty_fuse.NAME))
        try:
            size = os.stat(path).st_size
            for readers in (1, 16):
                runs = []
                for _ in range(options.repeat):
                    value, who = reads_per_s(path, size, readers, options.seconds)
                    runs.append(value)
                series = Series("1/s", tuple(runs))
                spread = f"{min(runs):,.0f} to {max(runs):,.0f}"
                print(f"{readers:3} readers ({who}): {series.median:9,.0f} reads/s  ({spread})")
        finally:
            if worker is not None:
                worker.stop()


if __name__ == "__main__":
    main()
