"""GETXATTR, LISTXATTR, SETXATTR, REMOVEXATTR.

The kernel asks for access control lists before it checks permissions of others than the owner, and for capabilities
before the first write and before it executes a file. What the attributes say that there is not is answered from memory.
"""

import errno
import os
from collections.abc import Coroutine, Mapping
from typing import Any

from fs_client.fuse import answers, requests
from fs_client.fuse.abi import Opcode
from fs_client.fuse.control import FIRST
from fs_client.fuse.kernel_request import Handler, Request, Result
from fs_client.fuse.mount import Mount
from fs_client.fuse.mountpoint import PROBE_NAME
from fs_client.fuse.users import User
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records import meta

CAPABILITY = b"security.capability"
ACCESS_LIST = b"system.posix_acl_access"
DEFAULT_LIST = b"system.posix_acl_default"
_LISTS = (ACCESS_LIST, DEFAULT_LIST)
SELINUX = b"security.selinux"


def handlers(mount: Mount) -> Mapping[int, Handler]:
    nodes = mount.nodes
    selinux = os.path.ismount("/sys/fs/selinux")

    def getxattr(request: Request) -> bytes | Coroutine[Any, Any, Result]:
        asked = requests.parse_getxattr(request.body)
        if asked.name.startswith(b"system.") and asked.name not in _LISTS:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if asked.name == PROBE_NAME or plain(request.node) or told_absent(request.node, asked.name):
            raise absent(asked.name)
        return get(request, asked)

    def told_absent(inode: int, name: bytes) -> bool:
        """Whether the attributes, as far as they are believed, say that there is no such thing."""
        node = nodes.by_inode.get(inode)
        if node is None or node.attributes is None or not (node.removed or nodes.fresh(node, mount.now())):
            return inode >= FIRST
        attributes = node.attributes
        return (
            (name == ACCESS_LIST and not attributes.acl)
            or (name == DEFAULT_LIST and not attributes.default_acl)
            or (name == CAPABILITY and not attributes.capable)
        )

    def absent(name: bytes) -> OSError:
        """Without SELinux a listing that is told that there are no labels asks for one, instead of each."""
        code = errno.EOPNOTSUPP if name == SELINUX and not selinux else errno.ENODATA
        return OSError(code, os.strerror(code))

    async def get(request: Request, asked: requests.GetXattr) -> Result:
        try:
            reply: meta.XattrReply = await mount.call_as(
                request, methods.GET_XATTR, lambda user: meta.GetXattr(request.node, asked.name, user)
            )
        except EmberError as error:
            if error.code is Code.NO_XATTR:
                raise absent(asked.name) from error
            raise
        return sized(reply.value, asked.size)

    def listxattr(request: Request) -> bytes | Coroutine[Any, Any, Result]:
        room = requests.parse_listxattr(request.body)
        if plain(request.node):
            return sized(b"", room)
        return list_(request, room)

    async def list_(request: Request, room: int) -> Result:
        stamp = nodes.stamp()
        reply: meta.ListXattrsReply = await mount.call_as(
            request, methods.LIST_XATTRS, lambda user: meta.ListXattrs(request.node, user)
        )
        node = nodes.node(request.node)
        if not reply.names and not request.uid and stamp >= node.changed:
            node.plain_until = mount.now() + nodes.attribute_s
        return sized(b"".join(name + b"\0" for name in reply.names), room)

    async def setxattr(request: Request) -> Result:
        extended = mount.channel.negotiated is not None and mount.channel.negotiated.setxattr_extended
        asked = requests.parse_setxattr(request.body, extended=extended)
        nodes.change(request.node)
        nodes.node(request.node).plain_until = 0.0
        await mount.call_as(
            request,
            methods.SET_XATTR,
            lambda user: meta.SetXattr(
                request.node, asked.name, asked.value, mount.request_id(), asked.flags, user, True
            ),
            # Without the caller's groups the service takes the set-group-id bit away.
            grouped=asked.name == ACCESS_LIST,
        )
        changed(request.node)
        return None

    async def removexattr(request: Request) -> Result:
        name = requests.parse_removexattr(request.body)
        nodes.change(request.node)

        def make(user: User) -> meta.RemoveXattr:
            return meta.RemoveXattr(request.node, name, mount.request_id(), user, True)

        if name == CAPABILITY:
            # The kernel has checked who does this; it also does it itself when somebody writes to the file.
            await mount.call(methods.REMOVE_XATTR, make(User()))
        else:
            await mount.call_as(request, methods.REMOVE_XATTR, make)
        changed(request.node)
        return None

    def changed(inode: int) -> None:
        nodes.change(inode)
        node = nodes.node(inode)
        node.plain_until = 0.0
        if node.file is not None:
            node.file.names_unsynced = True

    def plain(inode: int) -> bool:
        """Whether it certainly has no attributes."""
        node = nodes.by_inode.get(inode)
        return node is not None and node.plain_until > mount.now()

    return {
        Opcode.GETXATTR: getxattr,
        Opcode.LISTXATTR: listxattr,
        Opcode.SETXATTR: setxattr,
        Opcode.REMOVEXATTR: removexattr,
    }


def sized(value: bytes, room: int) -> bytes:
    """The answer: the value, or, to who asked without room, its size."""
    if not room:
        return answers.xattr_out(len(value))
    if len(value) > room:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return value
