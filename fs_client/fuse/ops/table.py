"""All operations of a mount."""

import errno
import os
from collections.abc import Callable
from typing import Any

from fs_client.fuse.abi import Opcode
from fs_client.fuse.control import FIRST, Control
from fs_client.fuse.kernel_request import Handler, Request, Result
from fs_client.fuse.mount import Mount
from fs_client.fuse.ops import attributes, data, directories, locking, lookup, misc, names, opening, space, xattrs
from fs_client.fuse.requests import Rename2, parse_rename, parse_rename2


def all_handlers(mount: Mount) -> dict[int, Handler]:
    handlers: dict[int, Handler] = {}
    for group in (lookup, attributes, names, directories, opening, data, space, xattrs, locking, misc):
        handlers.update(group.handlers(mount))
    if mount.policy.dataset:
        handlers.update(dict.fromkeys((*_REFUSED, Opcode.SYMLINK, Opcode.RENAME, Opcode.RENAME2), _of_data_sets))
    if mount.control is not None:
        for opcode, handler in control_handlers(mount.control, handlers).items():
            handlers[opcode] = handler
    return handlers


_REFUSED = (
    Opcode.SETATTR,
    Opcode.MKNOD,
    Opcode.MKDIR,
    Opcode.LINK,
    Opcode.UNLINK,
    Opcode.RMDIR,
    Opcode.CREATE,
    Opcode.TMPFILE,
    Opcode.SETXATTR,
    Opcode.REMOVEXATTR,
    Opcode.IOCTL,
)
"""What nobody does to the control directory. (What the mount does to files goes by handles that are not its own.)"""


def _of_data_sets(request: Request) -> Result:
    """The kernel lets nobody so far while it is mounted read-only; root can mount it again otherwise."""
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def control_handlers(control: Control, handlers: dict[int, Handler]) -> dict[int, Handler]:
    """Handlers that look first whether a request is for `.emberfs`. Not READ: its handler asks `control` for handles
    that it does not know."""

    def refuse(request: Request) -> Result:
        raise OSError(errno.EPERM, "it belongs to the mount itself")

    def choose(ours: Handler, others: Handler) -> Handler:
        return lambda request: ours(request) if request.node >= FIRST else others(request)

    def choose_target(ours: Callable[[Request, Rename2], Any], others: Handler, parse: Any) -> Handler:
        def rename(request: Request) -> Any:
            asked = parse(request.body)
            if request.node >= FIRST or asked.newdir >= FIRST:
                return ours(request, asked)
            return others(request)

        return rename

    chosen: dict[int, Handler] = {opcode: choose(refuse, handlers[opcode]) for opcode in _REFUSED}
    chosen[Opcode.OPEN] = choose(control.open, handlers[Opcode.OPEN])
    chosen[Opcode.FLUSH] = choose(lambda request: None, handlers[Opcode.FLUSH])
    chosen[Opcode.RELEASE] = choose(control.release, handlers[Opcode.RELEASE])
    chosen[Opcode.SYMLINK] = choose(control.symlink, handlers[Opcode.SYMLINK])
    chosen[Opcode.RENAME] = choose_target(control.rename_into, handlers[Opcode.RENAME], parse_rename)
    chosen[Opcode.RENAME2] = choose_target(control.rename_into, handlers[Opcode.RENAME2], parse_rename2)
    return chosen
