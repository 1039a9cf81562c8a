"""Random operations on a directory tree, against a tree in memory that also knows how each call may fail.

One exerciser works in a directory of its own, through one mount at a time; it changes mounts only right after a full
comparison through the new one, when that has seen everything.
"""

import errno
import os
import random
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.posix import calls
from tests.posix.exerciser.player import Mismatch
from tests.posix.files import pattern

NAMES = ("a", "b", "c", "d", "long-" + "n" * 200, "\u00fc", " ", "x.y")
"""Few, so that they meet."""
DEPTH_MAX = 6
NODES_MAX = 400
STALE_S = 10.0
"""How long another mount may show what it saw before."""
_POLL_S = 0.05
_COMPARE_EVERY = 250


class Node:
    """A file, directory or symbolic link, with all that can be seen of it."""

    __slots__ = ("children", "data", "kind", "links", "mode", "parent", "target")

    def __init__(self, kind: int, mode: int, parent: "Node | None" = None) -> None:
        self.kind = kind
        self.mode = mode
        self.parent = parent
        """Of a directory."""
        self.children: dict[str, Node] = {}
        self.data = b""
        self.target = ""
        self.links = 1

    @property
    def is_directory(self) -> bool:
        return self.kind == stat.S_IFDIR

    def contains(self, other: "Node") -> bool:
        """Whether `other` is this directory or below it."""
        node: Node | None = other
        while node is not None:
            if node is self:
                return True
            node = node.parent
        return False


Place = tuple[Node, str]
"""A directory (or a file that is taken for one) and a name in it."""


class TreeExerciser:
    def __init__(self, places: Sequence[Path], name: str, seed: int) -> None:
        self._roots = [place / name for place in places]
        self._at = 0
        self._random = random.Random(seed)
        self._root = Node(stat.S_IFDIR, 0o755)
        self._log: list[str] = []
        self._count = 0
        self._roots[0].mkdir(0o755)
        self._counts_subdirectories = self._roots[0].stat().st_nlink == 2
        """Some file systems say 1 for every directory."""
        self._steps: list[tuple[Callable[[], None], int]] = [
            (self._create, 20),
            (self._mkdir, 14),
            (self._symlink, 6),
            (self._link, 10),
            (self._unlink, 14),
            (self._rmdir, 8),
            (self._rename, 30),
            (self._chmod, 6),
            (self._rewrite, 6),
            (self._look, 12),
            (self._list, 6),
        ]

    @property
    def log(self) -> list[str]:
        """The last calls, as text."""
        return self._log[-30:]

    def run(self, count: int, progress: Callable[[int], None] | None = None) -> None:
        """Raises Mismatch."""
        steps = [step for step, _ in self._steps]
        weights = [weight for _, weight in self._steps]
        for number in range(1, count + 1):
            self._random.choices(steps, weights)[0]()
            if number % _COMPARE_EVERY == 0:
                self.compare()
                if progress is not None:
                    progress(number)
        self.compare()

    def compare(self) -> None:
        """The whole tree, through every mount; the one that is looked through last is worked through next."""
        order = [*range(self._at, len(self._roots)), *range(self._at)]
        for index in order:
            deadline = time.monotonic() + (STALE_S if index != self._at else 0)
            while True:
                difference = self._difference(self._roots[index])
                if difference is None:
                    break
                if time.monotonic() >= deadline:
                    raise Mismatch(difference)
                time.sleep(_POLL_S)
        self._at = order[-1]
        self._log.append(f"# compared; now through {self._roots[self._at]}")

    # operations

    def _create(self) -> None:
        place = self._somewhere()
        mode, data = self._random.choice((0o644, 0o600, 0o755)), self._content()
        refusal = self._in_directory(place) or (errno.EEXIST if self._at_place(place) is not None else 0)

        def call(path: Path) -> None:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)

        if self._expect(refusal, "create", call, place):
            node = Node(stat.S_IFREG, mode)
            node.data = data
            self._put(place, node)

    def _mkdir(self) -> None:
        place = self._somewhere()
        mode = self._random.choice((0o755, 0o700, 0o777 & ~0o022))
        refusal = self._in_directory(place) or (errno.EEXIST if self._at_place(place) is not None else 0)
        if self._expect(refusal, "mkdir", lambda path: os.mkdir(path, mode), place):
            self._put(place, Node(stat.S_IFDIR, mode, place[0]))

    def _symlink(self) -> None:
        place = self._somewhere()
        target = self._random.choice(("nowhere", "../x", "/etc", "a", "t" * 900))
        refusal = self._in_directory(place) or (errno.EEXIST if self._at_place(place) is not None else 0)
        if self._expect(refusal, "symlink", lambda path: os.symlink(target, path), place):
            node = Node(stat.S_IFLNK, 0o777)
            node.target = target
            self._put(place, node)

    def _link(self) -> None:
        source, target = self._somewhere(), self._somewhere()
        node = self._at_place(source)
        refusal = self._in_directory(source) or (errno.ENOENT if node is None else 0) or self._in_directory(target)
        if not refusal and self._at_place(target) is not None:
            refusal = errno.EEXIST
        if not refusal and node is not None and node.is_directory:
            refusal = errno.EPERM
        if self._expect(refusal, "link", lambda old, new: os.link(old, new, follow_symlinks=False), source, target):
            assert node is not None
            node.links += 1
            self._put(target, node)

    def _unlink(self) -> None:
        place = self._somewhere()
        node = self._at_place(place)
        refusal = self._in_directory(place) or (errno.ENOENT if node is None else 0)
        if node is not None and node.is_directory:
            refusal = refusal or errno.EISDIR
        if self._expect(refusal, "unlink", os.unlink, place):
            self._take(place)

    def _rmdir(self) -> None:
        place = self._somewhere()
        node = self._at_place(place)
        refusal = self._in_directory(place) or (errno.ENOENT if node is None else 0)
        if node is not None and not refusal:
            refusal = errno.ENOTDIR if not node.is_directory else errno.ENOTEMPTY if node.children else 0
        if self._expect(refusal, "rmdir", os.rmdir, place):
            self._take(place)

    def _rename(self) -> None:
        source, target = self._somewhere(), self._somewhere()
        flags = self._random.choice((0, 0, 0, calls.RENAME_NOREPLACE, calls.RENAME_EXCHANGE))
        refusal = self._rename_refusal(source, target, flags)
        name = {0: "rename", calls.RENAME_NOREPLACE: "rename-noreplace", calls.RENAME_EXCHANGE: "exchange"}[flags]
        if not self._expect(refusal, name, lambda old, new: calls.renameat2(old, new, flags), source, target):
            return
        old, new = self._at_place(source), self._at_place(target)
        assert old is not None
        if old is new:
            return
        if flags == calls.RENAME_EXCHANGE:
            assert new is not None
            self._put(source, new)
            self._put(target, old)
            return
        if new is not None:
            self._take(target)
        del source[0].children[source[1]]
        self._put(target, old)

    def _rename_refusal(self, source: Place, target: Place, flags: int) -> int:
        """In the order in which Linux looks."""
        if refusal := self._in_directory(source) or self._in_directory(target):
            return refusal
        old, new = self._at_place(source), self._at_place(target)
        if old is None:
            return errno.ENOENT
        if flags == calls.RENAME_NOREPLACE and new is not None:
            return errno.EEXIST
        exchange = flags == calls.RENAME_EXCHANGE
        if exchange and new is None:
            return errno.ENOENT
        if old.is_directory and old.contains(target[0]):
            return errno.EINVAL
        if new is not None and new.is_directory and new.contains(source[0]):
            return errno.EINVAL if exchange else errno.ENOTEMPTY
        if new is None or new is old or exchange:
            return 0
        if old.is_directory and not new.is_directory:
            return errno.ENOTDIR
        if new.is_directory and not old.is_directory:
            return errno.EISDIR
        return errno.ENOTEMPTY if new.children else 0

    def _chmod(self) -> None:
        place = self._somewhere()
        node = self._at_place(place)
        if node is not None and node.kind == stat.S_IFLNK:
            return  # it would go through the link, out of this tree
        mode = self._random.choice((0o700, 0o755, 0o711, 0o1777, 0o640))
        if os.geteuid() != 0 and node is not None and node.is_directory:
            mode |= 0o700  # whoever is not root has to get in
        refusal = self._in_directory(place) or (errno.ENOENT if node is None else 0)
        if self._expect(refusal, "chmod", lambda path: os.chmod(path, mode), place):
            assert node is not None
            node.mode = mode

    def _rewrite(self) -> None:
        place = self._somewhere()
        node = self._at_place(place)
        if node is not None and node.kind == stat.S_IFLNK:
            return
        data = self._content()
        refusal = self._in_directory(place) or (
            errno.ENOENT if node is None else errno.EISDIR if node.is_directory else 0
        )

        def call(path: Path) -> None:
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)

        if self._expect(refusal, "rewrite", call, place):
            assert node is not None
            node.data = data

    def _look(self) -> None:
        place = self._somewhere()
        node = self._at_place(place)
        refusal = self._in_directory(place) or (errno.ENOENT if node is None else 0)
        found: list[os.stat_result] = []
        if self._expect(refusal, "lstat", lambda path: found.append(os.lstat(path)), place):
            assert node is not None
            if difference := self._status_difference(self._path(place), node, found[0]):
                raise Mismatch(difference)

    def _list(self) -> None:
        directory = self._random.choice(self._directories())
        path = self._directory_path(directory)
        self._log.append(f"listdir {path}")
        found = os.listdir(path)
        if sorted(found) != sorted(directory.children):
            raise Mismatch(f"{path}: has {sorted(found)}, expected {sorted(directory.children)}")

    # the model

    def _somewhere(self) -> Place:
        parent = self._random.choice(self._directories())
        if self._random.random() < 0.04:
            files = [node for node in parent.children.values() if node.kind == stat.S_IFREG]
            if files:
                return files[0], self._random.choice(NAMES)
        if parent.children and self._random.random() < 0.5:
            return parent, self._random.choice(list(parent.children))
        return parent, self._random.choice(NAMES)

    def _content(self) -> bytes:
        return pattern(self._random.choice((0, 1, 100, 5000)), self._random.randrange(200))

    def _directories(self) -> list[Node]:
        found = []
        waiting = [(self._root, 0)]
        while waiting and len(found) < NODES_MAX:
            node, depth = waiting.pop()
            found.append(node)
            if depth < DEPTH_MAX:
                waiting += [(child, depth + 1) for child in node.children.values() if child.is_directory]
        return found

    def _in_directory(self, place: Place) -> int:
        return 0 if place[0].is_directory else errno.ENOTDIR

    def _at_place(self, place: Place) -> Node | None:
        return place[0].children.get(place[1])

    def _put(self, place: Place, node: Node) -> None:
        place[0].children[place[1]] = node
        if node.is_directory:
            node.parent = place[0]

    def _take(self, place: Place) -> None:
        place[0].children.pop(place[1]).links -= 1

    def _directory_path(self, node: Node) -> Path:
        steps: list[str] = []
        while node.parent is not None:
            steps.append(next(name for name, child in node.parent.children.items() if child is node))
            node = node.parent
        return self._roots[self._at].joinpath(*reversed(steps))

    def _path(self, place: Place) -> Path:
        if place[0].is_directory:
            return self._directory_path(place[0]) / place[1]
        for parent in self._directories():
            for name, child in parent.children.items():
                if child is place[0]:
                    return self._directory_path(parent) / name / place[1]
        raise AssertionError("a node of the tree is in the tree")

    def _expect(self, refusal: int, name: str, call: Callable[..., object], *places: Place) -> bool:
        """Make the call; whether it worked. Raises Mismatch unless it did what the model says."""
        paths = [self._path(place) for place in places]
        expected = errno.errorcode[refusal] if refusal else "success"
        self._log.append(f"{name} {' '.join(map(str, paths))} -> {expected}")
        try:
            call(*paths)
        except OSError as error:
            if error.errno == refusal:
                return False
            raise Mismatch(f"{self._log[-1]}, but it is {errno.errorcode.get(error.errno or 0)}") from error
        if refusal:
            raise Mismatch(f"{self._log[-1]}, but it worked")
        return True

    # comparison

    def _difference(self, root: Path) -> str | None:
        return next(self._differences(root), None)

    def _differences(self, root: Path) -> Iterator[str]:
        inodes: dict[int, Node] = {}
        waiting = [(root, self._root)]
        while waiting:
            path, node = waiting.pop()
            try:
                found = {entry.name: entry for entry in os.scandir(path)}
            except OSError as error:
                yield f"{path}: {error}"
                continue
            if sorted(found) != sorted(node.children):
                yield f"{path}: has {sorted(found)}, expected {sorted(node.children)}"
                continue
            for name in NAMES:
                if name not in node.children and os.path.lexists(path / name):
                    yield f"{path / name}: is there, and is not listed"
            for name, child in node.children.items():
                try:
                    status = os.lstat(path / name)
                    if difference := self._status_difference(path / name, child, status):
                        yield difference
                    if found[name].inode() != status.st_ino:
                        yield f"{path / name}: readdir and lstat disagree about the inode"
                    if inodes.setdefault(status.st_ino, child) is not child:
                        yield f"{path / name}: two files have the inode {status.st_ino}"
                    if child.kind == stat.S_IFLNK and os.readlink(path / name) != child.target:
                        yield f"{path / name}: points to {os.readlink(path / name)}, expected {child.target}"
                    if child.kind == stat.S_IFREG and (path / name).read_bytes() != child.data:
                        yield f"{path / name}: its contents are not what was written"
                except OSError as error:
                    yield f"{path / name}: {error}"
                if child.is_directory:
                    waiting.append((path / name, child))

    def _status_difference(self, path: Path, node: Node, status: os.stat_result) -> str | None:
        if stat.S_IFMT(status.st_mode) != node.kind:
            return f"{path}: is of type {stat.S_IFMT(status.st_mode):o}, expected {node.kind:o}"
        if stat.S_IMODE(status.st_mode) != node.mode:
            return f"{path}: has mode {stat.S_IMODE(status.st_mode):o}, expected {node.mode:o}"
        if node.is_directory:
            links = (
                2 + sum(child.is_directory for child in node.children.values()) if self._counts_subdirectories else 1
            )
        else:
            links = node.links
        if status.st_nlink != links:
            return f"{path}: has {status.st_nlink} links, expected {links}"
        if node.kind == stat.S_IFREG and status.st_size != len(node.data):
            return f"{path}: is {status.st_size} bytes long, expected {len(node.data)}"
        return None
