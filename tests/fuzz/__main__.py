"""`python -m tests.fuzz [--minutes N] [--seed N] [NAME...]`: requests, messages and bytes, for minutes."""

import argparse
import asyncio
import time

import uvloop

from tests.fuzz.control import fuzz_control_plane
from tests.fuzz.requests import fuzz_metadata, fuzz_storage
from tests.fuzz.streams import fuzz_frames, fuzz_handshakes

RUNS = {
    "metadata": (fuzz_metadata, 2000),
    "storage": (fuzz_storage, 800),
    "control": (fuzz_control_plane, 500),
    "frames": (fuzz_frames, 200),
    "handshakes": (fuzz_handshakes, 200),
}
"""Each with how much one seed does."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RUNS)}; all by default")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="this one alone, of each name")
    options = parser.parse_args()
    names = options.names or list(RUNS)
    if unknown := set(names) - set(RUNS):
        parser.error(f"unknown: {', '.join(unknown)}")
    ends_s = time.monotonic() + options.minutes * 60
    seed = int(time.time()) if options.seed is None else options.seed
    while True:
        for name in names:
            fuzz, count = RUNS[name]
            print(f"{name} --seed {seed}", flush=True)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(fuzz(seed, count))
        seed += 1
        if options.seed is not None or time.monotonic() > ends_s:
            return


if __name__ == "__main__":
    main()
