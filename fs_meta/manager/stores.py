"""Which store a target has: what the manager knows, and its verdict on what a node reports. Pure.

A store has a random uuid, and counts its openings durably. The manager keeps both for each target, from the transaction
that places the target on a chain (with no uuid: it has no store yet) on; each SERVE is kept before it is told. So

* a target whose directory is empty although it had a store has lost it: it is not made again, or all its chunks would
  be holes from then on;
* another store in its place is foreign;
* a store whose opening is not newer than what is known is an old copy that was put back, unless the very process that
  reported it speaks again;
* so is one that was opened with a shorter log than was heard of before, in the same incarnation: a copy of what was
  open, which counts on from there. How far it had come is in memory, and kept when its node goes down.

A target that was placed by a release without these records has none: the first store that it reports is its own, and
none is made for it.

Page: `docs/concurrency/manager.md`.
"""

from typing import NamedTuple

from fs_common.records.routing import StoreVerdict
from fs_meta.manager.records import Store


class StoreReport(NamedTuple):
    """What a node says of a target's store. One that it cannot open is not reported."""

    uuid: bytes
    """b"": there is none."""
    opening: int
    incarnation: int
    position: int = 0
    """How far its log has come."""
    recovered: int = 0
    """The position with which it was opened."""


class Judged(NamedTuple):
    target: int
    verdict: StoreVerdict
    opening: int
    """Of the report."""
    known: Store | None
    """From before this report."""
    reason: str
    """One line; "" where nothing is wrong."""
    learned: Store | None
    """To be kept before the verdict is told; None: nothing new."""
    remove: bool = False
    """With RETIRE: the target is on no chain any more, and its store is not needed."""


def judge(
    target: int, report: StoreReport, process: int, known: Store | None, before: StoreReport | None = None
) -> Judged:
    """`process`: which one reports it; `known`: None for a target of a release without these records. `before`: the
    last report of the target that this manager has heard and found right."""

    def told(verdict: StoreVerdict, reason: str = "", learned: Store | None = None) -> Judged:
        return Judged(target, verdict, report.opening, known, reason, learned)

    serves = Store(target, report.uuid, report.opening, report.incarnation, process, report.position)
    if not report.uuid:
        if known is not None and not known.uuid:
            return told(StoreVerdict.FORMAT)
        return told(
            StoreVerdict.FOREIGN,
            f"the store of target {target} is lost (its directory is empty): put its disk back; it is not made anew",
        )
    if known is None or not known.uuid:
        return told(StoreVerdict.SERVE, learned=serves)
    if report.uuid != known.uuid:
        return told(
            StoreVerdict.FOREIGN,
            f"target {target} has store {report.uuid.hex()}, and its own is {known.uuid.hex()}: put its own back",
        )
    if report.opening > known.opening:
        # In another incarnation it knows by itself that something is gone.
        position = known.position if report.incarnation == known.incarnation else 0
        if before is not None and before[:3] == (known.uuid, known.opening, report.incarnation):
            position = max(position, before.position)
        if report.recovered < position:
            return told(
                StoreVerdict.ROLLED_BACK,
                f"the store of target {target} is an old copy: it was opened at position {report.recovered} of its log,"
                f" and had come to {position}",
            )
        return told(StoreVerdict.SERVE, learned=serves)
    if report.opening == known.opening and process == known.process:
        return told(StoreVerdict.SERVE, learned=serves if report.incarnation != known.incarnation else None)
    return told(
        StoreVerdict.ROLLED_BACK,
        f"the store of target {target} is an old copy: it says opening {report.opening}, and {known.opening} is known",
    )
