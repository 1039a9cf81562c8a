"""The namespace as plain dictionaries: what every operation should do, said as simply as possible.

Independent of the implementation: no keys, no transactions, no ids but those the service gave. Errors are errno
numbers. A node keeps the inode id under which the service knows it. Each operation checks first, and changes nothing
when it fails; what makes a node returns its place, and `add` puts it there once the service has given it an id.
"""

import errno
from collections.abc import Iterator

from fs_common.records.meta import FileType, User
from tests.meta.model_nodes import (
    APPEND,
    IMMUTABLE,
    READ,
    SEARCH,
    SET_GID,
    WRITE,
    Child,
    Directory,
    File,
    Leaf,
    Link,
    Nanoseconds,
    Node,
    Special,
    Wrong,
    group_in,
    in_group,
    may,
    mode_in,
    need,
    need_all,
    need_name,
    need_place,
    takes,
    without_privilege,
    wrong,
)

FOLLOW_MAX = 40
ORPHANS = b"lost+found"


class Model:
    def __init__(self, mode: int) -> None:
        self.now = 0
        """The number of the call that is made."""
        self.root = Directory(1, mode, 0, 0, 0)
        self.root.parent = self.root
        self.detached: list[tuple[Directory, User, bytes]] = []
        """Removed trees that have not been collected: by whom, and their paths."""
        self.nameless: list[File] = []
        """Files with no name left, until they are collected."""

    # Walking

    def walk(self, user: User, at: Directory, path: bytes, follow: bool = True, budget: int = FOLLOW_MAX) -> Child:
        here: Child = self.root if path.startswith(b"/") else at
        names = [name for name in path.split(b"/") if name]
        for position, name in enumerate(names):
            if not isinstance(here, Directory):
                wrong(errno.ENOTDIR)
            need(user, here, SEARCH)
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
                return self.walk(user, here, joined, follow, budget - 1)
            here = child
        if path.endswith(b"/") and not isinstance(here, Directory):
            wrong(errno.ENOTDIR)
        return here

    def place(self, user: User, at: Directory, path: bytes) -> tuple[Directory, bytes, bool]:
        stripped = path.rstrip(b"/")
        head, slash, name = stripped.rpartition(b"/")
        start = self.root if path.startswith(b"/") else at
        parent = self.walk(user, start, head + b"/") if slash else start
        assert isinstance(parent, Directory)
        if name:
            need(user, parent, SEARCH)
        return parent, name, stripped != path

    # What makes something

    def add(self, parent: Directory, name: bytes, node: Child) -> None:
        parent.children[name] = node
        parent.touch(self.now)

    def create(
        self, user: User, at: Directory, path: bytes, exclusive: bool, write: bool
    ) -> tuple[Directory, bytes] | File:
        """Where to make it, or what was there."""
        for _ in range(FOLLOW_MAX + 1):
            parent, name, slash = self.place(user, at, path)
            if name in (b"", b".", b".."):
                wrong(errno.EEXIST if exclusive else errno.EISDIR)
            if slash:
                wrong(errno.EISDIR)
            there = parent.children.get(name)
            if there is None:
                need_place(user, parent)
                return parent, name
            if exclusive:
                wrong(errno.EEXIST)
            if isinstance(there, Directory):
                wrong(errno.EISDIR)
            if not isinstance(there, Link):
                return self.opened(user, there, write, False)
            at, path = parent, there.target
        wrong(errno.ELOOP)

    def new_place(self, user: User, at: Directory, path: bytes) -> tuple[Directory, bytes]:
        """Of a symbolic link, a second name, or a special file."""
        parent, name, slash = self.place(user, at, path)
        if name in (b"", b".", b"..") or name in parent.children:
            wrong(errno.EEXIST)
        if slash:
            wrong(errno.ENOENT)
        need_place(user, parent)
        return parent, name

    def mknod(self, user: User, at: Directory, path: bytes, type_: FileType) -> tuple[Directory, bytes]:
        parent, name = self.new_place(user, at, path)
        if user.uid and type_ in (FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE):
            wrong(errno.EPERM)
        return parent, name

    def mkdir(self, user: User, at: Directory, path: bytes) -> tuple[Directory, bytes]:
        parent, name, _ = self.place(user, at, path)
        if name in (b"", b".", b"..") or name in parent.children:
            wrong(errno.EEXIST)
        need_place(user, parent)
        return parent, name

    def new_directory(self, user: User, inode: int, parent: Directory, mode: int) -> Directory:
        bits = mode & 0o1777 | parent.mode & SET_GID
        return Directory(inode, bits, user.uid, group_in(parent, user), self.now, parent=parent)

    def new_file(self, user: User, inode: int, parent: Directory, mode: int) -> File:
        return File(inode, mode_in(parent, user, mode), user.uid, group_in(parent, user), self.now)

    def mkdir_parents(self, user: User, at: Directory, path: bytes, mode: int) -> tuple[Directory, list[Directory]]:
        """The directory, and those that were made; their inodes are not known yet."""
        before: list[tuple[Directory, bytes]] = []
        made: list[Directory] = []
        here = self.root if path.startswith(b"/") else at
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        kept = {id(node): (node, node.mtime, node.ctime, node.contents) for node in self.directories()}
        try:
            for position, name in enumerate(names):
                last = position == len(names) - 1
                need(user, here, SEARCH)
                if name == b"..":
                    assert here.parent is not None
                    here = here.parent
                    continue
                child = here.children.get(name)
                if child is None:
                    need_place(user, here)
                    child = self.new_directory(user, 0, here, mode if last else mode | 0o300)
                    self.add(here, name, child)
                    before.append((here, name))
                    made.append(child)
                elif isinstance(child, Link):
                    child = self._behind(user, here, name)
                if not isinstance(child, Directory):
                    wrong(errno.EEXIST if last else errno.ENOTDIR)
                here = child
        except Wrong:
            for parent, name in before:
                del parent.children[name]
            for node, mtime, ctime, contents in kept.values():
                node.mtime, node.ctime, node.contents = mtime, ctime, contents
            raise
        return here, made

    def _behind(self, user: User, at: Directory, name: bytes) -> Child:
        try:
            return self.walk(user, at, name)
        except Wrong as error:
            wrong(errno.EEXIST if error.number == errno.ENOENT else error.number)

    def link(self, user: User, at: Directory, path: bytes, new_at: Directory, new_path: bytes) -> None:
        node = self.walk(user, at, path, follow=False)
        parent, name = self.new_place(user, new_at, new_path)
        if node.fixed or isinstance(node, Directory):
            wrong(errno.EPERM)
        node.links += 1
        node.ctime = self.now
        self.add(parent, name, node)

    # What removes and moves

    def unlink(self, user: User, at: Directory, path: bytes) -> None:
        parent, name, slash = self.place(user, at, path)
        if name in (b"", b".", b".."):
            wrong(errno.EISDIR)
        node = self._there(parent, name)
        if slash and not isinstance(node, Directory):
            wrong(errno.ENOTDIR)
        need_name(user, parent, node)
        if isinstance(node, Directory):
            wrong(errno.EISDIR)
        self._take(parent, name)
        self._lose_link(node)

    def rmdir(self, user: User, at: Directory, path: bytes) -> None:
        parent, name, _ = self.place(user, at, path)
        self._check_removable(name)
        node = self._there(parent, name)
        need_name(user, parent, node)
        if not isinstance(node, Directory):
            wrong(errno.ENOTDIR)
        if node.children:
            wrong(errno.ENOTEMPTY)
        self._take(parent, name)

    def remove_tree(self, user: User, at: Directory, path: bytes) -> None:
        parent, name, slash = self.place(user, at, path)
        self._check_removable(name)
        node = self._there(parent, name)
        if not isinstance(node, Directory):
            if slash:
                wrong(errno.ENOTDIR)
            need_name(user, parent, node)
            self._take(parent, name)
            self._lose_link(node)
            return
        need_name(user, parent, node)
        if user.uid:
            self._check_below(user, node)
        self.detached.append((node, user, self.path_of(node)))
        self._take(parent, name)
        node.ctime = self.now

    def _check_below(self, user: User, top: Directory) -> None:
        pending = [top]
        for directory in pending:
            if directory.children:
                need_all(user, directory)
            for _, child in sorted(directory.children.items()):
                sticky = directory.mode & 0o1000 and user.uid != directory.uid
                if (isinstance(child, Directory) or sticky) and not takes(user, directory, child):
                    wrong(errno.EPERM)
                if isinstance(child, Directory):
                    pending.append(child)

    def rename(
        self,
        user: User,
        at: Directory,
        path: bytes,
        new_at: Directory,
        new_path: bytes,
        no_replace: bool,
        exchange: bool,
    ) -> None:
        ends = []
        for start, name in ((at, path), (new_at, new_path)):
            end = self.place(user, start, name)
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
        self._check_rename_rights(user, old, moved, new, there, exchange)
        if isinstance(there, Directory) and there.children and not exchange:
            wrong(errno.ENOTEMPTY)
        if exchange:
            assert there is not None
            old.children[old_name] = there
            self._settle(there, old)
        else:
            del old.children[old_name]
            if there is not None and not isinstance(there, Directory):
                self._lose_link(there)
        new.children[new_name] = moved
        self._settle(moved, new)
        for directory in {old, new}:
            directory.touch(self.now)

    @staticmethod
    def _check_rename_rights(
        user: User, old: Directory, moved: Child, new: Directory, there: Child | None, exchange: bool
    ) -> None:
        need_name(user, old, moved)
        if there is None:
            need_place(user, new)
        else:
            need_name(user, new, there)
            if not exchange and isinstance(moved, Directory) and not isinstance(there, Directory):
                wrong(errno.ENOTDIR)
            if not exchange and isinstance(there, Directory) and not isinstance(moved, Directory):
                wrong(errno.EISDIR)
        if old is not new:
            if isinstance(moved, Directory):
                need(user, moved, WRITE)
            if exchange and isinstance(there, Directory):
                need(user, there, WRITE)

    # Files and attributes

    def open(self, user: User, at: Directory, path: bytes, append: bool) -> File:
        """For writing."""
        node = self.walk(user, at, path)
        if isinstance(node, Directory):
            wrong(errno.EISDIR)
        assert not isinstance(node, Link)
        return self.opened(user, node, True, append)

    def opened(self, user: User, node: File | Special, write: bool, append: bool) -> File:
        need(user, node, READ | (WRITE if write else 0))
        if write and node.flags & APPEND and not append:
            wrong(errno.EPERM)
        if isinstance(node, Special):
            wrong(errno.ENXIO)
        return node

    def truncate(self, user: User, node: Node, length: int, session: bool) -> None:
        if isinstance(node, Directory):
            wrong(errno.EISDIR)
        if not isinstance(node, File):
            wrong(errno.EINVAL)
        if not session:
            need(user, node, WRITE)
        if node.fixed:
            wrong(errno.EPERM)
        node.contents += node.length != length
        node.length, node.version = length, node.version + 1
        node.mtime = node.ctime = self.now
        if user.uid:
            node.mode = without_privilege(node, user)

    def settle(self, file: File, length: int, wrote: bool, clear_set_id: bool) -> None:
        file.length = length
        if wrote:
            file.contents += 1
            file.mtime = file.ctime = self.now
        if clear_set_id and without_privilege(file, None) != file.mode:
            file.mode, file.ctime = without_privilege(file, None), self.now

    def close(self, file: File, session: bytes) -> None:
        file.sessions.remove(session)

    def chmod(self, user: User, node: Node, mode: int) -> None:
        self._check_owner(user, node)
        if isinstance(node, Link):
            wrong(errno.EOPNOTSUPP)
        if user.uid and not in_group(user, node.gid):
            mode &= ~SET_GID
        node.mode, node.ctime = mode, self.now

    def chown(self, user: User, node: Node, uid: int | None, gid: int | None) -> None:
        if node.fixed:
            wrong(errno.EPERM)
        mine = user.uid == node.uid and uid in (None, node.uid)
        if user.uid and not (mine and (gid in (None, node.gid) or in_group(user, gid or 0))):
            wrong(errno.EPERM)
        if not isinstance(node, Directory):
            node.mode = without_privilege(node, user)
        node.uid, node.gid = node.uid if uid is None else uid, node.gid if gid is None else gid
        node.ctime = self.now

    def utimes(self, user: User, node: Node, atime: int | None, mtime: int | None) -> None:
        """None, None: both to the clock."""
        if atime is None and mtime is None:
            if node.flags & IMMUTABLE:
                wrong(errno.EPERM)
            if user.uid not in (0, node.uid) and not may(user, node, WRITE):
                wrong(errno.EACCES)
            node.atime = node.mtime = self.now
        else:
            self._check_owner(user, node)
            node.atime = node.atime if atime is None else Nanoseconds(atime)
            node.mtime = node.mtime if mtime is None else Nanoseconds(mtime)
        node.ctime = self.now

    def set_flags(self, user: User, node: Node, flags: int) -> None:
        if not isinstance(node, File | Directory):
            wrong(errno.EOPNOTSUPP)
        if user.uid not in (0, node.uid):
            wrong(errno.EPERM)
        changed = node.flags ^ flags
        if user.uid and changed & (IMMUTABLE | APPEND):
            wrong(errno.EPERM)
        if changed and node.flags & flags & IMMUTABLE:
            wrong(errno.EPERM)
        node.flags, node.ctime = flags, self.now

    @staticmethod
    def _check_owner(user: User, node: Node) -> None:
        if node.fixed or user.uid not in (0, node.uid):
            wrong(errno.EPERM)

    # The collector

    def collect(self, new_place: int) -> None:
        """The collector has run until nothing was left to do. `new_place`: the inode of a place for orphans it made."""
        while self.detached:
            top, user, path = self.detached.pop()
            for name, child in list(top.children.items()):
                below = path + b"/" + name
                if not takes(user, top, child) or self._may_not_empty(user, child):
                    self._keep(child, below, new_place)
                elif isinstance(child, Directory):
                    self.detached.append((child, user, below))
                else:
                    self._lose_link(child)
                    child.ctime = self._moment()
        self.nameless = [file for file in self.nameless if file.sessions]

    def needs_place(self) -> bytes | None:
        """The name of the place for orphans that would have to be made now; None: there is one."""
        number = 0
        while True:
            name = ORPHANS + (b".%d" % number if number else b"")
            there = self.root.children.get(name)
            if there is None:
                return name
            if isinstance(there, Directory) and there.uid == self.root.uid:
                return None
            number += 1

    @staticmethod
    def _may_not_empty(user: User, child: Child) -> bool:
        if not isinstance(child, Directory) or not user.uid or not child.children:
            return False
        return not may(user, child, READ | WRITE | SEARCH)

    def _keep(self, child: Child, path: bytes, new_place: int) -> None:
        missing = self.needs_place()
        if missing is not None:
            mode = 0o1777 | self.root.mode & SET_GID
            made = Directory(new_place, mode, self.root.uid, self.root.gid, self._moment())
            made.parent = self.root
            self.root.children[missing] = made
            self.root.touch(self._moment())
        place = next(
            node
            for number in range(10)
            if isinstance(node := self.root.children.get(ORPHANS + (b".%d" % number if number else b"")), Directory)
            and node.uid == self.root.uid
        )
        name = b"%d%b" % (child.inode, path.replace(b"/", b":"))
        attempt = 1
        while name in place.children:
            name = b"%d~%d" % (child.inode, attempt)
            attempt += 1
        place.children[name] = child
        place.touch(self._moment())
        child.ctime = self._moment()
        if isinstance(child, Directory):
            child.parent = place

    def _moment(self) -> int:
        """The collector's steps each have a time of their own."""
        self.now += 1
        return self.now

    # All of it

    def directories(self) -> list[Directory]:
        found = [self.root]
        for directory in found:
            found += [child for child in directory.children.values() if isinstance(child, Directory)]
        return found

    def path_of(self, directory: Directory) -> bytes:
        path = b""
        while directory is not self.root:
            assert directory.parent is not None
            path = next(b"/" + name for name, child in directory.parent.children.items() if child is directory) + path
            directory = directory.parent
        return path

    def nodes(self) -> Iterator[Child]:
        for directory in self.directories():
            yield directory
            for child in directory.children.values():
                if not isinstance(child, Directory):
                    yield child

    def _there(self, parent: Directory, name: bytes) -> Child:
        if name not in parent.children:
            wrong(errno.ENOENT)
        return parent.children[name]

    def _take(self, parent: Directory, name: bytes) -> None:
        del parent.children[name]
        parent.touch(self.now)

    def _lose_link(self, node: Leaf) -> None:
        node.links -= 1
        node.ctime = self.now
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

    def _settle(self, node: Child, parent: Directory) -> None:
        node.ctime = self.now
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
