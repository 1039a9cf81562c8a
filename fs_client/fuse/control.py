"""`.emberfs`: a directory that is in no listing and on no disk, through which the mount is looked at and told things.

    .emberfs/stats          read: what the mount did and holds, as JSON
    .emberfs/conf/NAME      read: a setting's value; `ln -s VALUE .emberfs/set-conf/NAME` changes it
    .emberfs/rm-rf/         `ln -s PATH .emberfs/rm-rf/x`, or a rename into it: PATH goes, with all that is below it, in
                            one call (a path of this mount, absolute or from its root)

Its inodes are numbers that no cluster gives (from 2**63 on). They are ordinary nodes whose attributes and names never
grow old, so look-ups and GETATTR need no code of their own. Only who mounted (and root) may change things through it.
"""

import errno
import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fs_client.fuse import abi, answers, requests, shown
from fs_client.fuse.forgetting import known_bytes
from fs_client.fuse.kernel_request import Request, Result
from fs_client.fuse.nodes import FOREVER, Node
from fs_common import methods
from fs_common.ids import shown_client
from fs_common.records import meta
from fs_common.records.meta import Attributes, DirectoryEntry, FileType

if TYPE_CHECKING:
    from fs_client.fuse.mount import Mount

NAME = b".emberfs"
FIRST = 2**63
"""The control directory's inode; those in it follow."""
CONF, SET_CONF, RM_RF, STATS = FIRST + 1, FIRST + 2, FIRST + 3, FIRST + 4
_SETTINGS_FROM = FIRST + 16
_LINKS_FROM = FIRST + 4096


class Control:
    def __init__(self, mount: "Mount", mountpoint: tuple[str, ...]) -> None:
        """`mountpoint`: all absolute paths by which users name the mount's root."""
        self._mount = mount
        self._mountpoint = tuple(map(os.fsencode, mountpoint))
        self._open: dict[int, bytes] = {}
        """Handle -> what its readers see: as of the open."""
        self._links = _LINKS_FROM
        """Inode of the next symbolic link that was only an order."""
        self._settings: dict[bytes, Callable[[str], None]] = {
            b"attribute_s": self._set_times("attribute_s"),
            b"name_s": self._set_times("name_s"),
            b"absent_s": self._set_times("absent_s"),
            b"cache_bytes": self._set_cache,
            b"dirty_bytes": self._set_dirty,
            b"known_bytes": self._set_known,
        }
        self._listings: dict[int, list[DirectoryEntry]] = {}
        now = time.time_ns()
        self._add(mount.root, NAME, FIRST, FileType.DIRECTORY, 0o755, now)
        del self._listings[mount.root]
        self._add(FIRST, b"stats", STATS, FileType.FILE, 0o444, now)
        for name, inode in ((b"conf", CONF), (b"set-conf", SET_CONF), (b"rm-rf", RM_RF)):
            self._add(FIRST, name, inode, FileType.DIRECTORY, 0o755, now)
        for place, name in enumerate(sorted(self._settings)):
            self._add(CONF, name, _SETTINGS_FROM + place, FileType.FILE, 0o444, now)

    def _add(self, parent: int, name: bytes, inode: int, type_: FileType, mode: int, now_ns: int) -> None:
        nodes = self._mount.nodes
        node = nodes.node(inode)
        node.attributes = Attributes(
            inode, type_, mode, os.geteuid(), os.getegid(), 1, 0, now_ns, now_ns, now_ns, parent=parent
        )
        node.expires = FOREVER
        node.plain_until = FOREVER
        node.lookups = 1
        nodes.names(parent).entries[name] = (inode, FOREVER)
        if parent != self._mount.root:
            nodes.names(parent).complete_until = FOREVER
        if type_ is FileType.DIRECTORY:
            nodes.names(inode).complete_until = FOREVER
        self._listings.setdefault(parent, []).append(DirectoryEntry(name, inode, type_, node.attributes))

    def listing(self, inode: int) -> list[DirectoryEntry]:
        return sorted(self._listings.get(inode, []), key=lambda entry: entry.name)

    # Files

    def open(self, request: Request) -> bytes:
        """What is read is of the moment of the open; it has no length before, so the kernel does not keep it."""
        if requests.parse_open(request.body).flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        handles = self._mount.handles
        number = handles.next_number
        handles.next_number += 1
        self._open[number] = self._contents(request.node)
        return answers.open_out(number, abi.FOPEN_DIRECT_IO)

    def read(self, request: Request) -> bytes:
        asked = requests.parse_read(request.body)
        contents = self._open.get(asked.fh)
        if contents is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return contents[asked.offset : asked.offset + asked.size]

    def release(self, request: Request) -> None:
        self._open.pop(requests.parse_release(request.body).fh, None)

    def _contents(self, inode: int) -> bytes:
        if inode == STATS:
            return json.dumps(statistics(self._mount), indent=1).encode() + b"\n"
        place = inode - _SETTINGS_FROM
        names = sorted(self._settings)
        if 0 <= place < len(names):
            return f"{getattr(self._mount.policy, names[place].decode())}\n".encode()
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    # Orders

    async def symlink(self, request: Request) -> Result:
        """An order: the link itself does not stay."""
        asked = requests.parse_symlink(request.body)
        self._check_allowed(request)
        if request.node == SET_CONF:
            setting = self._settings.get(asked.name)
            if setting is None:
                raise OSError(errno.ENOENT, f"there is no setting {asked.name!r}")
            setting(asked.target.decode(errors="replace"))
        elif request.node == RM_RF:
            path = self._path(asked.target)
            await self._remove_tree(request, self._mount.root, path)
            if b"/" not in path:
                await self._mount.channel.notify_name(self._mount.root, path)
        else:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        self._links += 1
        now = time.time_ns()
        node = Node(self._links)
        node.attributes = Attributes(
            node.inode, FileType.SYMLINK, 0o777, 0, 0, 1, len(asked.target), now, now, now, target=asked.target
        )
        return shown.entry(node, 0.0, self._mount.now())

    async def rename_into(self, request: Request, asked: requests.Rename2) -> Result:
        """`mv PATH .emberfs/rm-rf/`"""
        if asked.newdir != RM_RF or request.node >= FIRST:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        await self._remove_tree(request, request.node, asked.old)
        # Its caller has locked the directory, so this answer waits for nothing: the kernel moves the name away on it.
        self._mount.channel.notify_inval_entry(request.node, asked.old)
        return None

    async def _remove_tree(self, request: Request, at: int, path: bytes) -> None:
        mount = self._mount
        mount.nodes.change(at)
        await mount.call_as(
            request,
            methods.REMOVE_TREE,
            lambda user: meta.RemoveTree(at, path, mount.request_id(), user, True),
        )
        mount.nodes.change(at)
        # Directories on the way to it are not known here; what is believed of them ends soon by itself.
        if b"/" not in path:
            mount.nodes.put_name(at, path, 0, mount.now())

    def _path(self, target: bytes) -> bytes:
        """From the root of the mount."""
        for root in self._mountpoint:
            if target == root or target.startswith(root + b"/"):
                target = target[len(root) :]
                break
        path = target.strip(b"/")
        if not path or b".." in path.split(b"/"):
            raise OSError(errno.EINVAL, "name what is below the mountpoint, without `..`")
        return path

    def _check_allowed(self, request: Request) -> None:
        if request.node == SET_CONF and request.uid not in (0, os.geteuid()):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def _set_times(self, name: str) -> Callable[[str], None]:
        def set_(value: str) -> None:
            seconds = _number(value)
            setattr(self._mount.policy, name, seconds)
            setattr(self._mount.nodes, name, seconds)

        return set_

    def _set_cache(self, value: str) -> None:
        self._mount.policy.cache_bytes = self._mount.cache.limit = int(_number(value))
        self._mount.cache.shrink()

    def _set_dirty(self, value: str) -> None:
        self._mount.policy.dirty_bytes = self._mount.dirty.limit = max(int(_number(value)), 1 << 20)

    def _set_known(self, value: str) -> None:
        self._mount.policy.known_bytes = max(int(_number(value)), 1 << 20)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise OSError(errno.EINVAL, f"{text!r} is not a number") from None
    if not 0 <= number < 1e15:
        raise OSError(errno.EINVAL, f"{text} is out of range")
    return number


def statistics(mount: "Mount") -> dict[str, Any]:
    """What a mount did and holds."""
    counters = mount.channel.counters
    negotiated = mount.channel.negotiated
    return {
        "cluster": mount.fs.options.cluster,
        "client": shown_client(mount.client),
        "pid": os.getpid(),
        "uptime_s": round(time.time() - mount.began, 3),
        "protocol": None if negotiated is None else f"7.{negotiated.minor}",
        "features": [] if negotiated is None else sorted(negotiated.names()),
        "consistency": mount.policy.consistency,
        "operations": [
            {
                "name": figures.name,
                "count": figures.count,
                "errors": figures.errors,
                "mean_us": round(figures.mean_ns / 1000, 1),
                "p50_us": round(figures.p50_ns / 1000, 1),
                "p99_us": round(figures.p99_ns / 1000, 1),
            }
            for figures in counters.figures()
        ],
        "in_work": mount.channel.in_work,
        "turns": counters.turns,
        "interrupts": counters.interrupts,
        "gave_up": counters.gave_up,
        "nodes": len(mount.nodes.by_inode),
        "known_bytes": known_bytes(mount.nodes),
        "open_files": len(mount.handles.files),
        "open_directories": len(mount.handles.directories),
        "dirty_bytes": mount.dirty.held,
        "cache_bytes": mount.cache.held,
        "cache_hits": mount.cache.hits,
        "cache_misses": mount.cache.misses,
    }
