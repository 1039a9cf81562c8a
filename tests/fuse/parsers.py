"""Which parser reads which operation's body."""

from collections.abc import Callable, Mapping
from typing import Any

from fs_client.fuse import requests
from fs_client.fuse.abi import Opcode
from fs_client.fuse.requests import Body

PARSERS: Mapping[Opcode, Callable[[Body], Any]] = {
    Opcode.LOOKUP: requests.parse_lookup,
    Opcode.FORGET: requests.parse_forget,
    Opcode.GETATTR: requests.parse_getattr,
    Opcode.SETATTR: requests.parse_setattr,
    Opcode.READLINK: requests.parse_nothing,
    Opcode.SYMLINK: requests.parse_symlink,
    Opcode.MKNOD: requests.parse_mknod,
    Opcode.MKDIR: requests.parse_mkdir,
    Opcode.UNLINK: requests.parse_unlink,
    Opcode.RMDIR: requests.parse_rmdir,
    Opcode.RENAME: requests.parse_rename,
    Opcode.LINK: requests.parse_link,
    Opcode.OPEN: requests.parse_open,
    Opcode.READ: requests.parse_read,
    Opcode.WRITE: requests.parse_write,
    Opcode.STATFS: requests.parse_nothing,
    Opcode.RELEASE: requests.parse_release,
    Opcode.FSYNC: requests.parse_fsync,
    Opcode.SETXATTR: lambda body: requests.parse_setxattr(body, extended=True),
    Opcode.GETXATTR: requests.parse_getxattr,
    Opcode.LISTXATTR: requests.parse_listxattr,
    Opcode.REMOVEXATTR: requests.parse_removexattr,
    Opcode.FLUSH: requests.parse_flush,
    Opcode.INIT: requests.parse_init,
    Opcode.OPENDIR: requests.parse_open,
    Opcode.READDIR: requests.parse_read,
    Opcode.RELEASEDIR: requests.parse_release,
    Opcode.FSYNCDIR: requests.parse_fsync,
    Opcode.GETLK: requests.parse_lock,
    Opcode.SETLK: requests.parse_lock,
    Opcode.SETLKW: requests.parse_lock,
    Opcode.ACCESS: requests.parse_access,
    Opcode.CREATE: requests.parse_create,
    Opcode.INTERRUPT: requests.parse_interrupt,
    Opcode.BMAP: requests.parse_bmap,
    Opcode.DESTROY: requests.parse_nothing,
    Opcode.IOCTL: requests.parse_ioctl,
    Opcode.POLL: requests.parse_poll,
    Opcode.NOTIFY_REPLY: requests.parse_retrieved,
    Opcode.BATCH_FORGET: requests.parse_batch_forget,
    Opcode.FALLOCATE: requests.parse_fallocate,
    Opcode.READDIRPLUS: requests.parse_read,
    Opcode.RENAME2: requests.parse_rename2,
    Opcode.LSEEK: requests.parse_lseek,
    Opcode.COPY_FILE_RANGE: requests.parse_copy_file_range,
    Opcode.SYNCFS: requests.parse_nothing,
    Opcode.TMPFILE: requests.parse_create,
    Opcode.STATX: requests.parse_statx,
    Opcode.COPY_FILE_RANGE_64: requests.parse_copy_file_range,
}
"""Every operation that the file system can be asked for. Mapping memory (DAX) is not among them."""
