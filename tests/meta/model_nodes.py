"""What the dictionary model is made of, and who may do what with it: the rules said once more, as simply as possible.

Independent of the implementation. Errors are errno numbers. A time is the number of the call that set it, or, set by
`utimes`, the nanoseconds themselves.
"""

import errno
from dataclasses import dataclass, field
from typing import NoReturn

from fs_common.records.meta import FileType, User

READ, WRITE, SEARCH = 4, 2, 1
IMMUTABLE, APPEND = 0x10, 0x20
SET_UID, SET_GID, STICKY, GROUP_EXECUTES = 0o4000, 0o2000, 0o1000, 0o010


class Wrong(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


def wrong(number: int) -> NoReturn:
    raise Wrong(number)


@dataclass(frozen=True)
class Nanoseconds:
    value: int


Time = int | Nanoseconds


@dataclass(eq=False)
class Node:
    inode: int
    mode: int
    uid: int
    gid: int
    born: Time
    flags: int = 0
    atime: Time = 0
    mtime: Time = 0
    ctime: Time = 0
    contents: int = 0
    """How often they changed."""

    def __post_init__(self) -> None:
        self.atime = self.mtime = self.ctime = self.born

    @property
    def fixed(self) -> bool:
        return bool(self.flags & (IMMUTABLE | APPEND))


@dataclass(eq=False)
class File(Node):
    links: int = 1
    length: int = 0
    version: int = 0
    """Truncates."""
    sessions: set[bytes] = field(default_factory=set)


@dataclass(eq=False)
class Link(Node):
    target: bytes = b""
    links: int = 1


@dataclass(eq=False)
class Special(Node):
    type: FileType = FileType.FIFO
    device: int = 0
    links: int = 1


@dataclass(eq=False)
class Directory(Node):
    parent: "Directory | None" = None
    children: "dict[bytes, Child]" = field(default_factory=dict)

    @property
    def links(self) -> int:
        return 2 + sum(isinstance(child, Directory) for child in self.children.values())

    def touch(self, now: Time) -> None:
        """Its entries changed."""
        self.mtime = self.ctime = now
        self.contents += 1


Leaf = File | Link | Special
Child = Leaf | Directory


def in_group(user: User, gid: int) -> bool:
    return gid in (user.gid, *user.groups)


def may(user: User, node: Node, rights: int) -> bool:
    if user.uid == 0:
        return True
    shift = 6 if user.uid == node.uid else 3 if in_group(user, node.gid) else 0
    return node.mode >> shift & rights == rights


def need(user: User, node: Node, rights: int) -> None:
    if rights & WRITE and node.flags & IMMUTABLE:
        wrong(errno.EPERM)
    if not may(user, node, rights):
        wrong(errno.EACCES)


def need_place(user: User, directory: Directory) -> None:
    """To put a name into it."""
    need(user, directory, WRITE | SEARCH)


def need_name(user: User, directory: Directory, child: Node) -> None:
    """To take the child's name from it."""
    need_place(user, directory)
    if not takes(user, directory, child):
        wrong(errno.EPERM)


def takes(user: User, directory: Directory, child: Node) -> bool:
    if directory.fixed or child.fixed:
        return False
    return not directory.mode & STICKY or user.uid in (0, directory.uid, child.uid)


def need_all(user: User, directory: Directory) -> None:
    """To remove it with what is in it."""
    if directory.fixed:
        wrong(errno.EPERM)
    need(user, directory, READ | WRITE | SEARCH)


def group_in(directory: Directory, user: User) -> int:
    return directory.gid if directory.mode & SET_GID else user.gid


def mode_in(directory: Directory, user: User, mode: int) -> int:
    """Of anything but a directory made there."""
    privilege = SET_GID | GROUP_EXECUTES
    inherited = bool(directory.mode & SET_GID) and mode & privilege == privilege
    if inherited and user.uid and not in_group(user, directory.gid):
        return mode & ~SET_GID
    return mode


def without_privilege(node: Node, user: User | None) -> int:
    """The mode after somebody changed the bytes, or (not a directory) its owner; root as user keeps nothing either."""
    mode = node.mode & ~SET_UID
    if mode & GROUP_EXECUTES or (user is not None and user.uid and not in_group(user, node.gid)):
        mode &= ~SET_GID
    return mode
