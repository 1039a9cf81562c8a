"""How much a mount remembers of inodes and names is bounded: over the bound the kernel is asked to forget some.

A node stays while the kernel refers to its inode, and the kernel refers to all that it has ever looked up until it
needs their memory itself. So what is known of trees that are listed would only grow. Over the bound go, in this order:
nodes that the kernel has given up; far over it, those that were fetched ahead of its requests; names that have no nodes
to go with them; and what the kernel has asked for least lately. It is asked to drop such inodes (PRUNE, Linux 6.18),
or, if it is older, names of files that are not open (INVAL_ENTRY; directories that processes are in would lose their
paths by it). Whatever it forgets it says, and the node goes.

Only what can be learned again goes: nothing that is open, removed, the root or of the control tree. The kernel does not
drop what programs have in use, and says nothing of it: where a round frees little the next ones are further apart.

`Bound` looks at a mount now and then (`Mount._tick`); the functions are pure.
"""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fs_client.fuse.nodes import FOREVER, Node, Nodes
from fs_common.records.meta import FileType

if TYPE_CHECKING:
    from fs_client.fuse.mount import Mount

NODE_BYTES = 750
"""About what a node takes, with its attributes and its places in tables."""
NAME_BYTES = 220
"""About what a name takes in `Names`."""
SLACK = 8
"""Each round makes this part (1 / SLACK) of the bound free, so that rounds are few. Names beyond those of known inodes
take as much at most."""
INODES_EACH = 512
"""Of one notification."""
ROUNDS_LEFT_OUT_MAX = 256
"""Between rounds that free nothing: most of a minute."""


def known_bytes(nodes: Nodes) -> int:
    """About the memory that all of it takes, or a little more."""
    return len(nodes.by_inode) * NODE_BYTES + nodes.names_about * NAME_BYTES


def count_names(nodes: Nodes) -> None:
    """Makes `known_bytes` exact. Costs what there is of directories."""
    nodes.names_about = sum(len(names.entries) for names in nodes.named.values())


def may_forget(nodes: Nodes, node: Node) -> bool:
    """The kernel may be asked to forget it: it can be learned again, and nothing here hangs on it."""
    return bool(node.lookups) and not _is_kept(nodes, node)


def _is_kept(nodes: Nodes, node: Node) -> bool:
    if node.file is not None or node.inode == nodes.root:
        return True
    return bool(node.lookups) if node.removed else node.expires == FOREVER


def drop_loose(nodes: Nodes, count: int, now: float) -> None:
    """Drop at most so many nodes that the kernel does not refer to, of those that it has given up, old or not. `now`:
    FOREVER: also those that were fetched ahead of it lately."""
    loose = nodes.loose
    for _ in range(len(loose)):
        if count <= 0 or loose[0][0] > now:
            return
        entry = loose.popleft()
        node = nodes.by_inode.get(entry[1])
        if node is None or node.lookups or node.file is not None:
            continue
        if _is_kept(nodes, node):
            loose.append(entry)
        else:
            nodes.drop(node)
            count -= 1


def drop_names(nodes: Nodes, count: int) -> list[tuple[int, bytes, int]]:
    """Drop at least so many names, directory by directory, first where nothing was listed for longest. Those that were
    dropped and exist: (directory, name, inode)."""
    dropped: list[tuple[int, bytes, int]] = []
    for directory, names in list(nodes.named.items()):
        if count <= 0:
            break
        before = names.entries
        names.forget()
        kept = names.entries
        count -= len(before) - len(kept)
        dropped += [(directory, name, found[0]) for name, found in before.items() if found[0] and name not in kept]
        nodes.named[directory] = nodes.named.pop(directory)
    count_names(nodes)
    return dropped


def least_used(nodes: Nodes, count: int) -> list[int]:
    """At most so many inodes that the kernel may be asked to forget, first those that it has asked for least lately.
    They, and those that it has asked for since they were looked at before, are the last to be looked at next time."""
    by_inode = nodes.by_inode
    chosen: list[int] = []
    passed: list[Node] = []
    for inode, node in by_inode.items():
        if len(chosen) >= count:
            break
        if not may_forget(nodes, node):
            continue
        passed.append(node)
        if node.lookups == node.seen:
            chosen.append(inode)
        node.seen = node.lookups
    for node in passed:
        del by_inode[node.inode]
        by_inode[node.inode] = node
    return chosen


def names_of_files(nodes: Nodes, names: list[tuple[int, bytes, int]]) -> Iterator[tuple[int, bytes]]:
    """Those by which the kernel may know what it may forget, but no directories: (directory, name)."""
    for directory, name, inode in names:
        node = nodes.by_inode.get(inode)
        if node is None or node.attributes is None or not may_forget(nodes, node):
            continue
        if node.attributes.type is not FileType.DIRECTORY:
            yield directory, name


class Bound:
    """Of one mount."""

    def __init__(self, mount: "Mount") -> None:
        self._mount = mount
        self._left_out = 0
        """Rounds to leave out."""
        self._pause = 0
        """Rounds that were left out after the last one."""
        self._asked = 0
        """How many the kernel was asked to forget last; 0: none since the bound was kept."""
        self._forgotten = 0
        """`Nodes.forgotten` then."""

    def look(self) -> None:
        """Called now and then. Costs nothing within the bound."""
        mount = self._mount
        nodes = mount.nodes
        bound = mount.policy.known_bytes
        if known_bytes(nodes) <= bound:
            self._asked = self._pause = self._left_out = 0
            return
        count_names(nodes)
        room = max(bound - bound // SLACK, 0)
        drop_loose(nodes, _things(nodes, room), mount.now())
        drop_loose(nodes, _things(nodes, bound + bound // SLACK), FOREVER)
        spare = nodes.names_about - len(nodes.by_inode) - bound // SLACK // NAME_BYTES
        if spare > 0:
            dropped = drop_names(nodes, spare)
            if not mount.channel.prunes:
                # Nothing is left by which the kernel could be told of them later.
                self._invalidate(dropped)
        wanted = _things(nodes, room)
        if not wanted or not mount.channel.told():
            return
        if self._left_out:
            self._left_out -= 1
            return
        if self._asked and nodes.forgotten - self._forgotten <= self._asked // SLACK:
            self._left_out = self._pause = min(2 * self._pause + 1, ROUNDS_LEFT_OUT_MAX)
        else:
            self._pause = 0
        self._asked, self._forgotten = wanted, nodes.forgotten
        self._ask(wanted)

    def _ask(self, count: int) -> None:
        """Have the kernel forget so many inodes."""
        channel = self._mount.channel
        nodes = self._mount.nodes
        if channel.prunes:
            inodes = iter(least_used(nodes, count))
            while some := list(itertools.islice(inodes, INODES_EACH)):
                channel.notify_prune(some)
        else:
            self._invalidate(drop_names(nodes, count))

    def _invalidate(self, names: list[tuple[int, bytes, int]]) -> None:
        for directory, name in names_of_files(self._mount.nodes, names):
            self._mount.channel.notify_inval_entry(directory, name)


def _things(nodes: Nodes, room: int) -> int:
    """How many inodes, each with a name, are more than there is room for."""
    return -(-max(known_bytes(nodes) - room, 0) // (NODE_BYTES + NAME_BYTES))
