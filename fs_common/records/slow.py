"""Operations that took long, as a process tells of them."""

import msgspec


class SlowOperation(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One that took longer than is expected."""

    operation: str
    trace: str
    """Eight hexadecimal digits; zeros: it was made for no client's operation."""
    ended_s: float
    """Seconds since the epoch."""
    took_ms: float
    about: str = ""
    """Which inode, chunk, path, as far as the request says."""
    times_ms: dict[str, float] = {}
    """Where the time went, as far as it is known: disk, forward, ..."""
    peer: str = ""
    """Who asked."""
    error: str = ""
    """Name of the error that it ended with; empty: none."""


class SlowOperationsReply(msgspec.Struct, frozen=True, array_like=True):
    """The newest of one process since its start, the newest first."""

    operations: list[SlowOperation]
