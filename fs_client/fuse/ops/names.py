"""MKNOD, MKDIR, SYMLINK, LINK, READLINK, UNLINK, RMDIR, RENAME, RENAME2."""

import time
from collections.abc import Mapping

from fs_client.fuse import requests, shown
from fs_client.fuse.abi import ROOT_NODE, Opcode
from fs_client.fuse.kernel_request import Handler, Request, Result
from fs_client.fuse.mount import Mount
from fs_client.fuse.nodes import FOREVER
from fs_client.fuse.ops.lookup import new_entry
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records import meta
from fs_common.records.following import Promised


def handlers(mount: Mount) -> Mapping[int, Handler]:
    nodes = mount.nodes

    def made(parent: int, name: bytes, reply: meta.AttributesReply, sent: int, *, new: bool = True) -> Result:
        """The answer for a name that was just made by a request that began at stamp `sent`. `new`: with its inode."""
        now = mount.now()
        attributes = reply.attributes
        nodes.touched(parent, attributes.ctime_ns, now, sent, attributes.type is meta.FileType.DIRECTORY, exact=new)
        node = nodes.learn(attributes, now, promised=reply.promised, new_since=sent if new else None)
        nodes.put_name(parent, name, node.inode, now)
        return new_entry(mount, node)

    async def mknod(request: Request) -> Result:
        asked = requests.parse_mknod(request.body)
        type_ = shown.TYPE_OF_MODE.get(asked.mode & 0o170000, meta.FileType.FILE)
        bits = asked.mode & 0o7777
        mode = bits & ~asked.umask
        nodes.change_names(request.node)
        stamp = nodes.stamp()
        reply: meta.AttributesReply = await mount.call_as(
            request,
            methods.MKNOD,
            lambda user: meta.Mknod(
                request.node, asked.name, type_, mode, mount.request_id(), asked.rdev, None, user, True, bits
            ),
        )
        answer = made(request.node, asked.name, reply, stamp)
        nodes.plain(nodes.node(reply.attributes.inode), mount.now())
        return answer

    async def mkdir(request: Request) -> Result:
        asked = requests.parse_mkdir(request.body)
        bits = asked.mode & 0o7777
        mode = bits & ~asked.umask
        nodes.change_names(request.node)
        stamp = nodes.stamp()
        reply: meta.AttributesReply = await mount.call_as(
            request,
            methods.MKDIR,
            lambda user: meta.Mkdir(
                request.node, asked.name, mode, mount.request_id(), False, None, user, relaxed=True, unmasked=bits
            ),
        )
        if reply.promised & Promised.NAMES:
            nodes.promise_names(reply.attributes.inode, stamp, empty=True)
        return made(request.node, asked.name, reply, stamp)

    async def symlink(request: Request) -> Result:
        asked = requests.parse_symlink(request.body)
        nodes.change_names(request.node)
        stamp = nodes.stamp()
        reply: meta.AttributesReply = await mount.call_as(
            request,
            methods.SYMLINK,
            lambda user: meta.Symlink(request.node, asked.name, asked.target, mount.request_id(), user, True),
        )
        return made(request.node, asked.name, reply, stamp)

    async def link(request: Request) -> Result:
        """Also gives a file that was made without a name its first one."""
        asked = requests.parse_link(request.body)
        nodes.change_names(request.node)
        sent = nodes.stamp()
        nodes.change(asked.oldnodeid)
        reply: meta.AttributesReply = await mount.call_as(
            request,
            methods.LINK,
            lambda user: meta.Link(
                asked.oldnodeid, b"", request.node, asked.name, mount.request_id(), user, relaxed=True
            ),
        )
        nodes.node(asked.oldnodeid).removed = False
        return made(request.node, asked.name, reply, sent, new=False)

    async def readlink(request: Request) -> Result:
        node = nodes.by_inode.get(request.node)
        if node is not None and node.attributes is not None and node.attributes.target:
            # A link's target never changes.
            return node.attributes.target
        reply: meta.ReadlinkReply = await mount.call_as(
            request, methods.READLINK, lambda user: meta.Readlink(request.node, b"", user)
        )
        return reply.target

    async def inode_of(request: Request, parent: int, name: bytes) -> int:
        """The inode of a name that is about to go; 0: there is none. Asked only if a file is open here at all."""
        known = nodes.names(parent).entries.get(name)
        if known is not None and known[0]:
            return known[0]
        if not mount.handles.files or nodes.certainly_absent(parent, name, mount.now()):
            return 0
        try:
            reply: meta.AttributesReply = await mount.call_as(
                request, methods.LOOKUP, lambda user: meta.Lookup(parent, name, user)
            )
        except EmberError as error:
            if error.code is Code.NOT_FOUND:
                return 0
            raise
        return reply.attributes.inode

    def gone(parent: int, name: bytes, inode: int, is_directory: bool | None, sent: int) -> None:
        """A name was taken from an inode, by a request that began at stamp `sent`. `is_directory` None: nobody
        knows."""
        now = mount.now()
        attributes = nodes.node(inode).attributes if inode else None
        if is_directory is None:
            nodes.change(parent)
        else:
            nodes.touched(parent, time.time_ns(), now, sent, -is_directory)
        nodes.put_name(parent, name, 0, now)
        if not inode:
            nodes.doubt()
            return
        nodes.change(inode)
        node = nodes.node(inode)
        if attributes is not None and (attributes.links <= 1 or attributes.type is meta.FileType.DIRECTORY):
            # Programs that have it open still see it as it was.
            node.removed = True
            node.expires = FOREVER
        if node.file is None:
            mount.cache.forget(inode)

    async def unlink(request: Request) -> Result:
        name = requests.parse_unlink(request.body)
        inode = await inode_of(request, request.node, name)
        if inode:
            await mount.hold(inode)
        nodes.change_names(request.node)
        sent = nodes.stamp()
        await mount.call_as(
            request, methods.UNLINK, lambda user: meta.Unlink(request.node, name, mount.request_id(), user, True)
        )
        gone(request.node, name, inode, False, sent)
        return None

    async def rmdir(request: Request) -> Result:
        name = requests.parse_rmdir(request.body)
        known = nodes.names(request.node).entries.get(name)
        nodes.change_names(request.node)
        sent = nodes.stamp()
        await mount.call_as(
            request, methods.RMDIR, lambda user: meta.Rmdir(request.node, name, mount.request_id(), user, True)
        )
        gone(request.node, name, known[0] if known is not None else 0, True, sent)
        return None

    async def rename(request: Request, asked: requests.Rename2) -> Result:
        exchange = bool(asked.flags & meta.RenameFlags.EXCHANGE)
        source = await inode_of(request, request.node, asked.old)
        replaced = await inode_of(request, asked.newdir, asked.new)
        known = bool(source) and (bool(replaced) or nodes.certainly_absent(asked.newdir, asked.new, mount.now()))
        if replaced and not exchange and not asked.flags & meta.RenameFlags.NO_REPLACE:
            await mount.hold(replaced)
        nodes.change_names(request.node, asked.newdir)
        sent = nodes.stamp()
        await mount.call_as(
            request,
            methods.RENAME,
            lambda user: meta.Rename(
                request.node, asked.old, asked.newdir, asked.new, mount.request_id(), asked.flags, user, True
            ),
        )
        if not known:
            nodes.doubt()
        now = mount.now()
        kinds = {is_directory(inode) for inode in ((source, replaced) if exchange else (source,))}
        if kinds == {False}:
            for parent in {request.node, asked.newdir}:
                nodes.touched(parent, time.time_ns(), now, sent)
        else:
            # Links of both may have changed.
            nodes.change(request.node, asked.newdir)
        if exchange:
            for directory, name, inode in ((request.node, asked.old, replaced), (asked.newdir, asked.new, source)):
                if inode:
                    nodes.change(inode)
                    nodes.put_name(directory, name, inode, now)
                else:
                    nodes.drop_name(directory, name)
            return None
        if source and source == replaced:
            # Two names of one file: POSIX leaves both.
            return None
        if replaced:
            gone(asked.newdir, asked.new, replaced, is_directory(replaced), sent)
        if asked.flags & meta.RenameFlags.WHITEOUT:
            nodes.drop_name(request.node, asked.old)
        else:
            nodes.put_name(request.node, asked.old, 0, now)
        if source:
            nodes.change(source)
            nodes.put_name(asked.newdir, asked.new, source, now)
        else:
            nodes.drop_name(asked.newdir, asked.new)
        return None

    def is_directory(inode: int) -> bool | None:
        """None: not known."""
        node = nodes.by_inode.get(inode) if inode else None
        if node is None or node.attributes is None:
            return None
        return node.attributes.type is meta.FileType.DIRECTORY

    def rename1(request: Request) -> object:
        return rename(request, from_root(requests.parse_rename(request.body)))

    def rename2(request: Request) -> object:
        return rename(request, from_root(requests.parse_rename2(request.body)))

    def from_root(asked: requests.Rename2) -> requests.Rename2:
        """The kernel's number for the root of the mount is not that of the directory."""
        return asked._replace(newdir=mount.root) if asked.newdir == ROOT_NODE else asked

    return {
        Opcode.MKNOD: mknod,
        Opcode.MKDIR: mkdir,
        Opcode.SYMLINK: symlink,
        Opcode.LINK: link,
        Opcode.READLINK: readlink,
        Opcode.UNLINK: unlink,
        Opcode.RMDIR: rmdir,
        Opcode.RENAME: rename1,  # type: ignore[dict-item]
        Opcode.RENAME2: rename2,  # type: ignore[dict-item]
    }
