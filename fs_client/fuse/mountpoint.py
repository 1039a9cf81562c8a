"""Mounting and unmounting: a directory and a descriptor of /dev/fuse, joined by the kernel.

As root by mount(2), without any helper program; otherwise by `fusermount3`, which passes the descriptor back. What a
killed daemon left behind is found and cleared before. Nothing here waits for a file system that may not answer, except
where a bound says for how long.

Blocking calls of a few milliseconds; none of them needs an event loop.
"""

import array
import contextlib
import ctypes
import enum
import errno
import os
import shutil
import socket
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fs_common.limits import SYMLINK_FOLLOW_MAX

DEVICE = "/dev/fuse"
FUSE_CONF = "/etc/fuse.conf"
TYPE = "fuse.emberfs"
"""In /proc/mounts."""
PROBE_TIMEOUT_S = 2.0
"""How long a mounted file system gets to say that it is alive."""
PROBE_NAME = b"security.emberfs.alive"
"""An extended attribute that nothing has: whoever lives says so without asking anybody. In this name space the kernel
asks for no attributes before, to check permissions."""
HELPER_TIMEOUT_S = 20.0
MAX_PAGES_FILE = Path("/proc/sys/fs/fuse/max_pages_limit")
MAX_PAGES_DEFAULT = 256

_MS_RDONLY = 1
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8
_MS_SYNCHRONOUS = 16
_MS_REMOUNT = 32
_MS_NOATIME = 1024
_MNT_FORCE = 1
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
KERNEL_FLAGS = {
    "ro": _MS_RDONLY,
    "nosuid": _MS_NOSUID,
    "nodev": _MS_NODEV,
    "noexec": _MS_NOEXEC,
    "sync": _MS_SYNCHRONOUS,
    "noatime": _MS_NOATIME,
}
"""Words of mount(8) that are flags of mount(2)."""


class MountError(OSError):
    """Mounting or unmounting is not possible. The message names the place and what to do."""


@dataclass(frozen=True, slots=True)
class MountSettings:
    """What the kernel is told at mount time."""

    source: str
    """What /proc/mounts shows as the device: the cluster's address."""
    flags: frozenset[str] = frozenset({"nosuid", "nodev", "noatime"})
    """Of `KERNEL_FLAGS`."""
    default_permissions: bool = True
    """The kernel checks modes and owners by the attributes that it has."""
    allow_other: bool = True
    """Users other than the one who mounts may use it. Only root may say so, unless /etc/fuse.conf has
    `user_allow_other`."""
    max_read: int = 0
    """Bytes of one READ; 0: as many as were negotiated."""
    nonempty: bool = False
    """The directory may have entries; they are hidden while it is mounted."""


class MountEntry(NamedTuple):
    """A line of /proc/self/mountinfo."""

    mountpoint: str
    device: str
    """MAJOR:MINOR, as /sys/class/bdi names it."""
    type: str
    source: str


def mount(mountpoint: str, settings: MountSettings) -> int:
    """Mount, and return the descriptor of /dev/fuse whose reader is the file system. Raises `MountError`.

    What a dead daemon left at the same place is unmounted first. The kernel waits with its INIT in the descriptor.
    """
    path = resolved(mountpoint)
    clear_stale(path)
    mode = _check_mountpoint(path, settings.nonempty)
    if os.geteuid() == 0:
        return _mount_as_root(path, mode, settings)
    return _mount_by_helper(path, settings)


def remount(mountpoint: str, flags: frozenset[str]) -> None:
    """What is mounted there has these flags (of `KERNEL_FLAGS`) from now on. Raises `MountError`: EBUSY from `ro` while
    files are open for writing.

    The daemon answers meanwhile: the kernel stores what is written before it is read-only.
    """
    path = resolved(mountpoint)
    entry = entry_of(path)
    if entry is None or entry.type != TYPE:
        raise MountError(errno.EINVAL, f"{path} has no EmberFS mounted; mount without remount")
    try:
        _mount2(entry.source, path, _flag_bits(flags) | _MS_REMOUNT, None)
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        if error.errno == errno.EBUSY:
            reason = f"files in it are open for writing; end what uses them (fuser -vm {path})"
        elif error.errno == errno.EPERM:
            reason = "only root may"
        raise MountError(error.errno or errno.EIO, f"{path} is not mounted again: {reason}") from None


def unmount(mountpoint: str, *, lazy: bool = False, force: bool = False) -> None:
    """Unmount. Raises `MountError`.

    `lazy`: now from the name space, and in truth when nobody uses it any more. `force`: also abort what waits for the
    file system (root only), for a daemon that does not answer.
    """
    path = resolved(mountpoint)
    if find(path) is None:
        raise MountError(errno.EINVAL, f"{path} is not a mount point; nothing to unmount")
    if os.geteuid() == 0:
        if force:
            with contextlib.suppress(OSError):
                _umount2(path, _MNT_FORCE | _UMOUNT_NOFOLLOW)
            if find(path) is None:
                return
            lazy = True
        try:
            _umount2(path, (_MNT_DETACH if lazy else 0) | _UMOUNT_NOFOLLOW)
        except OSError as error:
            raise _unmount_error(path, error.errno or errno.EIO) from None
        return
    helper = _helper()
    command = [helper, "-u", *(["-z"] if lazy or force else []), "--", path]
    done = _run_helper(command)
    if done.returncode:
        text = done.stderr.strip().removeprefix(f"{Path(helper).name}: ")
        if "busy" in text:
            raise _unmount_error(path, errno.EBUSY)
        raise MountError(errno.EPERM, f"{path} is not unmounted: {text or f'{helper} failed'}")


def may_allow_other() -> bool:
    """Whether this user may let other users use a mount: root, or everybody where /etc/fuse.conf says so."""
    if os.geteuid() == 0:
        return True
    try:
        lines = Path(FUSE_CONF).read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def find(mountpoint: str) -> MountEntry | None:
    """What is mounted at this path: the topmost, if several are. Asks what is mounted there nothing."""
    return entry_of(resolved(mountpoint))


def resolved(mountpoint: str) -> str:
    """The path as the kernel writes it: absolute, without symbolic links.

    What is mounted at its end is not looked at, also where a symbolic link leads to it: it may be dead, or not answer.
    """
    points = {entry.mountpoint for entry in mounts()}
    path = os.path.join(os.getcwd(), mountpoint)
    for _ in range(SYMLINK_FOLLOW_MAX):
        parent, name = os.path.split(path.rstrip("/"))
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        path = os.path.join(os.path.realpath(parent), name)
        if path in points:
            return path
        try:
            target = os.readlink(path)
        except OSError:
            return path
        path = os.path.join(os.path.dirname(path), target)
    return path


def entry_of(path: str) -> MountEntry | None:
    """What is mounted at a path that was `resolved` before: no file system is asked anything. So a daemon may ask about
    its own mount on the thread that serves it."""
    return next((entry for entry in reversed(mounts()) if entry.mountpoint == path), None)


def mounts() -> list[MountEntry]:
    """All mounts that this process sees, in the order in which they were made."""
    entries = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        # id parent major:minor root mountpoint options [tags ...] - type source super-options
        fields, _, rest = line.partition(b" - ")
        _, _, device, _, point, *_ = fields.split(b" ")
        kind, source, *_ = rest.split(b" ")
        entries.append(MountEntry(_unescaped(point), device.decode(), kind.decode(), _unescaped(source)))
    return entries


class Answer(enum.Enum):
    """What a mounted file system says when it is spoken to."""

    ALIVE = "alive"
    DEAD = "dead"
    """Its daemon is gone."""
    NONE = "none"
    """Nothing came in time: the daemon hangs, or what it waits for does."""


def probe(mountpoint: str, timeout_s: float = PROBE_TIMEOUT_S) -> Answer:
    """Speak to the file system mounted there."""
    outcome: list[Answer] = []

    def ask() -> None:
        try:
            # What stat answers the kernel may still know of a dead one.
            os.getxattr(mountpoint, PROBE_NAME)
        except OSError as error:
            outcome.append(Answer.DEAD if error.errno in (errno.ENOTCONN, errno.ECONNABORTED) else Answer.ALIVE)
        else:
            outcome.append(Answer.ALIVE)

    # A file system that does not answer keeps its caller: it is a thread that nobody needs.
    thread = threading.Thread(target=ask, name="mount probe", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return outcome[0] if outcome else Answer.NONE


def clear_stale(mountpoint: str) -> bool:
    """Unmount what a dead daemon of ours left here, as often as it is mounted. Returns whether there was anything.

    Raises `MountError` if a living one is mounted, or one that does not answer.
    """
    cleared = False
    path = resolved(mountpoint)
    while (entry := find(path)) is not None and entry.type == TYPE:
        answer = probe(path)
        if answer is Answer.ALIVE:
            raise MountError(
                errno.EBUSY, f"{path} has {entry.source} mounted already; to mount again: emberfs umount {path}"
            )
        if answer is Answer.NONE:
            raise MountError(
                errno.EBUSY,
                f"{path} has {entry.source} mounted, which does not answer; to end it: emberfs umount --force {path}",
            )
        unmount(path, lazy=True)
        cleared = True
    return cleared


def set_read_ahead(entry: MountEntry, size: int) -> bool:
    """Bytes that the kernel reads ahead of sequential readers. After INIT, which resets it. False: not permitted."""
    return _write_bdi(entry, "read_ahead_kb", max(1, size // 1024))


def max_pages_limit() -> int:
    """Pages that one request may carry in this kernel."""
    try:
        return int(MAX_PAGES_FILE.read_text())
    except (OSError, ValueError):
        return MAX_PAGES_DEFAULT


def _write_bdi(entry: MountEntry, name: str, value: int) -> bool:
    try:
        (Path("/sys/class/bdi") / entry.device / name).write_text(str(value))
    except OSError:
        return False
    return True


def _check_mountpoint(path: str, nonempty: bool) -> int:
    """The directory's mode."""
    try:
        status = os.stat(path)
        if not os.path.isdir(path):
            raise MountError(errno.ENOTDIR, f"{path} is not a directory; mount on a directory")
        with os.scandir(path) as entries:
            empty = next(entries, None) is None
        if not (empty or nonempty):
            raise MountError(
                errno.ENOTEMPTY, f"{path} is not empty; mounting would hide what is in it: use -o nonempty to do that"
            )
    except FileNotFoundError:
        raise MountError(errno.ENOENT, f"{path} does not exist; make the directory first") from None
    except MountError:
        raise
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise MountError(
                errno.ENOTCONN, f"{path} has a mount whose daemon is dead, and it is not ours: umount -l {path}"
            ) from None
        raise MountError(error.errno or errno.EIO, f"{path} cannot be mounted on: {error.strerror}") from None
    return status.st_mode


def _mount_as_root(path: str, mode: int, settings: MountSettings) -> int:
    descriptor = _open_device()
    try:
        words = [f"fd={descriptor}", f"rootmode={mode:o}", "user_id=0", "group_id=0", *_common_words(settings)]
        try:
            _mount2(settings.source, path, _flag_bits(settings.flags), ",".join(words))
        except OSError as error:
            code = error.errno or errno.EIO
            reason = os.strerror(code)
            if code == errno.ENODEV:
                reason = "the kernel has no FUSE (modprobe fuse)"
            elif code == errno.EPERM:
                reason = "not permitted (in a container: it needs CAP_SYS_ADMIN)"
            raise MountError(code, f"{path} is not mounted: {reason}") from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _flag_bits(words: frozenset[str]) -> int:
    flags = 0
    for word in words:
        flags |= KERNEL_FLAGS[word]
    return flags


def _mount2(source: str, path: str, flags: int, data: str | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = None if data is None else os.fsencode(data)
    if libc.mount(os.fsencode(source), os.fsencode(path), TYPE.encode(), ctypes.c_ulong(flags), words) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _mount_by_helper(path: str, settings: MountSettings) -> int:
    """`fusermount3` opens the device, mounts, and sends the descriptor through the socket that it inherits."""
    helper = _helper()
    words = [*_common_words(settings), f"fsname={_word(settings.source)}", "subtype=emberfs", *sorted(settings.flags)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environment = {**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}
        command = [helper, "-o", ",".join(words), "--", path]
        done = _run_helper(command, theirs.fileno(), environment)
        theirs.close()
        descriptor = _received_descriptor(ours) if done.returncode == 0 else None
    if descriptor is None:
        text = done.stderr.strip().removeprefix(f"{Path(helper).name}: ") or f"{helper} failed"
        if "user_allow_other" in text:
            text += " (or mount with -o noallow_other)"
        if DEVICE in text and "denied" in text:
            text += f" (users may mount where root says: chmod 666 {DEVICE})"
        raise MountError(errno.EPERM, f"{path} is not mounted: {text}")
    os.set_inheritable(descriptor, False)
    return descriptor


def _common_words(settings: MountSettings) -> list[str]:
    words = []
    if settings.default_permissions:
        words.append("default_permissions")
    if settings.allow_other:
        words.append("allow_other")
    if settings.max_read:
        words.append(f"max_read={settings.max_read}")
    return words


def _word(text: str) -> str:
    """As a value in a list of options."""
    return text.replace("\\", "\\\\").replace(",", "\\,")


def _open_device() -> int:
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MountError(errno.ENOENT, f"{DEVICE} does not exist: modprobe fuse, or give it to the container") from None
    except OSError as error:
        raise MountError(error.errno or errno.EIO, f"{DEVICE} cannot be opened: {error.strerror}") from None


def _helper() -> str:
    found = shutil.which("fusermount3")
    if found is None:
        raise MountError(
            errno.ENOENT, "only root mounts without fusermount3, and it is not installed: apt-get install fuse3"
        )
    return found


def _run_helper(
    command: list[str], inherited: int | None = None, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=HELPER_TIMEOUT_S,
            env=environment,
            pass_fds=() if inherited is None else (inherited,),
            # Closing a file of a mount asks its daemon, which may be this process; and the interpreter stands still
            # until the child has closed what it is told to close. Left to the kernel, that comes after.
            close_fds=inherited is not None,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MountError(errno.ETIMEDOUT, f"{command[0]} does not end") from None


def _received_descriptor(connection: socket.socket) -> int | None:
    connection.settimeout(HELPER_TIMEOUT_S)
    size = array.array("i").itemsize
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(size))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(data) >= size:
            descriptors = array.array("i", data[:size])
            return descriptors[0]
    return None


def _umount2(path: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _unmount_error(path: str, code: int) -> MountError:
    if code == errno.EBUSY:
        return MountError(
            code, f"{path} is in use; end what uses it (fuser -vm {path}), or: emberfs umount --lazy {path}"
        )
    return MountError(code, f"{path} is not unmounted: {os.strerror(code)}")


def _unescaped(field: bytes) -> str:
    """The kernel writes blanks, newlines, tabs and backslashes as three octal digits."""
    parts = field.split(b"\\")
    text = parts[0] + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in parts[1:])
    return os.fsdecode(text)
