"""The files of a tree as columns: what a dataset needs to read sample i, without an object or a string for each file.

About 60 bytes a file, in a few NumPy arrays and two blobs of names: forked workers share them (reading an array
changes no reference counts, so no page is copied), spawned ones get them as one pickle of buffers.

Values; nothing here does I/O. `walk` builds them.
"""

import fnmatch
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fs_client.file_ref import FileRef
from fs_common.layout import Layout


@dataclass(frozen=True, slots=True)
class NameTable:
    """Byte strings, one after another in one blob."""

    offsets: NDArray[np.int64]
    """count + 1; string i is `blob[offsets[i]:offsets[i + 1]]`."""
    blob: bytes

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> bytes:
        return self.blob[self.offsets[i] : self.offsets[i + 1]]

    @classmethod
    def of(cls, names: Sequence[bytes]) -> "NameTable":
        lengths = np.fromiter(map(len, names), np.int64, len(names))
        return cls(np.concatenate(([0], np.cumsum(lengths))), b"".join(names))


@dataclass(frozen=True, slots=True)
class FileIndex:
    """Files in byte order of their paths. All columns have one element for each file; nobody writes to them."""

    inodes: NDArray[np.uint64]
    lengths: NDArray[np.int64]
    """Bytes."""
    layout_ids: NDArray[np.int32]
    """Element of `layouts`: files of one directory share one, but for where they start and their seed."""
    firsts: NDArray[np.int32]
    seeds: NDArray[np.uint64]
    layouts: tuple[Layout, ...]
    """Distinct layouts with `first` and `seed` 0."""
    directory_ids: NDArray[np.int32]
    """Element of `directories`."""
    directories: NameTable
    """Paths relative to the root; empty for the root itself."""
    names: NameTable
    """Within the directory."""

    def __len__(self) -> int:
        return len(self.inodes)

    @property
    def total_bytes(self) -> int:
        return int(np.sum(self.lengths))

    def path(self, i: int) -> bytes:
        """Relative to the root."""
        directory = self.directories[int(self.directory_ids[i])]
        return directory + b"/" + self.names[i] if directory else self.names[i]

    def refs(self, indices: NDArray[np.int64], holes: bool = False) -> list[FileRef]:
        """A file ref for each index, in order; see `FileRef.holes`."""
        layouts = self.layouts
        columns = (self.inodes, self.lengths, self.layout_ids, self.firsts, self.seeds)
        return [
            FileRef(inode, length, _at(layouts[layout], first, seed), holes)
            for inode, length, layout, first, seed in zip(
                *(column[indices].tolist() for column in columns), strict=True
            )
        ]


def _at(layout: Layout, first: int, seed: int) -> Layout:
    return Layout(layout.chunk_size, layout.stripe, layout.table, layout.table_version, first, seed, layout.durability)


@dataclass(frozen=True, slots=True)
class NameFilter:
    """Which files become samples."""

    suffixes: tuple[bytes, ...] = ()
    """Of the name, with the dot; empty: any. Compared as they are, so `.JPG` is not `.jpg`."""
    pattern: bytes | None = None
    """`fnmatch` pattern for the path relative to the root, where `*` also matches `/`; None: any."""

    def accepts(self, directory: bytes, name: bytes) -> bool:
        if self.suffixes and not name.endswith(self.suffixes):
            return False
        if self.pattern is None:
            return True
        return fnmatch.fnmatchcase(directory + b"/" + name if directory else name, self.pattern)


def name_filter(suffixes: str | Sequence[str] | None, pattern: str | None) -> NameFilter:
    """A filter from what a user writes: `".py"`, `(".jpg", ".jpeg")`, `"train/*/*.png"`."""
    if isinstance(suffixes, str):
        suffixes = (suffixes,)
    return NameFilter(
        tuple(os.fsencode(suffix) for suffix in suffixes or ()), None if pattern is None else os.fsencode(pattern)
    )
