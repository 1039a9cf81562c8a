"""What a replica makes of an update that its predecessor sends. Pure.

A replica that serves has what its predecessor has, or one version less; whatever does not follow from that differs,
and is reported.

A syncing one may be older than the chain, newer in what nobody was acknowledged, or of another history: the serving
side wins. Whole versions, removals and FORGET are taken over whatever is here; an update of a part only over the very
version that it was made of. Invariant: what it has got in this chain version gives way to higher version numbers only.
So a late copy of an attempt that the predecessor has given up does not bring back what was there before.

Source: `docs/concurrency/storage.md`, "The same version"; `docs/concurrency/chains.md`, "Filling up a syncing replica".
"""

import enum
from typing import TYPE_CHECKING

from fs_common.records.storage import UpdateKind
from fs_storage.craq.operation import Operation
from fs_storage.engine.digest import NOTHING_DIGEST

if TYPE_CHECKING:
    from fs_storage.craq.replica import View
    from fs_storage.engine.interface import ChunkState

_WHOLE = frozenset((UpdateKind.REPLACE, UpdateKind.REMOVE))
"""They need nothing of what is here."""


class Take(enum.Enum):
    DONE = "done"
    """It has that very version."""
    SETTLE = "settle"
    """That very version is pending here: it goes on."""
    CONFIRM = "confirm"
    """What is pending here is committed on the chain, or whatever the update brings is made of it: committed first."""
    PREPARE = "prepare"
    OVER = "over"
    """What is here is forgotten first."""
    NEEDS_WHOLE = "needs whole"
    DIFFERS = "differs"
    """It does not follow from what is here. Or it is a late copy of an attempt that its sender has given up: then
    nobody hears this."""


def missing(state: "ChunkState | None") -> bool:
    """Nothing is to be read of the chunk."""
    return state is None or state.removed or state.version == 0


def as_successor(operation: Operation, state: "ChunkState | None", committed_digest: int, view: "View") -> Take:
    """At a replica that serves."""
    version, chunk = operation.version, operation.chunk
    committed = state.version if state is not None else 0
    pending = state.pending_version if state is not None else 0
    if version <= committed or pending > version:
        return Take.DONE if version == committed and committed_digest == operation.digest else Take.DIFFERS
    if pending == 0:
        if missing(state):
            # A removal needs nothing: the tombstone that it made here before may be forgotten.
            follows = operation.base == NOTHING_DIGEST or operation.kind is UpdateKind.REMOVE
        else:
            follows = version == committed + 1 and committed_digest == operation.base
        return Take.PREPARE if follows else Take.DIFFERS
    if pending == version:
        return Take.SETTLE if view.digest(chunk, pending=True) == operation.digest else Take.DIFFERS
    # The predecessor makes a version only when the one before is committed on the whole chain.
    if operation.base == NOTHING_DIGEST:
        left = view.pending_update(chunk)
        follows = left is not None and left.removed
    else:
        follows = version == pending + 1 and view.digest(chunk, pending=True) == operation.base
    return Take.CONFIRM if follows else Take.DIFFERS


def as_syncing(operation: Operation, state: "ChunkState | None", view: "View", chain_version: int) -> Take:
    """At the syncing replica, at this version of the chain."""
    chunk, kind, version = operation.chunk, operation.kind, operation.version
    if state is None:
        whole = kind in _WHOLE or operation.base == NOTHING_DIGEST
        return Take.DONE if kind is UpdateKind.FORGET else Take.PREPARE if whole else Take.NEEDS_WHOLE
    of_now = state.chain_version == chain_version
    committed, pending = state.version, state.pending_version
    if kind is UpdateKind.FORGET:
        if not of_now:
            return Take.OVER
        # A removal of now, which the predecessor has forgotten: its floor is above it.
        return Take.DONE if state.removed and not pending else Take.DIFFERS
    if pending:
        digest = view.digest(chunk, pending=True)
        if digest == operation.digest:
            return Take.CONFIRM
        if kind in _WHOLE:
            return Take.DIFFERS if of_now and version <= pending else Take.OVER
        return Take.CONFIRM if version == pending + 1 and digest == operation.base else Take.NEEDS_WHOLE
    digest = view.digest(chunk)
    if digest == operation.digest:
        return Take.DONE
    if kind in _WHOLE:
        return Take.PREPARE if version > committed else Take.DIFFERS if of_now else Take.OVER
    if missing(state):
        follows = version > committed and operation.base == NOTHING_DIGEST
    else:
        follows = version == committed + 1 and operation.base == digest
    return Take.PREPARE if follows else Take.NEEDS_WHOLE
