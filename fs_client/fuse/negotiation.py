"""INIT: what the kernel offers, what we want of it, and what is agreed.

Pure: the kernel's message and settings in, the answer out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from fs_client.fuse import abi
from fs_client.fuse.requests import Init, ProtocolError
from fs_common.limits import MIB

PAGES_WITHOUT_MAX_PAGES = 32
"""What a request carries at most in a kernel that does not negotiate it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the file system asks for; it gets of it what the kernel has."""

    max_write: int = 1 * MIB
    """Bytes of one WRITE, and of one READ."""
    max_readahead: int = 128 * MIB
    """The kernel takes the least of this and its own default; more is set on the mounted file system's device."""
    max_background: int = 256
    """Read-ahead, direct I/O and write-back in flight."""
    congestion_threshold: int = 192
    explicit_invalidation: bool = False
    """Cached pages stay until they are invalidated by name, whatever size and mtime become."""
    mtime_invalidates: bool = False
    """A new mtime in answers to GETATTR drops cached pages, as a new size does: also after writes of this mount itself,
    whose mtime the kernel does not know before."""
    readdirplus: bool = True
    locks: bool = True
    """`fcntl` and `flock` locks come to us instead of staying inside this kernel."""
    kill_privileges: bool = True
    """We clear set-id bits on write, truncate and chown; the kernel need not look at each write."""
    export: bool = True
    """Look-ups of `.` and `..` by node are answered: there are file handles, and NFS can export the mount."""
    posix_acl: bool = False
    supplementary_groups: bool = True
    """Creating requests tell the caller's group that owns the directory, if it is a supplementary one."""
    time_granularity_ns: int = 1


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What holds for the connection. Plain values: a restarted daemon gets them from the one before it."""

    minor: int
    flags: int
    """`INIT_*` in force."""
    max_write: int
    max_readahead: int
    max_background: int
    congestion_threshold: int

    @property
    def setxattr_extended(self) -> bool:
        return bool(self.flags & abi.INIT_SETXATTR_EXT)

    def has(self, flag: int) -> bool:
        return bool(self.flags & flag)

    def names(self) -> Iterator[str]:
        """The words for `flags`."""
        return (name for bit, name in abi.INIT_NAMES.items() if self.flags & bit)


class KernelTooOld(ProtocolError):
    """The kernel speaks a version before 7.31."""


def wanted_flags(wanted: Wanted) -> int:
    """The bits to ask for.

    Not among them, with reasons: SPLICE_* (data goes to memory of ours anyway), POSIX_ACL unless asked for,
    SECURITY_CTX and SUBMOUNTS (nothing here uses them), PASSTHROUGH and DAX (no local file or memory behind a file),
    OVER_IO_URING (needs another device loop), ALLOW_IDMAP (the services know one set of ids), NO_OPEN_SUPPORT (opens
    carry close-to-open), REQUEST_TIMEOUT (it ends the whole mount for one request, and a wait for a lock may last).
    """
    flags = (
        abi.INIT_ASYNC_READ
        | abi.INIT_ATOMIC_O_TRUNC
        | abi.INIT_BIG_WRITES
        | abi.INIT_DONT_MASK
        | abi.INIT_HAS_IOCTL_DIR
        | abi.INIT_ASYNC_DIO
        | abi.INIT_PARALLEL_DIROPS
        | abi.INIT_ABORT_ERROR
        | abi.INIT_MAX_PAGES
        | abi.INIT_CACHE_SYMLINKS
        | abi.INIT_SETXATTR_EXT
        | abi.INIT_INIT_EXT
        | abi.INIT_HAS_EXPIRE_ONLY
        | abi.INIT_DIRECT_IO_ALLOW_MMAP
        | abi.INIT_HAS_RESEND
    )
    if wanted.explicit_invalidation:
        flags |= abi.INIT_EXPLICIT_INVAL_DATA
    elif wanted.mtime_invalidates:
        flags |= abi.INIT_AUTO_INVAL_DATA
    if wanted.readdirplus:
        flags |= abi.INIT_DO_READDIRPLUS | abi.INIT_READDIRPLUS_AUTO
    if wanted.locks:
        flags |= abi.INIT_POSIX_LOCKS | abi.INIT_FLOCK_LOCKS
    if wanted.kill_privileges:
        flags |= abi.INIT_HANDLE_KILLPRIV_V2
    flags |= abi.INIT_EXPORT_SUPPORT if wanted.export else abi.INIT_NO_EXPORT_SUPPORT
    if wanted.posix_acl:
        flags |= abi.INIT_POSIX_ACL
    if wanted.supplementary_groups:
        flags |= abi.INIT_CREATE_SUPP_GROUP
    return flags


def negotiate(
    init: Init, wanted: Wanted, *, page_size: int = 4096, max_pages_limit: int = 256
) -> tuple[bytes, Negotiated | None]:
    """The answer to INIT, and what is agreed; None: the kernel will ask again in our major version.

    `max_pages_limit` is the kernel's bound for one request (`/proc/sys/fs/fuse/max_pages_limit`, 256 before there was
    one). Raises `KernelTooOld`.
    """
    if init.major > abi.VERSION_MAJOR:
        return _answer(abi.MINOR_MAX), None
    if init.major < abi.VERSION_MAJOR or init.minor < abi.MINOR_MIN:
        raise KernelTooOld(
            "version",
            f"the kernel speaks FUSE {init.major}.{init.minor}; {abi.VERSION_MAJOR}.{abi.MINOR_MIN} (Linux 5.4) or"
            " newer is needed",
        )
    minor = min(init.minor, abi.MINOR_MAX)
    offered = init.flags
    flags = wanted_flags(wanted) & offered
    if not offered & abi.INIT_INIT_EXT:
        flags &= 2**32 - 1
    pages = -(-wanted.max_write // page_size)
    pages = max(1, min(pages, max_pages_limit if flags & abi.INIT_MAX_PAGES else PAGES_WITHOUT_MAX_PAGES))
    agreed = Negotiated(
        minor=minor,
        flags=flags,
        max_write=min(pages * page_size, max(wanted.max_write, page_size)),
        max_readahead=min(init.max_readahead, wanted.max_readahead),
        max_background=wanted.max_background,
        congestion_threshold=min(wanted.congestion_threshold, wanted.max_background),
    )
    return _answer(minor, agreed, pages, wanted.time_granularity_ns), agreed


def _answer(minor: int, agreed: Negotiated | None = None, pages: int = 0, time_granularity_ns: int = 0) -> bytes:
    if agreed is None:
        return abi.INIT_OUT.pack(abi.VERSION_MAJOR, minor, *[0] * (len(abi.INIT_OUT.fields) - 2))
    return abi.INIT_OUT.pack(
        abi.VERSION_MAJOR,
        minor,
        agreed.max_readahead,
        agreed.flags & (2**32 - 1),
        agreed.max_background,
        agreed.congestion_threshold,
        agreed.max_write,
        time_granularity_ns,
        pages,
        0,  # map_alignment
        agreed.flags >> 32,
        0,  # max_stack_depth
        0,  # request_timeout
    )
