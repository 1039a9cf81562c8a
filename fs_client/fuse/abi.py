"""The kernel's FUSE protocol in numbers: structures, operations and flags of versions 7.31 to 7.45.

Every structure is declared once, by its fields in order, and its size is checked when this module is imported.
Integers are in the byte order of the machine; structures have no gaps but those that are written here.

A message to us is `IN_HEADER`, the operation's structure, then names (each with its NUL) or data, then extensions. A
message to the kernel is `OUT_HEADER`, then the answer's structure or data; a notification is the same with `unique` 0
and its code in place of the error.

Facts: the kernel's interface header. What came after 7.31 says so. Pure.
"""

import enum
import struct
from typing import Final

VERSION_MAJOR: Final = 7
MINOR_MIN: Final = 31
"""Linux 5.4. Older kernels are refused: the structures below would have other sizes."""
MINOR_MAX: Final = 45
"""Linux 6.18."""

ROOT_ID: Final = 1
READ_BUFFER_MIN: Final = 8192
"""The kernel refuses to hand a request to a reader with less room, or with less than a full WRITE needs."""
UNIQUE_RESEND: Final = 1 << 63
"""In `unique`: this request was sent before, to a reader that is gone (7.40)."""
NO_ID: Final = 2**32 - 1
"""A user or group that has no number here."""


class Opcode(enum.IntEnum):
    """Operations. FORGET, BATCH_FORGET, INTERRUPT and NOTIFY_REPLY get no answer."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    """7.34."""
    TMPFILE = 51
    """7.37."""
    STATX = 52
    """7.39."""
    COPY_FILE_RANGE_64 = 53
    """7.45."""


OPCODE_MAX: Final = max(Opcode)

UNANSWERED: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY})


class Notify(enum.IntEnum):
    """What we tell the kernel without being asked."""

    POLL = 1
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    RETRIEVE = 5
    DELETE = 6
    RESEND = 7
    """7.40."""
    INC_EPOCH = 8
    """7.44."""
    PRUNE = 9
    """7.45."""


# INIT: what the kernel can do, and what of it we want. Bits from 32 up travel in `flags2`.
INIT_ASYNC_READ: Final = 1 << 0
INIT_POSIX_LOCKS: Final = 1 << 1
INIT_FILE_OPS: Final = 1 << 2
INIT_ATOMIC_O_TRUNC: Final = 1 << 3
INIT_EXPORT_SUPPORT: Final = 1 << 4
INIT_BIG_WRITES: Final = 1 << 5
INIT_DONT_MASK: Final = 1 << 6
INIT_SPLICE_WRITE: Final = 1 << 7
INIT_SPLICE_MOVE: Final = 1 << 8
INIT_SPLICE_READ: Final = 1 << 9
INIT_FLOCK_LOCKS: Final = 1 << 10
INIT_HAS_IOCTL_DIR: Final = 1 << 11
INIT_AUTO_INVAL_DATA: Final = 1 << 12
INIT_DO_READDIRPLUS: Final = 1 << 13
INIT_READDIRPLUS_AUTO: Final = 1 << 14
INIT_ASYNC_DIO: Final = 1 << 15
INIT_WRITEBACK_CACHE: Final = 1 << 16
INIT_NO_OPEN_SUPPORT: Final = 1 << 17
INIT_PARALLEL_DIROPS: Final = 1 << 18
INIT_HANDLE_KILLPRIV: Final = 1 << 19
INIT_POSIX_ACL: Final = 1 << 20
INIT_ABORT_ERROR: Final = 1 << 21
INIT_MAX_PAGES: Final = 1 << 22
INIT_CACHE_SYMLINKS: Final = 1 << 23
INIT_NO_OPENDIR_SUPPORT: Final = 1 << 24
INIT_EXPLICIT_INVAL_DATA: Final = 1 << 25
INIT_MAP_ALIGNMENT: Final = 1 << 26
INIT_SUBMOUNTS: Final = 1 << 27  # 7.32
INIT_HANDLE_KILLPRIV_V2: Final = 1 << 28  # 7.33
INIT_SETXATTR_EXT: Final = 1 << 29  # 7.33
INIT_INIT_EXT: Final = 1 << 30  # 7.36
INIT_SECURITY_CTX: Final = 1 << 32  # 7.36
INIT_HAS_INODE_DAX: Final = 1 << 33  # 7.36
INIT_CREATE_SUPP_GROUP: Final = 1 << 34  # 7.38
INIT_HAS_EXPIRE_ONLY: Final = 1 << 35  # 7.38
INIT_DIRECT_IO_ALLOW_MMAP: Final = 1 << 36  # 7.39
INIT_PASSTHROUGH: Final = 1 << 37  # 7.40
INIT_NO_EXPORT_SUPPORT: Final = 1 << 38  # 7.40
INIT_HAS_RESEND: Final = 1 << 39  # 7.40
INIT_ALLOW_IDMAP: Final = 1 << 40  # 7.41
INIT_OVER_IO_URING: Final = 1 << 41  # 7.42
INIT_REQUEST_TIMEOUT: Final = 1 << 42  # 7.43

INIT_NAMES: Final = {
    value: name.removeprefix("INIT_").lower()
    for name, value in list(globals().items())
    if name.startswith("INIT_") and isinstance(value, int)
}
"""Bit -> the word for it in logs and statistics."""

# SETATTR: which fields count.
FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_FH: Final = 1 << 6
FATTR_ATIME_NOW: Final = 1 << 7
FATTR_MTIME_NOW: Final = 1 << 8
FATTR_LOCKOWNER: Final = 1 << 9
FATTR_CTIME: Final = 1 << 10
FATTR_KILL_SUIDGID: Final = 1 << 11  # 7.33

# Answers to OPEN, CREATE and OPENDIR.
FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_NONSEEKABLE: Final = 1 << 2
FOPEN_CACHE_DIR: Final = 1 << 3
FOPEN_STREAM: Final = 1 << 4
FOPEN_NOFLUSH: Final = 1 << 5  # 7.35
FOPEN_PARALLEL_DIRECT_WRITES: Final = 1 << 6  # 7.38
FOPEN_PASSTHROUGH: Final = 1 << 7  # 7.40

ROOT_NODE: Final = 1
"""The kernel's number for the root of every mount."""
OPEN_KILL_SUIDGID: Final = 1 << 0  # `open_flags` of OPEN and CREATE; 7.33
RELEASE_FLUSH: Final = 1 << 0
RELEASE_FLOCK_UNLOCK: Final = 1 << 1
GETATTR_FH: Final = 1 << 0
LK_FLOCK: Final = 1 << 0
WRITE_CACHE: Final = 1 << 0
"""Pages that the kernel kept: the handle and the lock owner are any that may write."""
WRITE_LOCKOWNER: Final = 1 << 1
WRITE_KILL_SUIDGID: Final = 1 << 2
READ_LOCKOWNER: Final = 1 << 1
IOCTL_COMPAT: Final = 1 << 0
IOCTL_UNRESTRICTED: Final = 1 << 1
IOCTL_RETRY: Final = 1 << 2
IOCTL_32BIT: Final = 1 << 3
IOCTL_DIR: Final = 1 << 4
IOCTL_COMPAT_X32: Final = 1 << 5
POLL_SCHEDULE_NOTIFY: Final = 1 << 0
FSYNC_FDATASYNC: Final = 1 << 0
ATTR_SUBMOUNT: Final = 1 << 0  # 7.32
ATTR_DAX: Final = 1 << 1  # 7.36
SETXATTR_ACL_KILL_SGID: Final = 1 << 0  # 7.33
EXPIRE_ONLY: Final = 1 << 0  # INVAL_ENTRY; 7.38
EXT_SECURITY_MAX: Final = 31
"""Extension types up to here count security contexts."""
EXT_GROUPS: Final = 32  # 7.38

DEVICE_IOCTL_CLONE: Final = 0x8004E500
"""On a second /dev/fuse: serve the connection of the descriptor it is given."""


class Layout(struct.Struct):
    """A structure of the protocol. `fields` are the names of what packing takes and unpacking gives, in order."""

    def __init__(self, name: str, size: int, declaration: str) -> None:
        """`declaration`: "CODE NAME, CODE NAME, ..." with the codes of `struct`; padding ("4x") has no name."""
        parts = [part.split() for part in declaration.split(",")]
        super().__init__("=" + "".join(part[0] for part in parts))
        self.name = name
        self.fields = tuple(part[1] for part in parts if len(part) == 2)
        self.ends = _ends([(part[0], part[1] if len(part) == 2 else "") for part in parts])
        if self.size != size:
            raise AssertionError(f"{name} is declared with {self.size} bytes; the kernel's has {size}")

    def field_at(self, available: int) -> str:
        """The first field that does not fit into so many bytes: for messages about short requests."""
        return next((name for name, end in self.ends if end > available), "end")


def _ends(parts: list[tuple[str, str]]) -> tuple[tuple[str, int], ...]:
    ends = []
    position = 0
    for code, name in parts:
        position += struct.calcsize("=" + code)
        ends.append((name or "padding", position))
    return tuple(ends)


IN_HEADER = Layout(
    "fuse_in_header",
    40,
    "I len, I opcode, Q unique, Q nodeid, I uid, I gid, I pid, H total_extlen, 2x",
)
"""`total_extlen` counts the extensions at the message's end in units of 8 bytes (7.38; 0 before)."""
OUT_HEADER = Layout("fuse_out_header", 16, "I len, i error, Q unique")

# Seconds are declared unsigned in the header and used as signed: times before 1970 have a negative number.
_ATTR = (
    "Q ino, Q size, Q blocks, q atime, q mtime, q ctime, I atimensec, I mtimensec, I ctimensec,"
    " I mode, I nlink, I uid, I gid, I rdev, I blksize, I flags"
)
ATTR = Layout("fuse_attr", 88, _ATTR)
ENTRY_OUT = Layout(
    "fuse_entry_out less its fuse_attr",
    40,
    "Q nodeid, Q generation, Q entry_valid, Q attr_valid, I entry_valid_nsec, I attr_valid_nsec",
)
ENTRY_OUT_SIZE: Final = ENTRY_OUT.size + ATTR.size
ATTR_OUT = Layout("fuse_attr_out less its fuse_attr", 16, "Q attr_valid, I attr_valid_nsec, 4x")
STATX_OUT = Layout("fuse_statx_out less its fuse_statx", 32, "Q attr_valid, I attr_valid_nsec, I flags, 16x")
STATX = Layout(
    "fuse_statx",
    256,
    "I mask, I blksize, Q attributes, I nlink, I uid, I gid, H mode, 2x, Q ino, Q size, Q blocks, Q attributes_mask,"
    " q atime, I atimensec, 4x, q btime, I btimensec, 4x, q ctime, I ctimensec, 4x, q mtime, I mtimensec, 4x,"
    " I rdev_major, I rdev_minor, I dev_major, I dev_minor, 112x",
)
STATFS_OUT = Layout(
    "fuse_kstatfs",
    80,
    "Q blocks, Q bfree, Q bavail, Q files, Q ffree, I bsize, I namelen, I frsize, 4x, 24x",
)
FILE_LOCK = Layout("fuse_file_lock", 24, "Q start, Q end, I type, I pid")

FORGET_IN = Layout("fuse_forget_in", 8, "Q nlookup")
FORGET_ONE = Layout("fuse_forget_one", 16, "Q nodeid, Q nlookup")
BATCH_FORGET_IN = Layout("fuse_batch_forget_in", 8, "I count, 4x")
GETATTR_IN = Layout("fuse_getattr_in", 16, "I getattr_flags, 4x, Q fh")
STATX_IN = Layout("fuse_statx_in", 24, "I getattr_flags, 4x, Q fh, I sx_flags, I sx_mask")
SETATTR_IN = Layout(
    "fuse_setattr_in",
    88,
    "I valid, 4x, Q fh, Q size, Q lock_owner, q atime, q mtime, q ctime, I atimensec, I mtimensec, I ctimensec,"
    " I mode, 4x, I uid, I gid, 4x",
)
MKNOD_IN = Layout("fuse_mknod_in", 16, "I mode, I rdev, I umask, 4x")
MKDIR_IN = Layout("fuse_mkdir_in", 8, "I mode, I umask")
RENAME_IN = Layout("fuse_rename_in", 8, "Q newdir")
RENAME2_IN = Layout("fuse_rename2_in", 16, "Q newdir, I flags, 4x")
LINK_IN = Layout("fuse_link_in", 8, "Q oldnodeid")
OPEN_IN = Layout("fuse_open_in", 8, "I flags, I open_flags")
CREATE_IN = Layout("fuse_create_in", 16, "I flags, I mode, I umask, I open_flags")
OPEN_OUT = Layout("fuse_open_out", 16, "Q fh, I open_flags, i backing_id")
RELEASE_IN = Layout("fuse_release_in", 24, "Q fh, I flags, I release_flags, Q lock_owner")
FLUSH_IN = Layout("fuse_flush_in", 24, "Q fh, 8x, Q lock_owner")
READ_IN = Layout("fuse_read_in", 40, "Q fh, Q offset, I size, I read_flags, Q lock_owner, I flags, 4x")
WRITE_IN = Layout("fuse_write_in", 40, "Q fh, Q offset, I size, I write_flags, Q lock_owner, I flags, 4x")
WRITE_OUT = Layout("fuse_write_out", 8, "I size, 4x")
FSYNC_IN = Layout("fuse_fsync_in", 16, "Q fh, I fsync_flags, 4x")
SETXATTR_IN = Layout("fuse_setxattr_in", 16, "I size, I flags, I setxattr_flags, 4x")
"""With SETXATTR_EXT; without it only the first 8 bytes are sent."""
SETXATTR_IN_SHORT = Layout("the short fuse_setxattr_in", 8, "I size, I flags")
GETXATTR_IN = Layout("fuse_getxattr_in", 8, "I size, 4x")
GETXATTR_OUT = Layout("fuse_getxattr_out", 8, "I size, 4x")
LK_IN = Layout("fuse_lk_in", 48, "Q fh, Q owner, Q start, Q end, I type, I pid, I lk_flags, 4x")
ACCESS_IN = Layout("fuse_access_in", 8, "I mask, 4x")
INIT_IN = Layout("fuse_init_in", 64, "I major, I minor, I max_readahead, I flags, I flags2, 44x")
INIT_IN_SHORT = Layout("fuse_init_in before 7.36", 16, "I major, I minor, I max_readahead, I flags")
INIT_OUT = Layout(
    "fuse_init_out",
    64,
    "I major, I minor, I max_readahead, I flags, H max_background, H congestion_threshold, I max_write, I time_gran,"
    " H max_pages, H map_alignment, I flags2, I max_stack_depth, H request_timeout, 22x",
)
INTERRUPT_IN = Layout("fuse_interrupt_in", 8, "Q unique")
BMAP_IN = Layout("fuse_bmap_in", 16, "Q block, I blocksize, 4x")
BMAP_OUT = Layout("fuse_bmap_out", 8, "Q block")
IOCTL_IN = Layout("fuse_ioctl_in", 32, "Q fh, I flags, I cmd, Q arg, I in_size, I out_size")
IOCTL_OUT = Layout("fuse_ioctl_out", 16, "i result, I flags, I in_iovs, I out_iovs")
POLL_IN = Layout("fuse_poll_in", 24, "Q fh, Q kh, I flags, I events")
POLL_OUT = Layout("fuse_poll_out", 8, "I revents, 4x")
FALLOCATE_IN = Layout("fuse_fallocate_in", 32, "Q fh, Q offset, Q length, I mode, 4x")
LSEEK_IN = Layout("fuse_lseek_in", 24, "Q fh, Q offset, I whence, 4x")
LSEEK_OUT = Layout("fuse_lseek_out", 8, "Q offset")
COPY_FILE_RANGE_IN = Layout(
    "fuse_copy_file_range_in", 56, "Q fh_in, Q off_in, Q nodeid_out, Q fh_out, Q off_out, Q len, Q flags"
)
COPY_FILE_RANGE_OUT = Layout("fuse_copy_file_range_out", 8, "Q bytes_copied")
"""Answer to COPY_FILE_RANGE_64; COPY_FILE_RANGE is answered with `WRITE_OUT`."""
SYNCFS_IN = Layout("fuse_syncfs_in", 8, "8x")
DIRENT = Layout("fuse_dirent less its name", 24, "Q ino, Q off, I namelen, I type")
"""The name follows without NUL; the whole is filled up with NULs to a multiple of 8."""
EXT_HEADER = Layout("fuse_ext_header", 8, "I size, I type")
SUPP_GROUPS = Layout("fuse_supp_groups less its groups", 4, "I nr_groups")

NOTIFY_POLL_OUT = Layout("fuse_notify_poll_wakeup_out", 8, "Q kh")
NOTIFY_INVAL_INODE_OUT = Layout("fuse_notify_inval_inode_out", 24, "Q ino, q off, q len")
NOTIFY_INVAL_ENTRY_OUT = Layout("fuse_notify_inval_entry_out", 16, "Q parent, I namelen, I flags")
NOTIFY_DELETE_OUT = Layout("fuse_notify_delete_out", 24, "Q parent, Q child, I namelen, 4x")
NOTIFY_STORE_OUT = Layout("fuse_notify_store_out", 24, "Q nodeid, Q offset, I size, 4x")
NOTIFY_RETRIEVE_OUT = Layout("fuse_notify_retrieve_out", 32, "Q notify_unique, Q nodeid, Q offset, I size, 4x")
NOTIFY_RETRIEVE_IN = Layout("fuse_notify_retrieve_in", 40, "8x, Q offset, I size, 4x, 16x")
"""What NOTIFY_REPLY brings; as large as `WRITE_IN`, so that data of both lands at the same place."""
PRUNE_MINOR: Final = 45
NOTIFY_PRUNE_OUT = Layout("fuse_notify_prune_out", 16, "I count, 4x, 8x")

WRITE_HEAD_SIZE: Final = IN_HEADER.size + WRITE_IN.size
"""What comes before the data of a WRITE, and of a NOTIFY_REPLY."""

assert ENTRY_OUT_SIZE == 128
assert ATTR_OUT.size + ATTR.size == 104
assert STATX_OUT.size + STATX.size == 288
assert WRITE_HEAD_SIZE == IN_HEADER.size + NOTIFY_RETRIEVE_IN.size == 80
