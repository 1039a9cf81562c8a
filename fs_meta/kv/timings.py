"""How long the store takes, as Prometheus and people are told."""

from typing import NamedTuple

from fs_common.latency import Latency


class Timings(NamedTuple):
    """Of one store. The latencies go on counting; the numbers are of the moment."""

    durable: Latency
    """Transactions that are told when they are on the disk."""
    relaxed: Latency
    syncs: Latency
    """Of the journal."""
    waiting: int
    """Transactions that wait to be run, or for a sync."""
    journal_bytes: int
    """Not in LMDB yet."""
