"""All that is needed to read a file: inode, length, layout."""

from typing import TYPE_CHECKING, Any

from fs_common.layout import Layout
from fs_common.records.meta import Attributes

if TYPE_CHECKING:
    from fs_client.routing_cache import Plan


class FileRef:
    """Names a file without its path. Light, picklable, accepted by `read_ranges` wherever a file is.

    It reads the file as long as it was when the reference was made; later growth shows in a new reference.
    """

    __slots__ = ("holes", "inode", "layout", "length", "plan")

    def __init__(self, inode: int, length: int, layout: Layout, holes: bool = True) -> None:
        self.inode = inode
        self.length = length
        """Bytes. Reads end here."""
        self.layout = layout
        self.holes = holes
        """Whether what is missing inside the length reads as zeros. False: a range that misses bytes cannot be read
        (CHUNK_NOT_FOUND), so that a file that was cut since is not taken for one full of zeros. A file that was
        removed, and whose contents are not kept any more, is STALE in any case."""
        self.plan: Plan | None = None
        """Where its chunks are: a cache of the routing cache, valid while the plan's generation is the current one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (FileRef, (self.inode, self.length, self.layout, self.holes))

    def __repr__(self) -> str:
        return f"FileRef(inode={self.inode}, length={self.length})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FileRef):
            return NotImplemented
        return (self.inode, self.length, self.layout) == (other.inode, other.length, other.layout)

    def __hash__(self) -> int:
        return hash(self.inode)


def file_ref(attributes: Attributes) -> FileRef | None:
    """A reference to the file these attributes are of; None for a directory or symbolic link."""
    if attributes.type != 1 or attributes.layout is None:
        return None
    return FileRef(attributes.inode, attributes.length, attributes.layout)
