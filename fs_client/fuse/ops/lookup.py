"""LOOKUP, FORGET, BATCH_FORGET.

File handles (`open_by_handle_at`, NFS): a handle is an inode's number, which nothing else ever has. What the kernel
does not know any more, or was never told by this daemon, it looks up as `.` of that number; to find a directory's place
it looks up `..`, up to the root. Only who may use handles comes here by them, so nobody's permission is asked for, as
on a local file system.
"""

from collections.abc import Coroutine, Mapping
from typing import Any

from fs_client.fuse import abi, requests, shown
from fs_client.fuse.abi import ROOT_NODE, Opcode
from fs_client.fuse.control import FIRST
from fs_client.fuse.kernel_request import Handler, Request, Result
from fs_client.fuse.look_ahead import LookAhead
from fs_client.fuse.mount import Mount
from fs_client.fuse.nodes import FOREVER, Node
from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE
from fs_common.limits import NAME_BYTES_MAX
from fs_common.records.meta import FileType

_DOTS = (b".", b"..")


def handlers(mount: Mount) -> Mapping[int, Handler]:
    nodes = mount.nodes
    ahead = LookAhead(mount)
    checked = mount.policy.kernel_checks

    def lookup(request: Request) -> bytes | Coroutine[Any, Any, Result]:
        """ENOENT is told as an entry of inode 0, which the kernel may believe for a while."""
        name = requests.parse_lookup(request.body)
        if name in _DOTS:
            return by_number(request.node, name)
        if len(name) > NAME_BYTES_MAX:
            # The kernel's own bound is higher.
            raise EmberError(Code.NAME_TOO_LONG, f"a name of {len(name)} bytes")
        parent = request.node
        now = mount.now()
        found = nodes.find(parent, name, now)
        if found is not None and (checked or mount.answers_from_memory(request) or found[1] == FOREVER):
            inode, until = found
            if not inode:
                return shown.no_entry(until, now)
            node = nodes.by_inode.get(inode)
            if node is not None and nodes.fresh(node, now):
                node.lookups += 1
                return shown.entry(node, until, now)
        return miss(request, parent, name)

    async def miss(request: Request, parent: int, name: bytes) -> Result:
        try:
            node, until = await ahead.lookup(request, parent, name)
        except EmberError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            now = mount.now()
            return shown.no_entry(now + nodes.absent_s, now)
        node.lookups += 1
        return shown.entry(node, until, mount.now())

    async def by_number(inode: int, name: bytes) -> Result:
        """`.` of any inode, `..` of a directory. Raises STALE: it is gone, or not in the directory that is mounted."""
        node = await there_is(inode)
        if name == b"..":
            assert node.attributes is not None
            if node.attributes.type is not FileType.DIRECTORY:
                raise EmberError(Code.NOT_DIRECTORY, f"inode {inode} is not a directory")
            node = await there_is(mount.root if inode == mount.root else node.attributes.parent)
        elif inode == mount.root:
            raise EmberError(Code.STALE, "the root has another number here")
        node.lookups += 1
        now = mount.now()
        return shown.entry(node, now, now, ROOT_NODE if node.inode == mount.root else node.inode)

    async def there_is(inode: int) -> Node:
        ours = inode in nodes.by_inode if inode >= FIRST else inode > 0
        above = inode == ROOT_INODE and inode != mount.root
        if above or not ours:
            raise EmberError(Code.STALE, f"inode {inode} is not in the directory that is mounted")
        node = await mount.attributes(inode)
        assert node.attributes is not None
        if node.file is None and (node.removed or not node.attributes.links):
            raise EmberError(Code.STALE, f"inode {inode} was removed")
        return node

    def forget(request: Request) -> None:
        nodes.forget(request.node, requests.parse_forget(request.body), mount.now())

    def batch_forget(request: Request) -> None:
        now = mount.now()
        for inode, count in abi.FORGET_ONE.iter_unpack(memoryview(request.body)[abi.BATCH_FORGET_IN.size :]):
            nodes.forget(inode, count, now)

    return {Opcode.LOOKUP: lookup, Opcode.FORGET: forget, Opcode.BATCH_FORGET: batch_forget}


def new_entry(mount: Mount, node: Node) -> bytes:
    """The entry of what this mount just made; counts the look-up."""
    now = mount.now()
    node.lookups += 1
    return shown.entry(node, now + mount.nodes.name_s, now)
