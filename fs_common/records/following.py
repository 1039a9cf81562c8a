"""How the metadata service tells a client what has changed of that it was promised; see `fs_meta.promises`."""

import msgspec

from fs_common.records.bounds import Number


class Promised:
    """What a reply promises a client that follows the service (`Follow`): it is told before anybody is told that it has
    changed it. Bits.

    Replies may overtake each other on their way to who uses them: a promise counts if since the call was sent nothing
    was told of its subject, and `FollowReply.generation` has stayed the same."""

    ATTRIBUTES = 1
    """Of the attributes in the reply."""
    NAMES = 2
    """Of the names of the directory that was asked: what the reply says of them, and those of later replies, until told
    otherwise. Of a new directory: that it has no names."""


class Follow(msgspec.Struct, frozen=True, array_like=True):
    """The caller follows: replies may promise it something, and it is told here what of that has changed. It stays at
    the service until there is something to tell, or for about `FollowReply.lease_ms` / 4; then it is sent again."""

    generation: Number = 0
    """Of the last reply; 0: there was none."""
    heard: Number = 0
    """`FollowReply.number` of the last reply: all it told is not believed any more."""


class FollowReply(msgspec.Struct, frozen=True, array_like=True):
    generation: Number
    """Another one than before: nothing holds that was promised to calls sent before this reply was there."""
    number: int
    inodes: list[Number]
    """Their attributes, or what else belongs to them, have been changed by others."""
    directories: list[int]
    """Their names have."""
    lease_ms: int
    """What was promised may be believed for so long, from when the call was sent on. 0: nothing is promised here."""
