"""How long things took, in buckets of powers of two nanoseconds: adding costs a list index, so it is always on."""

BUCKETS = 64


class Latency:
    """Cumulative. Used from one thread; hot paths add to the fields themselves."""

    __slots__ = ("buckets", "total_ns")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        """`buckets[n]`: took less than 2**n ns, and not less than 2**(n-1)."""
        self.total_ns = 0

    def add(self, elapsed_ns: int) -> None:
        self.buckets[elapsed_ns.bit_length()] += 1
        self.total_ns += elapsed_ns
