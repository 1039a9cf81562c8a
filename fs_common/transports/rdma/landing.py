"""A request whose payload is being fetched: by READs, into what its service gave for it.

It owns what is known of the fetch, and what has to wait for its end. Called by `link.RdmaLink`.
"""

from collections.abc import Callable

from fs_common.transports.rdma.memory import Use
from fs_common.transports.rdma.plan import Move


class Landing:
    __slots__ = ("at", "discarded", "held", "length", "moves", "number", "release", "use")

    def __init__(self, number: int, length: int, reads: list[Move], use: Use) -> None:
        self.number = number
        self.length = length
        self.moves = reads
        self.at = 0
        """Up to here they are numbered."""
        self.use = use
        self.discarded = False
        self.release: Callable[[], None] | None = None
        """Gives the memory of one that is discarded back."""
        self.held: list[bytes] = []
        """What was said about the request meanwhile."""
