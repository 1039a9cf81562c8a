"""Operations that took long: a line in the log for each, and the newest of them in memory, for people who look.

What an operation was about is asked for only once it was slow: nothing is made ready for it before.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from fs_common.records.slow import SlowOperation
from fs_common.telemetry import LimitedLog
from fs_common.tracing import shown

logger = logging.getLogger(__name__)

KEPT = 256
"""Of them, the newest, in memory."""
TEXT_BYTES_MAX = 200
"""Of a name that is shown."""


class SlowOperations:
    """Of one process. `note` is called for those that are over the threshold."""

    def __init__(self, threshold_ms: int, *, now: Callable[[], float] = time.time) -> None:
        """`threshold_ms`: see `set_threshold`."""
        self.threshold_ns = 0
        """What takes longer is slow."""
        self.set_threshold(threshold_ms)
        self.counts: dict[str, int] = {}
        """By operation, since the start of the process."""
        self._kept: deque[SlowOperation] = deque(maxlen=KEPT)
        self._log = LimitedLog(logger)
        self._now = now

    def set_threshold(self, threshold_ms: int) -> None:
        """From now on. 0: nothing is slow."""
        self.threshold_ns = threshold_ms * 1_000_000 or 1 << 62

    def note(
        self,
        operation: str,
        elapsed_ns: int,
        *,
        trace: int,
        about: str = "",
        times_ns: dict[str, int] | None = None,
        peer: str = "",
        error: str = "",
    ) -> None:
        slow = SlowOperation(
            operation=operation,
            trace=shown(trace),
            ended_s=round(self._now(), 3),
            took_ms=_ms(elapsed_ns),
            about=about,
            times_ms={name: _ms(value) for name, value in (times_ns or {}).items()},
            peer=peer,
            error=error,
        )
        self._kept.append(slow)
        self.counts[operation] = self.counts.get(operation, 0) + 1
        fields: dict[str, object] = {"trace": slow.trace, "about": about, "peer": peer, "error": error}
        fields |= {f"{name}_ms": value for name, value in slow.times_ms.items()}
        self._log.line(
            logging.WARNING,
            "slow operation: %s took %g ms",
            operation,
            slow.took_ms,
            fields={name: value for name, value in fields.items() if value != ""},
        )

    def snapshot(self) -> list[SlowOperation]:
        """The newest first."""
        return list(reversed(self._kept))


def about(request: Any) -> str:
    """What a request is about, by the fields that records of requests have."""
    items = getattr(request, "items", None)
    if isinstance(items, list) and items:
        first = items[0]
        more = f" and {len(items) - 1} more" if len(items) > 1 else ""
        return f"{_chunk(first)}{more}"
    found = [_chunk(request)]
    for field in ("parent", "at"):
        value = getattr(request, field, None)
        if isinstance(value, int):
            found.append(f"in inode {value}")
    for field in ("path", "name", "old_name", "new_name"):
        value = getattr(request, field, None)
        if isinstance(value, bytes) and value:
            found.append(repr(value[:TEXT_BYTES_MAX].decode(errors="backslashreplace")))
    return ", ".join(part for part in found if part)


def _chunk(record: Any) -> str:
    """Inode, chunk and chain of one item."""
    parts = []
    for field, word in (("inode", "inode"), ("index", "chunk"), ("chain", "chain")):
        value = getattr(record, field, None)
        if isinstance(value, int):
            parts.append(f"{word} {value}")
    return " ".join(parts)


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
