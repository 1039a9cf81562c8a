"""Which length of a file the kernel may believe, as far as this daemon can know: what tells an append from a write.

A WRITE with O_APPEND among its flags goes to the file's end, wherever that is by now. With RWF_NOAPPEND it has the same
flags and goes where the program said. The kernel puts an append at the end that it believes in, so an offset that
cannot be that end is the program's own.

The kernel learns a length by answers (attributes, entries), by its own writes, and by truncating. An answer that
crosses one of its writes is not taken, so of the last two lengths it was told either may count until one is confirmed:
told again, or used. In doubt it is an append: that never puts bytes over others.

Pure.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fs_client.fuse.nodes import Node


def told(node: "Node", size: int) -> None:
    """An answer names `size`."""
    sizes = node.sizes
    if sizes != (size,):
        node.sizes = (size,) if not sizes or sizes[0] == size else (size, sizes[0])


def wrote(node: "Node", offset: int, size: int) -> None:
    """The kernel's own write (or the like), as it was asked for, will have an answer."""
    if size and node.sizes:
        end = offset + size
        first = max(node.sizes[0], end)
        last = max(node.sizes[-1], end)
        node.sizes = (first,) if first == last else (first, last)


def cut(node: "Node", size: int) -> None:
    """The kernel's own truncate has this answer."""
    node.sizes = (size,)


def appends(node: "Node", offset: int) -> bool:
    """Whether a WRITE with O_APPEND at `offset` is an append."""
    if node.sizes and offset not in node.sizes:
        return False
    node.sizes = (offset,)
    return True
