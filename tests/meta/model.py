"""The namespace as plain dictionaries: what every operation should do, said as simply as possible.

Independent of the implementation: no keys, no transactions, no ids but those the service gave. Errors are errno
numbers. A node keeps the inode id under which the service knows it.
"""

import errno
from dataclasses import dataclass, field
from typing import NoReturn

FOLLOW_MAX = 40


class Wrong(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


def wrong(number: int) -> NoReturn:
    raise Wrong(number)


@dataclass(eq=False)
class File:
    inode: int
    mode: int
    links: int = 1
    length: int = 0
    version: int = 0
    sessions: set[bytes] = field(default_factory=set)


@dataclass(eq=False)
class Link:
    inode: int
    target: bytes
    links: int = 1


@dataclass(eq=False)
class Directory:
    inode: int
    mode: int
    parent: "Directory | None" = None
    children: "dict[bytes, Node]" = field(default_factory=dict)

    @property
    def links(self) -> int:
        return 2 + sum(isinstance(child, Directory) for child in self.children.values())


Node = File | Link | Directory


class Model:
    def __init__(self) -> None:
        self.root = Directory(1, 0o755)
        self.root.parent = self.root
        self.detached: list[Directory] = []
        """Removed trees that have not been collected."""
        self.nameless: list[File] = []
        """Files with no name left, until they are collected."""

    # Walking

    def walk(self, at: Directory, path: bytes, follow: bool = True, budget: int = FOLLOW_MAX) -> Node:
        here: Node = self.root if path.startswith(b"/") else at
        names = [name for name in path.split(b"/") if name]
        for position, name in enumerate(names):
            if not isinstance(here, Directory):
                wrong(errno.ENOTDIR)
            rest = b"/".join(names[position + 1 :]) + (b"/" if path.endswith(b"/") else b"")
            if name == b".":
                continue
            if name == b"..":
                assert here.parent is not None
                here = here.parent
                continue
            if name not in here.children:
                wrong(errno.ENOENT)
            child = here.children[name]
            if isinstance(child, Link) and (rest or follow):
                if budget == 0:
                    wrong(errno.ELOOP)
                joined = child.target + b"/" + rest if rest else child.target
                return self.walk(here, joined, follow, budget - 1)
            here = child
        if path.endswith(b"/") and not isinstance(here, Directory):
            wrong(errno.ENOTDIR)
        return here

    def place(self, at: Directory, path: bytes) -> tuple[Directory, bytes, bool]:
        stripped = path.rstrip(b"/")
        head, slash, name = stripped.rpartition(b"/")
        start = self.root if path.startswith(b"/") else at
        parent = self.walk(start, head + b"/") if slash else start
        assert isinstance(parent, Directory)
        return parent, name, stripped != path

    # Operations

    def create(self, at: Directory, path: bytes, mode: int, exclusive: bool) -> tuple[Directory, bytes] | File:
        """Where to make it, or what was there."""
        for _ in range(FOLLOW_MAX + 1):
            parent, name, slash = self.place(at, path)
            if name in (b"", b".", b".."):
                wrong(errno.EEXIST if exclusive else errno.EISDIR)
            if slash:
                wrong(errno.EISDIR)
            there = parent.children.get(name)
            if there is None:
                return parent, name
            if exclusive:
                wrong(errno.EEXIST)
            if isinstance(there, File):
                return there
            if isinstance(there, Directory):
                wrong(errno.EISDIR)
            at, path = parent, there.target
        wrong(errno.ELOOP)

    def mkdir(self, at: Directory, path: bytes) -> tuple[Directory, bytes]:
        parent, name, _ = self.place(at, path)
        if name in (b"", b".", b"..") or name in parent.children:
            wrong(errno.EEXIST)
        return parent, name

    def symlink(self, at: Directory, path: bytes) -> tuple[Directory, bytes]:
        parent, name, slash = self.place(at, path)
        if name in (b"", b".", b"..") or name in parent.children:
            wrong(errno.EEXIST)
        if slash:
            wrong(errno.ENOENT)
        return parent, name

    def link(self, at: Directory, path: bytes, new_at: Directory, new_path: bytes) -> File | Link:
        node = self.walk(at, path, follow=False)
        parent, name = self.symlink(new_at, new_path)
        if isinstance(node, Directory):
            wrong(errno.EPERM)
        node.links += 1
        parent.children[name] = node
        return node

    def unlink(self, at: Directory, path: bytes) -> None:
        parent, name, slash = self.place(at, path)
        if name in (b"", b".", b".."):
            wrong(errno.EISDIR)
        if name not in parent.children:
            wrong(errno.ENOENT)
        node = parent.children[name]
        if isinstance(node, Directory):
            wrong(errno.EISDIR)
        if slash:
            wrong(errno.ENOTDIR)
        del parent.children[name]
        self._lose_link(node)

    def rmdir(self, at: Directory, path: bytes) -> None:
        parent, name, _ = self.place(at, path)
        self._check_removable(name)
        if name not in parent.children:
            wrong(errno.ENOENT)
        node = parent.children[name]
        if not isinstance(node, Directory):
            wrong(errno.ENOTDIR)
        if node.children:
            wrong(errno.ENOTEMPTY)
        del parent.children[name]

    def remove_tree(self, at: Directory, path: bytes) -> None:
        parent, name, slash = self.place(at, path)
        self._check_removable(name)
        if name not in parent.children:
            wrong(errno.ENOENT)
        node = parent.children[name]
        if slash and not isinstance(node, Directory):
            wrong(errno.ENOTDIR)
        del parent.children[name]
        if isinstance(node, Directory):
            self.detached.append(node)
        else:
            self._lose_link(node)

    def rename(
        self, at: Directory, path: bytes, new_at: Directory, new_path: bytes, no_replace: bool, exchange: bool
    ) -> None:
        ends = []
        for start, name in ((at, path), (new_at, new_path)):
            end = self.place(start, name)
            if end[1] in (b".", b".."):
                wrong(errno.EINVAL)
            if not end[1]:
                wrong(errno.EBUSY)
            ends.append(end)
        (old, old_name, old_slash), (new, new_name, new_slash) = ends
        moved, there = old.children.get(old_name), new.children.get(new_name)
        if moved is None or (exchange and there is None):
            wrong(errno.ENOENT)
        if no_replace and there is not None:
            wrong(errno.EEXIST)
        if not isinstance(moved, Directory) and (old_slash or (new_slash and not exchange)):
            wrong(errno.ENOTDIR)
        if exchange and new_slash and not isinstance(there, Directory):
            wrong(errno.ENOTDIR)
        if moved is there:
            return
        if self._above(moved, new) or (exchange and self._above(there, old)):
            wrong(errno.EINVAL)
        if not exchange and self._above(there, old):
            wrong(errno.ENOTEMPTY)
        if exchange:
            assert there is not None
            old.children[old_name], new.children[new_name] = there, moved
            self._settle(there, old)
        else:
            if isinstance(moved, Directory):
                if there is not None and not isinstance(there, Directory):
                    wrong(errno.ENOTDIR)
                if there is not None and there.children:
                    wrong(errno.ENOTEMPTY)
            elif isinstance(there, Directory):
                wrong(errno.EISDIR)
            elif there is not None:
                self._lose_link(there)
            del old.children[old_name]
            new.children[new_name] = moved
        self._settle(moved, new)

    def close(self, file: File, session: bytes) -> None:
        file.sessions.remove(session)

    def collect(self) -> None:
        """The collector has run until nothing was left to do."""
        while self.detached:
            for child in self.detached.pop().children.values():
                if isinstance(child, Directory):
                    self.detached.append(child)
                else:
                    self._lose_link(child)
        self.nameless = [file for file in self.nameless if file.sessions]

    # All of it

    def directories(self) -> list[Directory]:
        found = [self.root]
        for directory in found:
            found += [child for child in directory.children.values() if isinstance(child, Directory)]
        return found

    def _lose_link(self, node: File | Link) -> None:
        node.links -= 1
        if not node.links and isinstance(node, File):
            self.nameless.append(node)

    @staticmethod
    def _check_removable(name: bytes) -> None:
        if name == b"":
            wrong(errno.EBUSY)
        if name == b".":
            wrong(errno.EINVAL)
        if name == b"..":
            wrong(errno.ENOTEMPTY)

    @staticmethod
    def _settle(node: Node, parent: Directory) -> None:
        if isinstance(node, Directory):
            node.parent = parent

    def _above(self, node: Node | None, directory: Directory) -> bool:
        here: Directory | None = directory
        while here is not self.root:
            if here is node:
                return True
            assert here is not None
            here = here.parent
        return node is self.root
