"""What a replica that may have lost something takes from the others of its chain, chunk by chunk. Pure.

Nothing on the chain is committed while one of its replicas is not whole, so what the others have stands still. A
version that any replica has committed was on all of them once: the highest one is the chunk's. A replica that is whole
has lost nothing, so

* a chunk it has nothing of was removed, if anybody else has a committed version of it, and the removal forgotten;
* nothing goes beyond the newest version that it has, and its bytes are right where two differ under one number.

What the replicas behind this one have pending it has to have as well (prefix order), or it would say of a chunk that
nothing is under way while a reader gets the newer version from the tail.

What cannot be decided is a `Conflict`: it is reported, and stays as it is.

Source: docs/concurrency/storage.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fs_storage.engine.interface import Held


class Other(NamedTuple):
    """What another replica has of the chunk."""

    held: Held
    source: int
    """Its place among the others; the plan names it so."""
    whole: bool
    behind: bool
    """It comes after this replica on the chain."""


class Remove(NamedTuple):
    """The chunk becomes a removal with this version."""

    version: int


class Commit(NamedTuple):
    """The version that is pending here is committed."""

    version: int


class Drop(NamedTuple):
    """The version that is pending here never was: the chain went another way."""

    version: int


class Pull(NamedTuple):
    """This version is fetched whole from `source`, and committed; or kept pending, as it is there."""

    source: int
    version: int
    digest: int
    length: int
    removed: bool
    chunk_size: int
    pending: bool


class Conflict(NamedTuple):
    message: str


Step = Remove | Commit | Drop | Pull | Conflict


@dataclass(frozen=True, slots=True)
class _Candidate:
    version: int
    digest: int
    length: int
    removed: bool
    chunk_size: int
    whole: bool
    source: int
    """-1: this replica."""


def plan(mine: Held, others: Sequence[Other]) -> list[Step]:
    """The steps, in order, that a replica which is not whole takes for one chunk."""
    steps: list[Step] = []
    newest = _newest_of_whole(others)
    committed, conflict = _committed(mine, others, newest)
    if conflict is not None:
        return [conflict]
    version, nothing = mine.version, mine.removed or not mine.version
    # A replica that has lost nothing has nothing of the chunk.
    gone = committed is None and any(
        other.whole and not other.held.version and not other.held.pending_version for other in others
    )
    if committed is None:
        if mine.version and not mine.removed:
            version = max(_removal_known(mine, others), mine.version + 1)
            steps.append(Remove(version))
            nothing = True
    elif committed.source >= 0 and (committed.version, committed.digest) != (mine.version, mine.digest):
        if (mine.pending_version, mine.pending_digest) == (committed.version, committed.digest):
            steps.append(Commit(committed.version))
        elif not committed.removed:
            steps.append(
                Pull(
                    committed.source,
                    committed.version,
                    committed.digest,
                    committed.length,
                    False,
                    committed.chunk_size,
                    False,
                )
            )
        elif mine.version:
            steps.append(Remove(committed.version))
        version, nothing = committed.version, committed.removed
    if mine.pending_version and not steps:
        follows = mine.pending_version == version + 1 or (nothing and mine.pending_version > version)
        if gone or not follows or _is_passed(mine, others):
            steps.append(Drop(mine.pending_version))
            mine = mine._replace(pending_version=0)
    if gone and (mine.version or any(other.held.version for other in others)):
        # It was removed, and what others have pending is of before that.
        others = [other for other in others if other.whole]
    pending = _pending(mine, others, version, nothing)
    if pending is not None:
        steps.append(pending)
    return steps


def _newest_of_whole(others: Sequence[Other]) -> int | None:
    """The newest version of any whole replica; None: nobody knows, as one has forgotten it, or there is none."""
    newest = [max(other.held.version, other.held.pending_version) for other in others if other.whole]
    return max(newest) if newest and min(newest) > 0 else None


def _committed(mine: Held, others: Sequence[Other], newest: int | None) -> tuple[_Candidate | None, Conflict | None]:
    """The chunk's committed version; None: it has none, or none any more."""
    gone_below = 0
    for other in others:
        if other.whole and not other.held.version:
            gone_below = max(gone_below, other.held.pending_version or 1 << 64)
    candidates = [
        _Candidate(held.version, held.digest, held.length, held.removed, held.chunk_size, other.whole, other.source)
        for other in others
        if (held := other.held).version
    ]
    if mine.version:
        candidates.append(_Candidate(mine.version, mine.digest, mine.length, mine.removed, mine.chunk_size, False, -1))
    candidates = [one for one in candidates if one.removed or one.version >= gone_below]
    if not candidates:
        return None, None
    version = max(one.version for one in candidates)
    if newest is not None and version > newest:
        return None, Conflict(
            f"version {version} is committed here or there, a replica that lost nothing is at {newest}"
        )
    best = [one for one in candidates if one.version == version]
    believed = [one for one in best if one.whole] or best
    if len({one.digest for one in believed}) > 1:
        return None, Conflict(f"replicas have different versions {version}")
    return min(believed, key=lambda one: one.source), None


def _is_passed(mine: Held, others: Sequence[Other]) -> bool:
    """A whole replica before this one does not have what is pending here: the chunk went on (prefix order)."""
    return any(
        other.whole
        and not other.behind
        and other.held.version < mine.pending_version
        and (other.held.pending_version, other.held.pending_digest) != (mine.pending_version, mine.pending_digest)
        for other in others
    )


def _removal_known(mine: Held, others: Sequence[Other]) -> int:
    """The version of the chunk's removal, if somebody has it pending still; 0: nobody."""
    return max(
        (other.held.pending_version for other in others if other.held.pending_removed),
        default=mine.pending_version if mine.pending_removed else 0,
    )


def _pending(mine: Held, others: Sequence[Other], committed: int, nothing: bool) -> Pull | Conflict | None:
    """What the replicas behind have pending, and this one has not.

    It has to follow from what is committed: any other is of a replica that lost what came before it, and drops it.
    `nothing`: what is committed is a removal, or nothing.
    """
    ahead = [
        other
        for other in others
        if other.behind
        and other.held.pending_version > committed
        and (nothing or other.held.pending_version == committed + 1)
    ]
    if not ahead:
        return None
    version = max(other.held.pending_version for other in ahead)
    best = [other for other in ahead if other.held.pending_version == version]
    if len({other.held.pending_digest for other in best}) > 1:
        return Conflict(f"replicas have different versions {version} pending")
    held = best[0].held
    if (mine.pending_version, mine.pending_digest) == (version, held.pending_digest):
        return None
    return Pull(
        best[0].source,
        version,
        held.pending_digest,
        held.pending_length,
        held.pending_removed,
        held.pending_chunk_size,
        True,
    )
