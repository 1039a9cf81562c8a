"""What operations of the kernel cost: how many, how many failed, how long they took. For `emberfs stats`.

Times go into buckets of powers of two nanoseconds, and are added up for each: two list indices for each request, so
counting costs little enough to be always on. A quantile is the mean of the bucket that it falls into, so that it goes
with the mean of all.
"""

import errno
from dataclasses import dataclass

from fs_client.fuse.abi import OPCODE_MAX, Opcode

BUCKETS = 64


class OperationCounters:
    """One operation's, cumulative."""

    __slots__ = ("buckets", "count", "errors", "sums_ns")

    def __init__(self) -> None:
        self.count = 0
        """Answered, or done with if there is no answer."""
        self.errors = 0
        """Of `count`: failed, see `is_failure`."""
        self.sums_ns = [0] * BUCKETS
        """By bucket: all times in it together."""
        self.buckets = [0] * BUCKETS
        """`buckets[n]`: took less than 2**n ns, and not less than 2**(n-1)."""

    @property
    def total_ns(self) -> int:
        return sum(self.sums_ns)


_ANSWERS: dict[int, set[int]] = {
    Opcode.LOOKUP: {errno.ENOENT},
    Opcode.GETXATTR: {errno.ENODATA, errno.EOPNOTSUPP, errno.ERANGE},
    Opcode.LISTXATTR: {errno.ERANGE},
    Opcode.REMOVEXATTR: {errno.ENODATA},
    Opcode.LSEEK: {errno.ENXIO},
    Opcode.SETLK: {errno.EAGAIN},
    Opcode.ACCESS: {errno.EACCES},
}
"""What these operations are there to say: no such name or attribute, no more data, another holds the lock."""


def is_failure(opcode: int, code: int) -> bool:
    """Whether an operation that is answered with this errno has failed."""
    return code not in _ANSWERS.get(opcode, set())


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
                p50_ns=quantile_ns(counters.buckets, counters.sums_ns, 0.50),
                p99_ns=quantile_ns(counters.buckets, counters.sums_ns, 0.99),
                buckets=tuple(counters.buckets),
            )
            for number, counters in enumerate(self.operations)
            if counters.count
        ]
        return sorted(found, key=lambda figures: -figures.count)


def quantile_ns(buckets: list[int], sums_ns: list[int], share: float) -> int:
    """The mean of the first bucket up to which `share` of all are; 0 for none."""
    total = sum(buckets)
    seen = 0
    for count, sum_ns in zip(buckets, sums_ns, strict=True):
        seen += count
        if count and seen >= share * total:
            return sum_ns // count
    return 0
