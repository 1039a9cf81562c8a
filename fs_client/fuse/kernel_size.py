"""Which length of a file the kernel may believe, as far as this daemon can know: what tells an append from a write.

A WRITE with O_APPEND among its flags goes to the file's end, wherever that is by now. With RWF_NOAPPEND it has the same
flags and goes where the program said. The kernel puts an append at the end that it believes in, so an offset that
cannot be that end is the program's own.

The kernel learns a length by answers (attributes, entries), by its own writes, and by truncating. An answer that
crosses one of its writes is not taken, and which ones did nobody tells: so every length that it was told may count
until one is confirmed by a write there or a truncate. Its own writes bring them together again; they differ only while
other clients change the file. In doubt it is an append: that never puts bytes over others.

Pure.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fs_client.fuse.nodes import Node

KEPT_MAX = 8
"""Lengths, the newest first. More answers than that do not cross one write."""


def told(node: "Node", size: int) -> None:
    """An answer names `size`."""
    if node.sizes[:1] != (size,):
        node.sizes = (size, *(other for other in node.sizes if other != size))[:KEPT_MAX]


def wrote(node: "Node", offset: int, size: int) -> None:
    """The kernel's own write (or the like), as it was asked for, will have an answer."""
    sizes = node.sizes
    if size and sizes:
        end = offset + size
        if len(sizes) == 1:
            if end > sizes[0]:
                node.sizes = (end,)
        else:
            node.sizes = tuple(dict.fromkeys(max(other, end) for other in sizes))


def cut(node: "Node", size: int) -> None:
    """The kernel's own truncate has this answer."""
    node.sizes = (size,)


def appends(node: "Node", offset: int) -> bool:
    """Whether a WRITE with O_APPEND at `offset` is an append."""
    if node.sizes and offset not in node.sizes:
        return False
    node.sizes = (offset,)
    return True
