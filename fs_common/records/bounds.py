"""What a field of a record may hold. What a peer sends beyond it makes no record, and the error names its field.

Pure.
"""

from typing import Annotated

import msgspec

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""Of an inode, a length, or anything else that a server packs into eight bytes, and adds one to."""
UserNumber = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
"""uid, gid: what the kernel keeps in four bytes, and every mount hands to it."""
Identifier = Annotated[bytes, msgspec.Meta(max_length=16)]
"""Of a client, a session, a request: 16 bytes, or none; part of a key of the metadata store."""
Place = Annotated[bytes, msgspec.Meta(max_length=255)]
"""A name at which a listing goes on; part of a key, too. Names that are looked up are told to be too long instead."""
Word = Annotated[int, msgspec.Meta(ge=0)]
"""64 bits, as a kernel or a client names something; msgpack has no larger number."""
