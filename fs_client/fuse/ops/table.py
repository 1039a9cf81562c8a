"""All operations of a mount."""

from fs_client.fuse.kernel_request import Handler
from fs_client.fuse.mount import Mount
from fs_client.fuse.ops import attributes, data, directories, locking, lookup, misc, names, opening, space, xattrs


def all_handlers(mount: Mount) -> dict[int, Handler]:
    handlers: dict[int, Handler] = {}
    for group in (lookup, attributes, names, directories, opening, data, space, xattrs, locking, misc):
        handlers.update(group.handlers(mount))
    return handlers
