"""Update ids: who carries which update, so that the storage daemons apply each exactly once.

A channel carries one update at a time: it is taken for an update, kept through all of its retries, and given back when
its answer has come or nobody waits for it any more. Its sequence grows with every update, so a late duplicate of an
earlier one is recognised as stale.

Invariant: no two updates that are under way have the same channel; no two updates have the same (channel, sequence).
"""


class ChannelPool:
    """Channels of one client. The one given back last is taken first, so few are used and daemons remember few."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._sequences: list[int] = []
        """Last sequence of each channel."""

    def take(self) -> tuple[int, int]:
        """(channel, sequence) for one update."""
        if self._free:
            channel = self._free.pop()
        else:
            channel = len(self._sequences)
            self._sequences.append(0)
        sequence = self._sequences[channel] = self._sequences[channel] + 1
        return channel, sequence

    def give_back(self, channel: int) -> None:
        self._free.append(channel)
