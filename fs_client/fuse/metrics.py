"""Figures of a mount for Prometheus: what `emberfs stats` shows.

Called by: `pages`, on the mount's loop. Names: `fs_common.metric_families`.
"""

from fs_client.fuse.abi import Opcode
from fs_client.fuse.mount import Mount
from fs_common import metric_families as families
from fs_common.metrics import Figures, gather_process
from fs_common.slow_operations import SlowOperations


def gather_mount(figures: Figures, mount: Mount, slow: SlowOperations) -> None:
    cluster = mount.fs.routing.routing.cluster
    gather_process(figures, role="mount", cluster=cluster, node=0, slow_operations=slow)
    mount.fs.transport.gather(figures)
    counters = mount.channel.counters
    for number, operation in enumerate(counters.operations):
        if operation.count:
            name = Opcode(number).name.lower()
            figures.add(families.MOUNT_OPERATIONS, operation.count, name)
            figures.add(families.MOUNT_ERRORS, operation.errors, name)
            figures.add_buckets(families.MOUNT_LATENCY, operation.buckets, operation.total_ns, name)
    figures.add(families.MOUNT_IN_WORK, mount.channel.in_work)
    figures.add(families.MOUNT_GAVE_UP, counters.gave_up)
    figures.add(families.MOUNT_NODES, len(mount.nodes.by_inode))
    figures.add(families.MOUNT_OPEN, len(mount.handles.files), "files")
    figures.add(families.MOUNT_OPEN, len(mount.handles.directories), "directories")
    figures.add(families.MOUNT_DIRTY, mount.dirty.held)
    figures.add(families.MOUNT_CACHE, mount.cache.held)
    figures.add(families.MOUNT_CACHE_HITS, mount.cache.hits)
    figures.add(families.MOUNT_CACHE_MISSES, mount.cache.misses)
    figures.add(families.MOUNT_LOST, mount.lost_bytes)
