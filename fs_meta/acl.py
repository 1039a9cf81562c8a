"""Access control lists of POSIX (1003.1e draft 17, acl(5)): rights of named users and groups beside those of the mode.

Kept and told as Linux has them in `system.posix_acl_access` and `system.posix_acl_default`, little-endian:

| offset | bytes | field                                                                      |
| ------ | ----- | -------------------------------------------------------------------------- |
| 0      | 4     | version, 2                                                                 |
| 4      | 8 each | entries: tag (2), rights `rwx` as 4, 2, 1 (2), user or group (4; else -1) |

Entries come in the order of their tags: owner, users by name, owning group, groups by name, mask, others; named ones
need a mask. What they give to owner and others is what the mode gives, and the mode's group bits are the mask: so for
these three the mode counts, whatever is kept of them (`access_list`), and chmod changes both in one step. A list that
says no more than a mode is none.

Pure. Source: Linux fs/posix_acl.c.
"""

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from fs_common.errors import Code, EmberError

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"
"""Of a directory: what is made in it gets this list."""
NAMES: Final = (ACCESS, DEFAULT)
VERSION: Final = 2
_HEAD = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_NOBODY: Final = 2**32 - 1
_ALL: Final = 7


class Tag(IntEnum):
    OWNER = 1
    USER = 2
    OWNING_GROUP = 4
    GROUP = 8
    MASK = 16
    OTHERS = 32


_NAMED = (Tag.USER, Tag.GROUP)
_MODE_SHIFT = {Tag.OWNER: 6, Tag.MASK: 3, Tag.OTHERS: 0}
"""Of a list with a mask: whose rights are those of the mode."""


class Right(NamedTuple):
    """An entry."""

    tag: Tag
    rights: int
    name: int = _NOBODY
    """User or group of a named one."""


def parse(value: bytes) -> tuple[Right, ...]:
    """The entries; empty: none, which takes a list away. Raises INVALID, NOT_SUPPORTED (another version)."""
    if len(value) < _HEAD.size or (len(value) - _HEAD.size) % _ENTRY.size:
        raise EmberError(Code.INVALID, f"an access control list of {len(value)} bytes: 4, and 8 for each entry")
    (version,) = _HEAD.unpack_from(value)
    if version != VERSION:
        raise EmberError(Code.NOT_SUPPORTED, f"an access control list of version {version}, this program knows 2")
    try:
        entries = tuple(Right(Tag(tag), rights, name) for tag, rights, name in _ENTRY.iter_unpack(value[_HEAD.size :]))
    except ValueError as error:
        raise EmberError(Code.INVALID, f"an access control list with an unknown tag: {error}") from error
    if entries:
        _check(entries)
    return entries


def _check(entries: tuple[Right, ...]) -> None:
    tags = [entry.tag for entry in entries]
    once = [tag for tag in tags if tag not in _NAMED]
    wanted = [Tag.OWNER, Tag.OWNING_GROUP, Tag.OTHERS]
    if tags != sorted(tags) or once not in (wanted, [*wanted[:2], Tag.MASK, Tag.OTHERS]):
        raise EmberError(Code.INVALID, "an access control list has owner, group, mask and others once each, in order")
    if Tag.MASK not in tags and len(tags) != len(once):
        raise EmberError(Code.INVALID, "an access control list that names users or groups needs a mask")
    for entry in entries:
        if entry.rights & ~_ALL or (entry.tag in _NAMED and entry.name == _NOBODY):
            raise EmberError(Code.INVALID, f"rights {entry.rights:#o} of {entry.name} in an access control list")


def pack(entries: Iterable[Right]) -> bytes:
    """The contrary of `parse`."""
    packed = (_ENTRY.pack(entry.tag, entry.rights, entry.name if entry.tag in _NAMED else _NOBODY) for entry in entries)
    return _HEAD.pack(VERSION) + b"".join(packed)


def access_list(value: bytes, mode: int) -> tuple[Right, ...]:
    """The list of an object of this mode, of what is kept."""
    return tuple(
        entry._replace(rights=mode >> _MODE_SHIFT[entry.tag] & _ALL) if entry.tag in _MODE_SHIFT else entry
        for entry in parse(value)
    )


def allows(value: bytes, mode: int, gid: int, groups: frozenset[int] | set[int], uid: int, rights: int) -> bool:
    """Whether an object of this list, mode and group gives all of `rights` to somebody who is not its owner."""
    mask = mode >> 3 & _ALL
    entries = parse(value)
    for entry in entries:
        if entry.tag is Tag.USER and entry.name == uid:
            return not rights & ~(entry.rights & mask)
    found = False
    for entry in entries:
        group = gid if entry.tag is Tag.OWNING_GROUP else entry.name if entry.tag is Tag.GROUP else None
        if group is not None and group in groups:
            found = True
            if not rights & ~entry.rights:
                return not rights & ~mask
    return not found and not rights & ~mode


def mode_of(entries: Iterable[Right], mode: int) -> tuple[int, bool]:
    """(the mode of an object that gets these entries, whether they say more than it)."""
    rights = {entry.tag: entry.rights for entry in entries}
    group = rights.get(Tag.MASK, rights[Tag.OWNING_GROUP])
    bits = rights[Tag.OWNER] << 6 | group << 3 | rights[Tag.OTHERS]
    return mode & ~0o777 | bits, Tag.MASK in rights


def inherited(default: bytes, mode: int) -> tuple[int, bytes]:
    """(mode, list to keep) of what is made with `mode`, before any umask, in a directory with this default list."""
    entries = parse(default)
    masked = Tag.MASK in {entry.tag for entry in entries}
    shifts = _MODE_SHIFT if masked else {Tag.OWNER: 6, Tag.OWNING_GROUP: 3, Tag.OTHERS: 0}
    for entry in entries:
        if entry.tag in shifts:
            mode &= entry.rights << shifts[entry.tag] | ~(_ALL << shifts[entry.tag])
    return mode, default if masked else b""
