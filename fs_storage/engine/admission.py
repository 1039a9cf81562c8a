"""Which updates a chunk accepts, and how long it is after one. The rules that every `ChunkStore` shares.

Pure.

Invariants:

* A version follows the committed one by exactly 1. Where nothing is committed, or a removal is, any higher one may be
  made: the tombstones it follows may be forgotten here, or not yet. A REMOVE may skip versions, and a REPLACE names its
  own: they need nothing of what was before.
* An update is stored at most once: the same one again (same version and identity) changes nothing.

Source: `interface.ChunkStore.prepare`.
"""

from fs_common.errors import Code, EmberError
from fs_common.limits import CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, page_size
from fs_common.records.storage import UpdateKind
from fs_storage.engine.interface import ChunkState, PendingUpdate, Update

CLIENT_BYTES_MAX = 64


def admit(update: Update, state: ChunkState | None, pending: PendingUpdate | None, page_bytes: int | None) -> bool:
    """Whether the update is new; False: it is the pending one, sent again. Raises INVALID or UPDATE_MISSING.

    `page_bytes`: what one checksum of the committed bytes covers; None: there are none.
    """
    _check_form(update)
    if (
        page_bytes is not None
        and page_bytes != page_size(update.chunk_size)
        and update.kind in (UpdateKind.WRITE, UpdateKind.TRUNCATE)
    ):
        raise EmberError(Code.INVALID, f"chunk {update.chunk.hex()} was made for pages of {page_bytes} bytes")
    if pending is not None:
        if pending.version == update.version and _same(update, pending):
            return False
        if update.kind != UpdateKind.REPLACE:
            raise EmberError(
                Code.UPDATE_MISSING,
                f"chunk {update.chunk.hex()} has another update pending, as version {pending.version}",
            )
    if update.kind == UpdateKind.REPLACE:
        return True
    committed = state.version if state is not None else 0
    follows = update.version == committed + 1
    if not follows and update.version > committed:
        follows = update.kind == UpdateKind.REMOVE or state is None or state.removed or not committed
    if not follows:
        raise EmberError(
            Code.UPDATE_MISSING,
            f"chunk {update.chunk.hex()} is at version {committed}, the update makes {update.version}",
        )
    return True


def length_after(update: Update, length: int) -> int:
    """The chunk's length once an update of a chunk of `length` bytes is committed."""
    kind = update.kind
    if kind == UpdateKind.WRITE:
        return max(length, update.offset + len(update.payload))
    if kind == UpdateKind.TRUNCATE:
        return update.offset
    if kind == UpdateKind.REPLACE:
        return len(update.payload)
    return 0


def _same(update: Update, pending: PendingUpdate) -> bool:
    """A REPLACE brings the content itself, so it is never taken for what is there already."""
    return update.kind != UpdateKind.REPLACE and (update.client, update.channel, update.sequence) == (
        pending.client,
        pending.channel,
        pending.sequence,
    )


def _check_form(update: Update) -> None:
    """Raise INVALID for an update no caller may send."""
    kind = update.kind
    size = update.chunk_size
    payload = len(update.payload)
    wrong: str | None = None
    if len(update.chunk) != 12:
        wrong = f"a chunk id has 12 bytes, not {len(update.chunk)}"
    elif not CHUNK_SIZE_MIN <= size <= CHUNK_SIZE_MAX or size & (size - 1):
        wrong = f"chunk size {size} is not a power of two from 64 KiB to 64 MiB"
    elif not 1 <= update.version < 2**64:
        wrong = f"version {update.version} is not one to make"
    elif len(update.client) > CLIENT_BYTES_MAX or not (0 <= update.channel < 2**64 and 0 <= update.sequence < 2**64):
        wrong = f"channel {update.channel}, sequence {update.sequence} of client {update.client.hex()} is no identity"
    elif kind == UpdateKind.WRITE:
        if payload == 0 or update.offset < 0 or update.offset + payload > size:
            wrong = f"a write of {payload} bytes at {update.offset} does not lie in a chunk of {size}"
    elif kind == UpdateKind.TRUNCATE:
        if payload or not 0 <= update.offset <= size:
            wrong = f"a truncation to {update.offset} with {payload} bytes of payload (chunk size {size})"
    elif kind == UpdateKind.REMOVE:
        if payload or update.offset:
            wrong = f"a removal with offset {update.offset} and {payload} bytes of payload"
    elif kind == UpdateKind.REPLACE:
        if update.offset or payload > size:
            wrong = f"a replacement at {update.offset} by {payload} bytes (chunk size {size})"
    else:
        wrong = f"kind {kind} is not an update"
    if wrong is not None:
        raise EmberError(Code.INVALID, f"chunk {update.chunk.hex()}: {wrong}")
