"""Update ids: who carries which update, so that the storage daemons apply each exactly once.

A channel carries one update at a time: it is taken for an update, kept through all of its retries, and given back when
its answer has come or nobody waits for it any more. Its sequence grows with every update. A daemon remembers the last
sequence of each channel, so that a late copy of an earlier update is recognised: as the same, or as stale.

A copy of an update that was given up without an answer may still be on its way, on a connection that nobody looks at
any more, and the daemon it is on its way to may not have heard of it. What makes it stale there is a later update
*there*. So the channel stays with the chunk (`_kept`): the next update of the chunk has the same channel, and once that
one is acknowledged no copy of the one before can be applied. Until then the channel carries nothing else.

Invariant: no two updates that are under way have the same channel; no two updates have the same (channel, sequence);
updates of one chunk come one after another.

Used by the client (`fs_client.write_path`) and by the metadata service, which cuts chunks. Pure.
"""

KEPT_MAX = 1 << 17
"""Chunks whose last update was given up. Beyond them the oldest channel is never used again, and a copy of what it
carried is not known to be late any more."""

Chunk = tuple[int, int]
"""Inode, index."""


class ChannelPool:
    """Channels of one client. The one given back last is taken first, so few are used and daemons remember few."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._sequences: list[int] = []
        """Last sequence of each channel."""
        self._kept: dict[Chunk, int] = {}
        """Chunks whose last update was given up, and its channel; the oldest first."""

    def take(self, chunk: Chunk) -> tuple[int, int, bool]:
        """(channel, sequence) for one update, and whether a copy of the one before on the channel may be under way."""
        kept = self._kept.pop(chunk, None) if self._kept else None
        if kept is not None:
            channel = kept
        elif self._free:
            channel = self._free.pop()
        else:
            channel = len(self._sequences)
            self._sequences.append(0)
        sequence = self._sequences[channel] = self._sequences[channel] + 1
        return channel, sequence, kept is not None

    def give_back(self, chunk: Chunk, channel: int, *, over: bool) -> None:
        """The update has ended. `over`: no copy of it, or of one before it on this channel, can be applied any more."""
        if over:
            self._free.append(channel)
            return
        self._kept[chunk] = channel
        if len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
