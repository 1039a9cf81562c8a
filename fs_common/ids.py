"""Identifiers, and the one place that says how a chunk is named.

A chunk id is 12 bytes, big-endian, so that all chunks of a file are one ordered key range:

    offset  size  field
    0       8     inode id
    8       4     chunk index within the file
"""

import struct
from typing import NewType

InodeId = NewType("InodeId", int)
"""64-bit, never reused. 0 is invalid, 1 is the root."""
ChainId = NewType("ChainId", int)
TableId = NewType("TableId", int)
TargetId = NewType("TargetId", int)
"""`node id * 100 + n`, n from 1: readable in logs, and unique without a counter."""
NodeId = NewType("NodeId", int)
ChunkId = NewType("ChunkId", bytes)
ClientId = NewType("ClientId", bytes)
"""16 random bytes, made when a client connects in a process. A secret of that process and the servers it talks to: who
knows it can take the client's news and answers. Everybody else is shown `shown_client` of it."""
SessionId = NewType("SessionId", bytes)
"""16 bytes: one open-for-write of one file by one client."""
RequestId = NewType("RequestId", bytes)
"""16 bytes, new for every mutating operation, the same for every retry of it."""

ROOT_INODE = InodeId(1)
CHUNK_ID_SIZE = 12
_CHUNK_ID = struct.Struct(">QI")


def chunk_id(inode: int, index: int) -> ChunkId:
    """The id of chunk `index` of file `inode`."""
    return ChunkId(_CHUNK_ID.pack(inode, index))


def shown_client(client: bytes) -> str:
    """Of a client's id what tells clients apart, in logs and figures, and gives nobody the rest."""
    return client[:4].hex()


def split_chunk_id(chunk: bytes) -> tuple[InodeId, int]:
    """(inode, index) of a chunk id; raises `struct.error` when it is not 12 bytes."""
    inode, index = _CHUNK_ID.unpack(chunk)
    return InodeId(inode), index
