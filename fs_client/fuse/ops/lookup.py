"""LOOKUP, FORGET, BATCH_FORGET."""

from collections.abc import Coroutine, Mapping
from typing import Any

from fs_client.fuse import abi, requests, shown
from fs_client.fuse.abi import Opcode
from fs_client.fuse.kernel_request import Handler, Request, Result
from fs_client.fuse.look_ahead import LookAhead
from fs_client.fuse.mount import Mount
from fs_client.fuse.nodes import FOREVER, Node
from fs_common.errors import Code, EmberError
from fs_common.limits import NAME_BYTES_MAX


def handlers(mount: Mount) -> Mapping[int, Handler]:
    nodes = mount.nodes
    ahead = LookAhead(mount)
    checked = mount.policy.kernel_checks

    def lookup(request: Request) -> bytes | Coroutine[Any, Any, Result]:
        """ENOENT is told as an entry of inode 0, which the kernel may believe for a while."""
        name = requests.parse_lookup(request.body)
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
