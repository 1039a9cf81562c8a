"""Which version of a chunk a replica serves to a reader. Pure.

A chunk with nothing pending is served at once: the newest version here is committed, and whatever the tail has
committed is here (prefix order, `replica`). With a version pending, only the tail knows whether it is committed.
"""

import enum
from typing import TYPE_CHECKING, NamedTuple

from fs_storage.engine.digest import digest_of

if TYPE_CHECKING:
    from fs_storage.engine.interface import ChunkState


class Serve(enum.Enum):
    COMMITTED = "committed"
    PENDING = "pending"
    GONE = "gone"
    """Removed: nothing is to be read."""
    BEHIND = "behind"
    """The tail has committed a version that is not here, or is another one here: one of them lost data, and this one
    must not answer."""


class Told(NamedTuple):
    """A committed version, by what replicas compare."""

    version: int
    """0: there is none."""
    digest: int


def serve(
    committed_before: int, state: "ChunkState | None", digests: tuple[int, int], tail: Told, *, removing: bool
) -> Serve:
    """What to serve when the tail says that `tail` is committed.

    `committed_before` is this replica's committed version when the tail was asked; `state`, `digests` (of the committed
    and of the pending version) and `removing` (a removal is pending) are of now. They may have moved on meanwhile: a
    committed version newer than the tail's word is committed at the tail too by now, and a read may return it. A tail
    that knows nothing of a chunk whose committed version was here before the question, and whose removal is here, has
    committed that removal, and has forgotten the tombstone since.
    """
    if tail.version == 0 and committed_before > 0:
        if state is not None and state.version > committed_before and not state.removed:
            return Serve.COMMITTED  # made since, over what the tail had forgotten
        return Serve.GONE if removing or state is None or state.removed else Serve.BEHIND
    removed = tail.version == 0 or tail.digest == digest_of(tail.version, 0, True, b"")
    if removed and (state is None or not state.version or state.removed):
        return Serve.COMMITTED  # nothing is to be read here as well; this replica has forgotten why
    if state is None:
        return Serve.BEHIND
    if state.version > tail.version:
        return Serve.COMMITTED
    committed, pending = digests
    if state.version == tail.version:
        return Serve.COMMITTED if tail.version == 0 or committed == tail.digest else Serve.BEHIND
    if state.pending_version == tail.version and pending == tail.digest:
        return Serve.PENDING
    return Serve.BEHIND
