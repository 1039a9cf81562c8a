"""Which version of a chunk a replica serves to a reader. Pure.

A chunk with nothing pending is served at once: the newest version here is committed, and whatever the tail has
committed is here (prefix order, `replica`). With a version pending, only the tail knows whether it is committed.
"""

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fs_storage.engine.interface import ChunkState


class Serve(enum.Enum):
    COMMITTED = "committed"
    PENDING = "pending"
    GONE = "gone"
    """Removed: nothing is to be read."""
    BEHIND = "behind"
    """The tail has committed a version that is not here: this replica lost data and must not answer."""


def serve(committed_before: int, state: "ChunkState | None", tail_version: int) -> Serve:
    """What to serve when the tail says that `tail_version` is committed.

    `committed_before` is this replica's committed version when the tail was asked, `state` the present one, which may
    have moved on meanwhile: a committed version newer than the tail's word is committed at the tail too by now, and a
    read may return it. A tail that knows nothing of a chunk whose committed version was here before the question has
    committed its removal, and has forgotten the tombstone since.
    """
    if tail_version == 0 and committed_before > 0:
        return Serve.GONE
    if state is None:
        return Serve.COMMITTED if tail_version == 0 else Serve.BEHIND
    if state.version >= tail_version:
        return Serve.COMMITTED
    if state.pending_version == tail_version:
        return Serve.PENDING
    return Serve.BEHIND
