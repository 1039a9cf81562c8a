"""Integers that a record may hold. A peer may send any: what is out of its range makes no record, and names its field.

Pure.
"""

from typing import Annotated

import msgspec

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""Of an inode, a length, or anything else that a server packs into eight bytes, and adds one to."""
UserNumber = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
"""uid, gid: what the kernel keeps in four bytes, and every mount hands to it."""
