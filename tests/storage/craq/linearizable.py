"""Is one chunk's history linearizable? Exhaustive search (Wing and Gong) with memory of what was tried.

Histories are small (tens of operations, few at once), so the exact answer costs microseconds to milliseconds.
"""

from dataclasses import dataclass

from fs_common.records.storage import UpdateKind
from tests.storage.craq.model_store import Content, applied

FOREVER = float("inf")


@dataclass
class Event:
    """One operation as its client saw it."""

    start: float
    end: float
    """`FOREVER`: never answered, so it may take effect at any time after `start`, or never."""
    kind: UpdateKind | None
    """None: a read."""
    argument: object = None
    result: Content = None
    """Of a read."""


class TooHard(Exception):
    """The search was given up: neither proved nor disproved."""


def linearizable(history: list[Event], states_max: int = 50_000) -> bool:
    """True if some order of the operations, that keeps "ended before it started", explains every read.

    Raises `TooHard` after `states_max` states: very many operations at once.
    """
    seen = {marker for event in history if event.kind is None for marker in event.result or ()}
    # A write that was never answered and never seen explains nothing: whatever hid it from the reads hides its absence.
    events = sorted(
        (e for e in history if e.end != FOREVER or e.kind is not UpdateKind.WRITE or e.argument in seen),
        key=lambda event: event.start,
    )
    must = cuts = 0
    for index, event in enumerate(events):
        if event.end != FOREVER:
            must |= 1 << index
        if event.kind not in (None, UpdateKind.WRITE):
            cuts |= 1 << index
    final = events[-1].result if events and events[-1].kind is None else None
    tried: set[tuple[int, Content]] = set()
    stack: list[tuple[int, Content]] = [(0, None)]
    while stack:
        done, content = stack.pop()
        if done & must == must:
            return True
        if (done, content) in tried:
            continue
        if done & cuts == cuts and content and final is not None and final[: len(content)] != content:
            continue  # nothing is left that could take away what the last read does not have
        if len(tried) >= states_max:
            raise TooHard
        tried.add((done, content))
        first_end = min(event.end for index, event in enumerate(events) if not done >> index & 1)
        for index, event in enumerate(events):
            if event.start > first_end:
                break
            if done >> index & 1:
                continue
            if event.kind is None:
                if event.result == content:
                    stack.append((done | 1 << index, content))
            else:
                stack.append((done | 1 << index, applied(content, event.kind, event.argument)))
    return False
