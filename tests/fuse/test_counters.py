"""What operations cost."""

import pytest

from fs_client.fuse.abi import Opcode
from fs_client.fuse.counters import ChannelCounters, quantile_ns


def test_figures_are_of_what_happened_most_frequent_first() -> None:
    counters = ChannelCounters()
    assert counters.figures() == []
    for opcode, times in ((Opcode.LOOKUP, [1000]), (Opcode.READ, [1000, 1000, 1000, 5000])):
        operation = counters.operations[opcode]
        for time_ns in times:
            operation.count += 1
            operation.total_ns += time_ns
            operation.buckets[time_ns.bit_length()] += 1
    counters.operations[Opcode.READ].errors += 1
    read, lookup = counters.figures()
    assert (read.name, read.count, read.errors, read.mean_ns, read.p50_ns, read.p99_ns) == (
        "read", 4, 1, 2000, 1024, 8192,
    )  # fmt: skip
    assert (lookup.name, lookup.count, lookup.errors) == ("lookup", 1, 0)


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([0, 0, 0], 0.5, 0),
        ([1, 0, 0], 0.5, 1),
        ([0, 99, 1], 0.99, 2),
        ([0, 98, 2], 0.99, 4),
        ([0, 1, 1], 0.5, 2),
        ([0, 1, 1], 1.0, 4),
    ],
)
def test_quantiles(buckets: list[int], share: float, expected: int) -> None:
    assert quantile_ns(buckets, share) == expected
