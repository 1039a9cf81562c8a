"""`python -m tests.sim --seeds N [--first S] [--jobs J]`, or `--seed N [--trace]` to replay one."""

import argparse
import gc
import logging
import sys
import time
import traceback
from multiprocessing import Pool

from tests.sim.world import World

SHARE = 50
"""Seeds that a process does in a row."""


def run_seeds(seeds: range) -> tuple[int, dict[str, int], list[tuple[int, str]]]:
    totals: dict[str, int] = {}
    failures = []
    gc.disable()  # a run is short, and its garbage is dropped as a whole
    for seed in seeds:
        world = World(seed)
        try:
            world.run()
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            lines = str(error).splitlines() or [""]
            failures.append(
                (seed, f"{type(error).__name__}: {lines[0][:300]} ({last.filename.rsplit('/', 1)[-1]}:{last.lineno})")
            )
        for name, value in world.checks.statistics.items():
            totals[name] = totals.get(name, 0) + value
    gc.collect()
    return len(seeds), totals, failures


def replay(seed: int, *, trace: bool) -> int:
    world = World(seed, write=print if trace else None)
    print(f"seed {seed}: {world.plan}")
    try:
        world.run()
    except Exception:
        traceback.print_exc()
        return 1
    print(f"no violation; {world.checks.statistics}")
    return 0


def main() -> int:
    logging.disable()
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--stop-after", type=int, default=20, help="failures")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--trace", action="store_true", help="say what happens (with --seed)")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return replay(arguments.seed, trace=arguments.trace)
    last = arguments.first + arguments.seeds
    shares = [range(first, min(first + SHARE, last)) for first in range(arguments.first, last, SHARE)]
    totals: dict[str, int] = {}
    failures: list[tuple[int, str]] = []
    done = 0
    began = told = time.monotonic()
    with Pool(arguments.jobs) as pool:
        for count, statistics, failed in pool.imap_unordered(run_seeds, shares):
            done += count
            for name, value in statistics.items():
                totals[name] = totals.get(name, 0) + value
            for seed, what in failed:
                failures.append((seed, what))
                print(f"FAILED {what}\n       python -m tests.sim --seed {seed} --trace", flush=True)
            now = time.monotonic()
            if now - told > 5 or done == arguments.seeds:
                told = now
                left_s = (now - began) / done * (arguments.seeds - done)
                print(f"{done} of {arguments.seeds} seeds, {len(failures)} failed, {left_s:.0f} s left", flush=True)
            if len(failures) >= arguments.stop_after:
                pool.terminate()
                break
    print(f"{done} seeds in {time.monotonic() - began:.0f} s, {len(failures)} failed: {dict(sorted(totals.items()))}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
