"""What programs had written and could not be stored, in the log: one line for each file, however many writes it was.

A file's name is looked for among those that the mount knows; a file without one is told by its inode.
"""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fs_client.fuse.files import File
    from fs_client.fuse.mount import Mount
    from fs_client.fuse.nodes import Nodes

logger = logging.getLogger(__name__)


def name_of(nodes: "Nodes", inode: int) -> str:
    """How a message calls an inode."""
    for node in nodes.by_inode.values():
        if node.directory is not None:
            for name, (child, _) in node.directory.entries.items():
                if child == inode:
                    return f"inode {inode} ({name.decode(errors='backslashreplace')!r})"
    return f"inode {inode}"


def report(mount: "Mount", file: "File") -> None:
    """What of the file was lost since it was reported last."""
    if file.lost_bytes:
        logger.error(
            "%s: %d bytes that programs had written were lost: %s",
            name_of(mount.nodes, file.inode),
            file.lost_bytes,
            file.error,
        )
        mount.lost_bytes += file.lost_bytes
        file.lost_bytes = 0
