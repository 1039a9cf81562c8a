"""`python -m tests.storage.craq.soak --seeds N [--first S] [--losses | --cuts]`: a violation prints its seed."""

import argparse
import sys
import time
from random import Random

from tests.storage.craq.power import PowerSimulation
from tests.storage.craq.simulator import Simulation, plan_of_losses


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--losses", action="store_true", help="replicas forget what they have")
    parser.add_argument("--cuts", action="store_true", help="machines lose their power, and replicas mend each other")
    arguments = parser.parse_args()
    totals: dict[str, int] = {}
    began = time.perf_counter()
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        if arguments.cuts:
            simulation: Simulation = PowerSimulation(seed)
        else:
            simulation = Simulation(seed, plan_of_losses(Random(seed)) if arguments.losses else None)
        try:
            simulation.run()
        except Exception:
            print(f"seed {seed} {simulation.plan}", file=sys.stderr)
            raise
        for name, value in simulation.statistics.items():
            totals[name] = totals.get(name, 0) + value
    seconds = time.perf_counter() - began
    print(f"{arguments.seeds} seeds in {seconds:.1f} s, no violation: {totals}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
