"""Directories that another client has removed while programs here are in them, or have them open.

To a program such a directory is what it is on a local file system: empty, without links, and nothing can be made in it
(ENOENT). But the kernel may also have come to it by a name that it believes and that leads elsewhere by now. So the
first answer about it is ESTALE, which makes the kernel look the path's names up again. If the same thread comes to it a
second time no name was in between: it is gone for everybody. What is asked of an open directory, its entries or its
attributes, is not asked by names.

Used on the event loop only.
"""

from collections import deque

from fs_client.fuse.abi import Opcode
from fs_client.fuse.nodes import FOREVER, Nodes
from fs_common.records.meta import FileType

SEEN_MAX = 256
"""Threads and directories that are remembered between the two answers."""
IN_DIRECTORY = frozenset(
    {
        Opcode.LOOKUP,
        Opcode.CREATE,
        Opcode.MKDIR,
        Opcode.MKNOD,
        Opcode.SYMLINK,
        Opcode.TMPFILE,
        Opcode.UNLINK,
        Opcode.RMDIR,
    }
)
"""Requests of which nothing but the directory can be gone."""


class Gone:
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._seen: deque[tuple[int, int]] = deque(maxlen=SEEN_MAX)
        """(thread, inode) that was told ESTALE."""

    def again(self, pid: int, inode: int) -> bool:
        """The service says to this thread that it does not know the inode. Whether it is a directory that is gone for
        the program, too; else it has to be ESTALE."""
        node = self._nodes.by_inode.get(inode)
        if node is None or node.attributes is None or node.attributes.type is not FileType.DIRECTORY:
            return False
        if not node.removed:
            if (pid, inode) not in self._seen:
                self._seen.append((pid, inode))
                return False
            self._seen.remove((pid, inode))
            self.is_gone(inode)
        return True

    def is_gone(self, inode: int) -> None:
        """It is. What is known of it now is all there will be."""
        node = self._nodes.node(inode)
        node.removed = True
        node.expires = FOREVER
