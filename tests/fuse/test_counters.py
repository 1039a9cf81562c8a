"""What operations cost."""

import errno

import pytest

from fs_client.fuse.abi import Opcode
from fs_client.fuse.counters import ChannelCounters, is_failure, quantile_ns


def test_figures_are_of_what_happened_most_frequent_first() -> None:
    counters = ChannelCounters()
    assert counters.figures() == []
    for opcode, times in ((Opcode.LOOKUP, [1000]), (Opcode.READ, [1000, 1000, 1000, 5000])):
        operation = counters.operations[opcode]
        for time_ns in times:
            operation.count += 1
            operation.sums_ns[time_ns.bit_length()] += time_ns
            operation.buckets[time_ns.bit_length()] += 1
    counters.operations[Opcode.READ].errors += 1
    read, lookup = counters.figures()
    assert (read.name, read.count, read.errors, read.mean_ns, read.p50_ns, read.p99_ns) == (
        "read", 4, 1, 2000, 1000, 5000,
    )  # fmt: skip
    assert (lookup.name, lookup.count, lookup.errors) == ("lookup", 1, 0)


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([0, 0, 0], 0.5, 0),
        ([1, 0, 0], 0.5, 0),
        ([0, 99, 1], 0.99, 1),
        ([0, 98, 2], 0.99, 3),
        ([0, 1, 1], 0.5, 1),
        ([0, 1, 1], 1.0, 3),
    ],
)
def test_quantiles(buckets: list[int], share: float, expected: int) -> None:
    sums = [count * value for count, value in zip(buckets, (0, 1, 3), strict=True)]
    assert quantile_ns(buckets, sums, share) == expected


@pytest.mark.parametrize("times_ns", [[41_000], [41_000, 41_000, 41_000], [33_000, 65_000], [131_000] * 9 + [900_000]])
def test_quantiles_go_with_the_mean(times_ns: list[int]) -> None:
    """The half of what took about as long is not above or below all of it."""
    counters = ChannelCounters()
    operation = counters.operations[Opcode.OPENDIR]
    for time_ns in times_ns:
        operation.count += 1
        operation.sums_ns[time_ns.bit_length()] += time_ns
        operation.buckets[time_ns.bit_length()] += 1
    (figures,) = counters.figures()
    assert min(times_ns) <= figures.p50_ns <= figures.mean_ns
    assert figures.p50_ns <= figures.p99_ns <= max(times_ns)
    assert operation.total_ns == sum(times_ns)


def test_what_an_operation_is_there_to_say_is_no_failure() -> None:
    assert not is_failure(Opcode.GETXATTR, errno.ENODATA) and is_failure(Opcode.GETXATTR, errno.EIO)
    assert not is_failure(Opcode.GETXATTR, errno.EOPNOTSUPP), "ls asks for labels of every kind"
    assert not is_failure(Opcode.LOOKUP, errno.ENOENT) and is_failure(Opcode.OPEN, errno.ENOENT)
    assert not is_failure(Opcode.SETLK, errno.EAGAIN) and is_failure(Opcode.SETLKW, errno.EAGAIN)
    assert is_failure(9999, errno.EIO)
