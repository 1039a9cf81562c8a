"""`python -m tests.storm --minutes 10 --seed 1`: see the package."""

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.storm.cluster import Broken
from tests.storm.isolation import Unavailable, enter
from tests.storm.storm import FAST_SETTINGS, Plan, blow


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description="Hurt a cluster while it is used.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=0, help="go on until so many daemons were killed")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--storage", type=int, default=4)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--durability", choices=["disk", "memory"], default="disk")
    parser.add_argument("--plain", action="store_true", help="on loopback: no network and no power is cut")
    parser.add_argument("--no-mount", action="store_true")
    parser.add_argument("--only", default="", help="kinds of faults, separated by commas")
    parser.add_argument("--no-replace", action="store_true", help="no directory is removed, no target replaced")
    parser.add_argument("--gap", type=float, default=0.7, help="seconds between faults, on average")
    parser.add_argument("--overlap", type=int, default=3, help="faults at a time")
    parser.add_argument("--calm-after", type=int, default=12, help="faults between two looks at everything")
    parser.add_argument("--patience", type=float, default=60.0, help="bound, in seconds, for what comes by itself")
    parser.add_argument("--slow", action="store_true", help="leases and failure times of a real cluster")
    parser.add_argument("--planted", default="", help="a defect of tests/storm/planted.py")
    parser.add_argument("--dir", type=Path, default=None, help="an empty directory; kept")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 31) if arguments.seed is None else arguments.seed
    isolated = not arguments.plain
    if isolated:
        try:
            enter([*(sys.argv[1:]), *([] if arguments.seed is not None else ["--seed", str(seed)])])
        except Unavailable as error:
            print(f"no network and no power is cut: {error}", file=sys.stderr)
            isolated = False
    path = arguments.dir or Path(tempfile.mkdtemp(prefix="storm-"))
    path.mkdir(exist_ok=True)
    plan = Plan(
        seed=seed,
        minutes=arguments.minutes,
        kills=arguments.kills,
        storage=arguments.storage,
        replicas=arguments.replicas,
        durability=arguments.durability,
        isolated=isolated,
        mount=not arguments.no_mount and os.access("/dev/fuse", os.W_OK),
        only=tuple(word for word in arguments.only.split(",") if word),
        replace=not arguments.no_replace,
        gap_s=arguments.gap,
        overlap=arguments.overlap,
        calm_after=arguments.calm_after,
        patience_s=arguments.patience,
        planted=arguments.planted,
        settings={} if arguments.slow else dict(FAST_SETTINGS),
    )
    if arguments.slow:
        plan.settings.update(heartbeat_interval_ms=1000, lease_ms=8000, failure_ms=10_000, gc_delay_ms=0)
    print(f"seed {seed}, in {path}", flush=True)
    try:
        summary = asyncio.run(blow(plan, path))
    except Broken as error:
        print(f"seed {seed}: {error}\nkept: {path} (storm.log, logs/)", file=sys.stderr)
        return 1
    print(f"seed {seed}: nothing lost, nothing wrong; {summary}")
    if arguments.dir is None:
        shutil.rmtree(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
