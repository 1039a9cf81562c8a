"""statfs: space of the cluster as its users see it."""

from fs_common.records.meta import Statfs, StatfsReply
from fs_common.records.routing import NodeState
from fs_meta.ops.context import Context


async def statfs(context: Context, request: Statfs) -> StatfsReply:
    """Logical space, replicas divided out, as the storage daemons last reported it; zeros before any did.

    A failed node's disks count: their data is still there, or will be made again elsewhere. The number of files is
    approximate (see `fs_meta.inode_count`).
    """
    routing = context.routing()
    nodes = [node for node in routing.nodes if node.state is not NodeState.LEFT] if routing is not None else []
    replicas = max(routing.replicas, 1) if routing is not None else 1
    capacity = sum(node.capacity_bytes for node in nodes)
    free = sum(max(node.capacity_bytes - node.used_bytes, 0) for node in nodes)
    return StatfsReply(capacity // replicas, free // replicas, context.inode_count.estimate, replicas)
