"""What a syncing replica does with what its predecessor sends. Pure.

Its store may be older than the chain, newer in what nobody was acknowledged, or of another history: the serving side
wins. Whole versions, removals and FORGET are taken over whatever is here; an update of a part only over the very
version that it was made of.

Invariant: what it has got in this chain version gives way to higher version numbers only. So a late copy of an attempt
that the predecessor has given up does not bring back what was there before.

Source: `docs/concurrency/chains.md`, "Filling up a syncing replica".
"""

import enum
from typing import TYPE_CHECKING

from fs_common.records.storage import UpdateKind
from fs_storage.craq.operation import Operation
from fs_storage.engine.digest import NOTHING_DIGEST

if TYPE_CHECKING:
    from fs_storage.craq.replica import View

_WHOLE = frozenset((UpdateKind.REPLACE, UpdateKind.REMOVE))
"""They need nothing of what is here."""


class Take(enum.Enum):
    DONE = "done"
    """It has that very version."""
    CONFIRM = "confirm"
    """That version, or the one it was made of, is pending here: it is committed first."""
    PREPARE = "prepare"
    OVER = "over"
    """What is here is forgotten first."""
    NEEDS_WHOLE = "needs whole"
    LATE = "late"
    """Something newer has come since."""


def take(operation: Operation, view: "View", chain_version: int) -> Take:
    """How `operation`, from the predecessor, is taken at this version of the chain."""
    chunk, kind, version = operation.chunk, operation.kind, operation.version
    state = view.state(chunk)
    if kind is UpdateKind.FORGET:
        if state is None:
            return Take.DONE
        if state.chain_version != chain_version:
            return Take.OVER
        # A removal of now, which the predecessor has forgotten: its floor is above it.
        return Take.DONE if state.removed and not state.pending_version else Take.LATE
    if state is None:
        return Take.PREPARE if kind in _WHOLE or operation.base == NOTHING_DIGEST else Take.NEEDS_WHOLE
    committed, pending = state.version, state.pending_version
    if pending:
        digest = view.digest(chunk, pending=True)
        if digest == operation.digest:
            return Take.CONFIRM
        if kind in _WHOLE:
            return Take.LATE if state.chain_version == chain_version and version <= pending else Take.OVER
        return Take.CONFIRM if version == pending + 1 and digest == operation.base else Take.NEEDS_WHOLE
    digest = view.digest(chunk)
    if digest == operation.digest:
        return Take.DONE
    if kind in _WHOLE:
        if version > committed:
            return Take.PREPARE
        return Take.LATE if state.chain_version == chain_version else Take.OVER
    if state.removed or not committed:
        follows = version > committed and operation.base == NOTHING_DIGEST
    else:
        follows = version == committed + 1 and operation.base == digest
    return Take.PREPARE if follows else Take.NEEDS_WHOLE
