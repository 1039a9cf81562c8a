"""What operations of the kernel cost: how many, how many failed, how long they took. For `emberfs stats`.

Times go into buckets of powers of two nanoseconds: one list index for each request, so counting costs little enough
to be always on.
"""

from dataclasses import dataclass

from fs_client.fuse.abi import OPCODE_MAX, Opcode

BUCKETS = 64


class OperationCounters:
    """One operation's, cumulative."""

    __slots__ = ("buckets", "count", "errors", "total_ns")

    def __init__(self) -> None:
        self.count = 0
        """Answered, or done with if there is no answer."""
        self.errors = 0
        """Of `count`: answered with an errno."""
        self.total_ns = 0
        self.buckets = [0] * BUCKETS
        """`buckets[n]`: took less than 2**n ns, and not less than 2**(n-1)."""


@dataclass(frozen=True, slots=True)
class OperationFigures:
    """A snapshot of one operation's counters."""

    name: str
    """In lower case."""
    count: int
    errors: int
    mean_ns: int
    p50_ns: int
    p99_ns: int
    """Upper ends of the buckets that the quantiles fall into."""
    buckets: tuple[int, ...]


class ChannelCounters:
    """Of one channel."""

    def __init__(self) -> None:
        self.operations = [OperationCounters() for _ in range(OPCODE_MAX + 1)]
        """By opcode."""
        self.turns = 0
        """Times the device was drained."""
        self.interrupts = 0
        self.gave_up = 0
        """Requests answered by the channel itself: interrupted, or past their deadline."""
        self.aborted = 0
        """Answers that the kernel had no request for any more."""
        self.starved = 0
        """Times that reading paused because all payload memory was in use."""
        self.notifications = 0

    def figures(self) -> list[OperationFigures]:
        """Of operations that happened, most frequent first."""
        found = [
            OperationFigures(
                name=Opcode(number).name.lower(),
                count=counters.count,
                errors=counters.errors,
                mean_ns=counters.total_ns // counters.count,
                p50_ns=quantile_ns(counters.buckets, 0.50),
                p99_ns=quantile_ns(counters.buckets, 0.99),
                buckets=tuple(counters.buckets),
            )
            for number, counters in enumerate(self.operations)
            if counters.count
        ]
        return sorted(found, key=lambda figures: -figures.count)


def quantile_ns(buckets: list[int], share: float) -> int:
    """The upper end of the first bucket up to which `share` of all are; 0 for none."""
    total = sum(buckets)
    seen = 0
    for exponent, count in enumerate(buckets):
        seen += count
        if count and seen >= share * total:
            return 1 << exponent
    return 0
