"""What a replica that may have lost something takes from the others of its chain, chunk by chunk. Pure.

All of them may have lost something: where one is whole, the others are filled up by it, and take nothing this way.
Nothing on the chain is committed before, so what the others have stands still. A version that any replica has committed
was on all of them once: the highest one is the chunk's.

What the replicas behind this one have pending it has to have as well (prefix order), or it would say of a chunk that
nothing is under way while a reader gets the newer version from the tail.

What cannot be decided is a `Conflict`: it is reported, and stays as it is.

Source: docs/concurrency/storage.md.
"""

from collections.abc import Sequence
from typing import NamedTuple

from fs_storage.engine.interface import Held


class Other(NamedTuple):
    """What another replica has of the chunk."""

    held: Held
    source: int
    """Its place among the others; the plan names it so."""
    behind: bool
    """It comes after this replica on the chain."""


class Remove(NamedTuple):
    """The chunk becomes a removal with this version."""

    version: int


class Commit(NamedTuple):
    """The version that is pending here is committed."""

    version: int


class Drop(NamedTuple):
    """The version that is pending here does not follow from what is committed."""

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


class _Candidate(NamedTuple):
    version: int
    digest: int
    length: int
    removed: bool
    chunk_size: int
    source: int
    """-1: this replica."""


def plan(mine: Held, others: Sequence[Other]) -> list[Step]:
    """The steps, in order, that a replica which is not whole takes for one chunk."""
    steps: list[Step] = []
    committed = _committed(mine, others)
    if isinstance(committed, Conflict):
        return [committed]
    version, nothing = mine.version, mine.removed or not mine.version
    if committed is not None and (committed.version, committed.digest) != (mine.version, mine.digest):
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
        if not follows:
            # Whoever has been told of what is pending here is told what became of it: a removal stays for a while.
            forgets = nothing and version > mine.version
            steps.append(Remove(version) if forgets else Drop(mine.pending_version))
            mine = mine._replace(pending_version=0)
    pending = _pending(mine, others, version, nothing)
    if pending is not None:
        steps.append(pending)
    return steps


def _committed(mine: Held, others: Sequence[Other]) -> _Candidate | Conflict | None:
    """The chunk's committed version; None: it has none."""
    everybody = [(mine, -1), *((other.held, other.source) for other in others)]
    candidates = [
        _Candidate(held.version, held.digest, held.length, held.removed, held.chunk_size, source)
        for held, source in everybody
        if held.version
    ]
    version = max((one.version for one in candidates), default=0)
    best = [one for one in candidates if one.version == version]
    if len({one.digest for one in best}) > 1:
        return Conflict(f"replicas have different versions {version}")
    if not best or best[0].removed or all(held.version for held, _ in everybody):
        return best[0] if best else None
    for held, source in everybody:
        if held.pending_removed and held.pending_version == version + 1:
            # Who has nothing may have forgotten that it was committed. If not, it may be: it is under way.
            return _Candidate(held.pending_version, held.pending_digest, 0, True, held.pending_chunk_size, source)
    return best[0]


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
