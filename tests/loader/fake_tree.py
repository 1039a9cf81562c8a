"""A directory tree in memory, answered in pages as a metadata server does."""

import asyncio
from collections.abc import Mapping

from fs_common.layout import Layout
from fs_common.records.meta import Attributes, DirectoryEntry, FileType, ReaddirReply

LAYOUT = Layout(chunk_size=65536, stripe=4, table=1, table_version=7)


def attributes(inode: int, kind: FileType, length: int = 0, layout: Layout | None = None) -> Attributes:
    return Attributes(inode, kind, 0o644, 0, 0, 1, length, 0, 0, 0, layout)


class FakeTree:
    """`tree`: names to lengths (files), mappings (directories) or None (symbolic links)."""

    def __init__(
        self, tree: Mapping[bytes, object], page_size: int = 3, inodes: Mapping[bytes, int] | None = None
    ) -> None:
        """`inodes`: of files, by absolute path; the others are numbered from 2."""
        self._inodes = inodes or {}
        self._page_size = page_size
        self._directories: dict[int, list[DirectoryEntry]] = {}
        self._next_inode = 2
        self.pages = 0
        self.in_flight = 0
        self.in_flight_most = 0
        self._add(1, tree, b"/")

    def _add(self, inode: int, tree: Mapping[bytes, object], path: bytes) -> None:
        entries = self._directories[inode] = []
        for name in sorted(tree):
            value = tree[name]
            child = self._inodes.get(path + name, self._next_inode)
            self._next_inode += 1
            if isinstance(value, Mapping):
                kind, length, layout = FileType.DIRECTORY, 0, LAYOUT
                self._add(child, value, path + name + b"/")
            elif value is None:
                kind, length, layout = FileType.SYMLINK, 3, None
            else:
                assert isinstance(value, int)
                kind, length = FileType.FILE, value
                layout = Layout(65536 << child % 2, 4, 1, 7, child % 4, 2**63 + child)
            entries.append(DirectoryEntry(name, child, kind, attributes(child, kind, length, layout)))

    async def page(self, inode: int, after: bytes) -> ReaddirReply:
        self.pages += 1
        self.in_flight += 1
        self.in_flight_most = max(self.in_flight_most, self.in_flight)
        for _ in range(inode % 3):
            await asyncio.sleep(0)
        self.in_flight -= 1
        rest = [entry for entry in self._directories[inode] if entry.name > after]
        return ReaddirReply(rest[: self._page_size], len(rest) > self._page_size)

    def find(self, path: bytes) -> Attributes | None:
        """What is at an absolute path."""
        found = attributes(1, FileType.DIRECTORY, layout=LAYOUT)
        for part in path.strip(b"/").split(b"/") if path.strip(b"/") else []:
            entry = next((e for e in self._directories.get(found.inode, []) if e.name == part), None)
            if entry is None or entry.attributes is None:
                return None
            found = entry.attributes
        return found
