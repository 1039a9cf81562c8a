"""The clock of leases.

Whoever believes something for as long as another process lets it counts by this clock: it goes on while the machine
sleeps, so a machine that was suspended finds its leases over. Whoever waits for the end of another's lease, or keeps
something for as long as another may come for it, counts by a clock that is not ahead of it (`time.monotonic`, the
service's time). No wall clock decides either: it may be set.
"""

import time


def boottime_s() -> float:
    """Seconds that pass also while the machine sleeps, where the system can tell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
