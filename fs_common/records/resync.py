"""What the last serving replica of a chain and the syncing one behind it tell each other.

Chunks themselves go as UPDATE_CHUNKS: whole (REPLACE), removals, or FORGET.
"""

import msgspec

from fs_common.records.storage import Holder


class FinishSync(msgspec.Struct, frozen=True, array_like=True):
    """To the syncing replica: it has been sent all that differed. It takes the answers that its predecessor remembers,
    makes everything durable, and says UPTODATE of this chain version from then on."""

    chain: int
    chain_version: int
    source: int
    """Target that sends it: the predecessor."""
    opening: int
    """Of the syncing replica's store when the comparison began: another one has to be compared again."""
    floor: int
    """No removal that the predecessor has forgotten had a higher version."""
    lineage: list[Holder] = []
    """The predecessor, as it is, and whoever it has what it has from: `Target.lineage`."""


class AtVersion(msgspec.Struct, frozen=True, array_like=True):
    """To a replica: it answers once it acts at this chain version, or a newer one; so it speaks as no tail of an older
    one any more."""

    chain: int
    chain_version: int
