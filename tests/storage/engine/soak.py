"""Crash worlds without end: `python -m tests.storage.engine.soak --seeds N [--first S]`. Prints seeds that fail."""

import argparse
import logging
import time
import traceback

from tests.storage.engine.crash_world import run_seed

SMALL_DISK_BYTES = 16 << 20
"""Hardly more than the log and a unit for each size class: full again and again."""


def run_one(seed: int) -> None:
    """What a seed means: every third one on a small disk."""
    if seed % 3 == 2:
        run_seed(seed, updates=30, total_bytes=SMALL_DISK_BYTES)
    else:
        run_seed(seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=int(time.time()) * 1000)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failed = []
    started = time.monotonic()
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        try:
            run_one(seed)
        except Exception:
            failed.append(seed)
            print(f"seed {seed} fails", flush=True)
            if len(failed) == 1:
                traceback.print_exc()
    print(f"{arguments.seeds} seeds from {arguments.first} in {time.monotonic() - started:.0f} s; failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
