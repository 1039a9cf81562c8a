"""Where the bytes of an update go, decided from the update and the committed version alone. Pure.

    nothing remains of the old bytes      a new block (a small one that fits: over the old one, as a patch)
    past everything the block holds       its unused tail
    a small part changes                  a patch: in the log first, in the block after the commit
    otherwise                             a new block, with the rest copied

Committed bytes are never written over before the commit that replaces them is durable, so that readers of the
committed version are not disturbed, and a crash before that leaves it whole.

A patch costs its bytes twice (log and block) but only one sync; direct bytes cost a sync of the block file as well.
So with durability `disk` whatever is small becomes a patch, and with `memory`, where nothing is synced, only what
cannot go elsewhere.
"""

import enum
from typing import NamedTuple

from fs_common.layout import Durability
from fs_common.records.storage import UpdateKind
from fs_storage.engine.blocks import size_class
from fs_storage.engine.interface import Update
from fs_storage.engine.versions import Version

SMALL_PATCH_BYTES = 32 * 1024
"""Up to here a patch beats a second sync on every disk we know."""
PATCH_BYTES_MAX = 4 << 20
"""A larger one would fill the log sooner than copying costs time."""
PATCH_SHARE = 4
"""A patch is at most this part of the chunk (unless it is small): beyond, the copy costs no more."""
GROWTH_CLASSES = 2
"""A block that is outgrown is replaced by one 4 times as large: appends copy a third of the bytes in all."""


class Place(enum.Enum):
    NONE = "none"
    """There are no bytes to put anywhere."""
    DIRECT = "direct"
    """Into the block, where no version that counts has bytes."""
    PATCH = "patch"
    """Into the log; into the block later."""


class Plan(NamedTuple):
    length: int
    """Of the chunk, once committed."""
    used: int
    """See `Version.used`."""
    place: Place
    start: int
    """The update sets the bytes `[start, end)`: zeros up to `payload_at`, then the payload."""
    payload_at: int
    end: int
    builds_on: bool
    """Bytes outside of `[start, end)` are the committed version's."""
    new_class: int | None
    """A block of this class is needed; None: the committed version's is kept (if there is a block at all)."""
    has_block: bool
    copies: bool
    """What is kept has to be copied to the new block."""


def plan(update: Update, base: Version | None) -> Plan:
    """`base`: the committed version; None: there is none, or it is a removal."""
    kind = update.kind
    old_length = base.length if base is not None else 0
    payload_length = len(update.payload)
    if kind == UpdateKind.TRUNCATE:
        if base is not None and 0 < update.offset <= old_length:
            place = Place.NONE
            return Plan(
                update.offset, base.used, place, update.offset, update.offset, update.offset, True, None, True, False
            )
        start, payload_at, end = old_length, update.offset, update.offset
    elif kind == UpdateKind.WRITE:
        start, payload_at, end = min(update.offset, old_length), update.offset, update.offset + payload_length
    else:
        start, payload_at, end = 0, 0, payload_length
    length = max(old_length, end) if kind == UpdateKind.WRITE else end
    if length == 0:
        return Plan(0, 0, Place.NONE, 0, 0, 0, False, None, False, False)
    block = base.block if base is not None else None
    room = 1 << block.size_class if block is not None else 0
    size = end - start
    small = size <= SMALL_PATCH_BYTES and update.durability == Durability.DISK
    if start == 0 and end == length:
        if small and base is not None and block is not None and end <= room <= 1 << (size_class(end) + GROWTH_CLASSES):
            used = max(base.used, end)
            return Plan(length, used, Place.PATCH, start, payload_at, end, False, None, True, False)
        place = Place.PATCH if small else Place.DIRECT
        return Plan(length, length, place, start, payload_at, end, False, size_class(length), True, False)
    assert base is not None and block is not None, "bytes remain, so there is a block"
    if end > room:
        limit = update.chunk_size.bit_length() - 1
        wanted = max(size_class(length), min(block.size_class + GROWTH_CLASSES, limit))
        return Plan(length, length, Place.DIRECT, start, payload_at, end, True, wanted, True, True)
    tail = start >= base.used
    if tail and not small:
        return Plan(length, end, Place.DIRECT, start, payload_at, end, True, None, True, False)
    if size <= SMALL_PATCH_BYTES or (size * PATCH_SHARE <= length and size <= PATCH_BYTES_MAX):
        return Plan(length, max(base.used, end), Place.PATCH, start, payload_at, end, True, None, True, False)
    return Plan(length, length, Place.DIRECT, start, payload_at, end, True, block.size_class, True, True)
