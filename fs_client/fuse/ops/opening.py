"""OPEN, CREATE, TMPFILE, FLUSH, RELEASE, FSYNC, SYNCFS.

Close-to-open: an open asks the service, and what the kernel has of the file's pages is kept only if it is of the
version that the service names. A flush returns when everything that was written is stored and others can learn the
length.
"""

import errno
import os
from collections.abc import Coroutine, Mapping
from typing import Any

from fs_client.fuse import abi, answers, kernel_size, requests, shown
from fs_client.fuse.abi import Opcode
from fs_client.fuse.handles import Handle
from fs_client.fuse.kernel_request import Handler, Request, Result
from fs_client.fuse.locks import release_range_locks
from fs_client.fuse.mount import Mount
from fs_client.fuse.nodes import UNTOLD, Node
from fs_client.fuse.ops.lookup import new_entry
from fs_client.fuse.set_id import BITS
from fs_client.fuse.truncate import truncate
from fs_client.fuse.users import User, user_of
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records import meta
from fs_common.records.following import Promised

_ACCESS = os.O_ACCMODE
EXECUTE = 0x20
"""Of the kernel's own open flags: execve(2) opens the file."""


def handlers(mount: Mount) -> Mapping[int, Handler]:
    nodes = mount.nodes
    looking_again: set[int] = set()
    """Threads whose last open was refused because no name leads to the file."""

    def open_(request: Request) -> bytes | Coroutine[Any, Any, Result]:
        asked = requests.parse_open(request.body)
        if mount.policy.dataset and mount.policy.kernel_checks and asked.flags & _ACCESS == os.O_RDONLY:
            node = nodes.by_inode.get(request.node)
            if node is not None and node.attributes is not None and nodes.fresh(node, mount.now()):
                file = mount.file(node.attributes)
                handle = mount.handles.open_file(file, asked.flags, user_of(request), b"")
                return answers.open_out(handle.number, open_flags(handle, node.attributes.version))
        elif mount.policy.kernel_checks and not asked.flags & (_ACCESS | os.O_TRUNC):
            opened_here = open_promised(request, asked.flags)
            if opened_here is not None:
                return opened_here
        return open_slow(request, asked)

    def open_promised(request: Request, flags: int) -> bytes | None:
        """An open for reading, answered with what the service has promised to be so. None: it has to be asked."""
        node = nodes.by_inode.get(request.node)
        if node is None or not nodes.certain(node, mount.now()):
            return None
        attributes = node.attributes
        assert attributes is not None
        if not attributes.links or attributes.layout is None or told_others(node, attributes.version):
            return None
        looking_again.discard(request.pid)
        reply = meta.OpenReply(attributes, promised=Promised.ATTRIBUTES)
        handle = opened(request, flags, reply, nodes.stamp())
        return answers.open_out(handle.number, open_flags(handle, attributes.version))

    async def open_slow(request: Request, asked: requests.Open) -> Result:
        flags = asked.flags
        write = flags & _ACCESS != os.O_RDONLY
        if write and mount.policy.dataset:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        stamp = nodes.stamp()
        client = mount.client if write else b""

        def make(user: User) -> meta.Open:
            return meta.Open(
                request.node,
                b"",
                write,
                client,
                mount.request_id() if write else b"",
                user,
                truncate=bool(flags & os.O_TRUNC),
                append=write and bool(flags & os.O_APPEND),
                relaxed=True,
                read=flags & _ACCESS != os.O_WRONLY and not flags & EXECUTE,
                execute=bool(flags & EXECUTE),
            )

        reply: meta.OpenReply = await mount.call_as(request, methods.OPEN, make)
        if not reply.attributes.links:
            refuse_old_name(request, reply)
        else:
            looking_again.discard(request.pid)
        handle = opened(request, flags, reply, stamp)
        version = await certain(handle, reply, stamp)
        if flags & os.O_TRUNC and write:
            version = await emptied(request, handle)
        elif told_others(handle.file.node, version):
            # The kernel believes what others have changed, as its length; an open does not make it ask again.
            handle.file.node.told_version = -1
            await mount.channel.notify_attributes(handle.file.inode)
        return answers.open_out(handle.number, open_flags(handle, version))

    def refuse_old_name(request: Request, reply: meta.OpenReply) -> None:
        """No name leads to the file any more, though it still is there. The kernel may have come here by a name that
        it believes and another client gave to another file since. ESTALE makes it look the path's names up again and
        come a second time, which is believed: it has this inode by other means (`/proc/self/fd`), or had it by its
        name just now."""
        node = nodes.by_inode.get(request.node)
        if request.pid in looking_again or (node is not None and node.removed):
            looking_again.discard(request.pid)
            return
        if reply.session:
            mount.spawn(mount.end_unused_session(request.node, reply.session))
        looking_again.add(request.pid)
        nodes.change(request.node)
        raise EmberError(Code.STALE, f"inode {request.node} has no name any more; look the path up again")

    def opened(request: Request, flags: int, reply: meta.OpenReply, stamp: int) -> Handle:
        """A handle for what the service has opened."""
        node = nodes.adopt(reply.attributes, stamp, mount.now(), reply.promised)
        first = node.file is None
        file = mount.file(reply.attributes)
        if first:
            mount.cache.agree(file.inode, file.version, file.length)
        elif stamp >= node.changed:
            file.refresh(reply.attributes)
        return mount.handles.open_file(file, flags, user_of(request), reply.session)

    def told_others(node: Node, version: int) -> bool:
        """The kernel may believe other attributes than those of this open."""
        if node.told_version == -1 or node.attributes is None:
            return False
        return node.told_version != version or node.told_ctime_ns not in (UNTOLD, shown.ctime_ns(node))

    async def certain(handle: Handle, reply: meta.OpenReply, stamp: int) -> int:
        """The version of the contents that the open is of. If a change of this mount crossed it (the end of an earlier
        open, say), what is known by that one's answer may be older than this open's: the service is asked again."""
        file = handle.file
        if stamp >= file.node.changed:
            return reply.attributes.version
        try:
            await file.ask()
        except BaseException:
            mount.spawn(mount.close_handle(handle))
            raise
        return file.version

    async def emptied(request: Request, handle: Handle) -> int:
        """O_TRUNC, also of an empty file: its times change, and set-id bits go. Returns the version of the contents."""
        file = handle.file
        attributes = file.node.attributes
        try:
            await truncate(mount, request, file.inode, 0, handle)
            kernel_size.cut(file.node, 0)
            if request.uid and attributes is not None and attributes.mode & BITS:
                await mount.channel.notify_attributes(file.inode)
        except BaseException:
            mount.spawn(mount.close_handle(handle))
            raise
        return file.version

    def open_flags(handle: Handle, version: int) -> int:
        """`FOPEN_*`; notes that the kernel's pages are of this version from now on."""
        node = handle.file.node
        if mount.policy.strict or handle.append or handle.flags & os.O_DIRECT or not handle.readable:
            # Who only writes gains nothing by the kernel's pages. On its way into them it cuts a write at each page
            # whose source is not there yet: memory that was never touched takes several times as long.
            handle.direct = True
            return abi.FOPEN_DIRECT_IO | abi.FOPEN_PARALLEL_DIRECT_WRITES
        kept = node.cached_version == version
        node.cached_version = version
        return abi.FOPEN_KEEP_CACHE if kept else 0

    async def create(request: Request) -> Result:
        asked = requests.parse_create(request.body)
        flags = asked.flags
        write = flags & _ACCESS != os.O_RDONLY
        mode = asked.mode & 0o7777 & ~asked.umask
        parent = request.node
        nodes.change_names(parent)
        stamp = nodes.stamp()

        def make(user: User) -> meta.Create:
            return meta.Create(
                parent,
                asked.name,
                mode,
                mount.request_id(),
                bool(flags & os.O_EXCL),
                bool(flags & os.O_TRUNC),
                write,
                mount.client if write else b"",
                None,
                user,
                True,
                flags & _ACCESS != os.O_WRONLY,
                bool(flags & os.O_APPEND),
                asked.mode & 0o7777,
            )

        reply: meta.OpenReply = await mount.call_as(request, methods.CREATE, make)
        now = mount.now()
        attributes = reply.attributes
        if reply.existed:
            nodes.change_names(parent)
        else:
            nodes.touched(parent, attributes.ctime_ns, now, stamp, exact=True)
            node = nodes.learn(attributes, now, promised=reply.promised, new_since=stamp)
            nodes.plain(node, now)
            node.cached_version = attributes.version
            stamp = node.changed
        handle = opened(request, flags, reply, stamp)
        node = handle.file.node
        version = await certain(handle, reply, stamp)
        if reply.existed and flags & os.O_TRUNC and write:
            version = await emptied(request, handle)
        if reply.existed:
            # By that name, or through a symbolic link that somebody has put there just now.
            nodes.drop_name(parent, asked.name)
        else:
            nodes.put_name(parent, asked.name, node.inode, now)
        return new_entry(mount, node) + answers.open_out(handle.number, open_flags(handle, version))

    async def tmpfile(request: Request) -> Result:
        asked = requests.parse_create(request.body)
        mode = asked.mode & 0o7777 & ~asked.umask

        def make(user: User) -> meta.CreateUnnamed:
            linkable = not asked.flags & os.O_EXCL
            bits = asked.mode & 0o7777
            return meta.CreateUnnamed(request.node, mode, mount.request_id(), mount.client, linkable, user, True, bits)

        reply: meta.OpenReply = await mount.call_as(request, methods.CREATE_UNNAMED, make)
        node = nodes.learn(reply.attributes, mount.now())
        nodes.plain(node, mount.now())
        handle = opened(request, asked.flags, reply, node.changed)
        entry = new_entry(mount, node)
        return entry + answers.open_out(handle.number, open_flags(handle, reply.attributes.version))

    # Ends

    def flush(request: Request) -> Coroutine[Any, Any, Result] | None:
        """close(2): its error is the program's last chance to learn that something was lost."""
        asked = requests.parse_flush(request.body)
        handle = mount.handles.file(asked.fh)
        file = handle.file
        file.look_for_losses()
        untold = file.dirty or handle.error_seen != file.error_count
        if asked.lock_owner in file.range_owners or (handle.writable and untold):
            return flush_slow(handle, asked.lock_owner)
        return None

    async def flush_slow(handle: Handle, lock_owner: int) -> Result:
        try:
            if handle.writable:
                if not handle.file.back.empty:
                    await handle.file.back.flush()
                # Something was lost: that is the answer. The end of the handle does the rest.
                handle.file.raise_error(handle)
                await stored(handle)
        finally:
            await release_range_locks(mount, handle, lock_owner)
        handle.file.raise_error(handle)
        return None

    async def stored(handle: Handle) -> None:
        file = handle.file
        attributes = file.node.attributes
        if handle.session and not file.node.removed and (attributes is None or attributes.links):
            await mount.finish_handle(handle)
        elif file.dirty:
            # Without a name the session is what keeps the file.
            await file.settle()

    def release(request: Request) -> None:
        """Nobody waits for it, so what is left to do goes on behind."""
        asked = requests.parse_release(request.body)
        handle = mount.handles.files.get(asked.fh)
        if handle is None:
            return
        if not handle.session and not handle.file.dirty and not handle.lock_owners and len(handle.file.handles) > 1:
            del mount.handles.files[handle.number]
            handle.file.handles.discard(handle)
            return
        end = mount.spawn(mount.close_handle(handle))
        if handle.lock_owners:
            file = handle.file
            file.ending.add(end)
            end.add_done_callback(file.ending.discard)

    async def fsync(request: Request) -> Result:
        handle = mount.handles.file(requests.parse_fsync(request.body).fh)
        await handle.file.back.flush()
        # Something was lost: that is the answer, however long the rest takes.
        handle.file.raise_error(handle)
        await mount.make_durable(handle.file)
        handle.file.raise_error(handle)
        return None

    async def syncfs(request: Request) -> Result:
        await mount.make_all_durable()
        return None

    def unwanted(request: Request, result: Result) -> None:
        """The program was told something else (it was interrupted, or waited too long): nobody will release this."""
        if request.opcode in (Opcode.OPEN, Opcode.CREATE, Opcode.TMPFILE) and isinstance(result, bytes):
            number = abi.OPEN_OUT.unpack_from(result, len(result) - abi.OPEN_OUT.size)[0]
            handle = mount.handles.files.get(number)
            if handle is not None:
                mount.spawn(mount.close_handle(handle))
            if request.opcode != Opcode.OPEN:
                nodes.forget(abi.ENTRY_OUT.unpack_from(result)[0], 1, mount.now())

    mount.unwanted = unwanted
    return {
        Opcode.OPEN: open_,
        Opcode.CREATE: create,
        Opcode.TMPFILE: tmpfile,
        Opcode.FLUSH: flush,
        Opcode.RELEASE: release,
        Opcode.FSYNC: fsync,
        Opcode.SYNCFS: syncfs,
    }
