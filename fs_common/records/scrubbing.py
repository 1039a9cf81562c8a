"""What replicas are told about their stored bytes, and what they say of them."""

import msgspec


class SuspectChunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    chain: int
    inode: int
    index: int


class SuspectChunks(msgspec.Struct, frozen=True, array_like=True):
    """To a replica: bytes of these chunks that it sent did not match their checksums. It looks at what it has stored,
    and repairs that if need be; nothing is taken on the sender's word."""

    chunks: list[SuspectChunk]
    """1 to `limits.READ_ITEMS_MAX`."""
