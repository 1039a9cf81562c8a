"""Setting a file's length through the mount.

Steps: (1) writes of the file wait (`changing`); (2) what was written is stored; (3) the service cuts the chunks and
sets the length; (4) length, hints and caches here follow. A failure after (2) leaves the old length.
"""

import stat
from typing import TYPE_CHECKING

from fs_client.fuse.users import User
from fs_common import methods
from fs_common.records import meta

if TYPE_CHECKING:
    from fs_client.fuse.handles import Handle
    from fs_client.fuse.kernel_request import Request
    from fs_client.fuse.mount import Mount


async def truncate(mount: "Mount", request: "Request", inode: int, length: int, handle: "Handle | None") -> None:
    """`handle`: a descriptor that is open for writing, whose right was checked at its open; None: the user's right."""
    file = mount.nodes.node(inode).file
    session = b""

    def make(user: User) -> meta.Truncate:
        return meta.Truncate(inode, length, mount.request_id(), user, session, relaxed=True)

    attributes = mount.nodes.node(inode).attributes
    # Whether the set-group-id bit goes depends on the caller's groups.
    grouped = attributes is not None and bool(attributes.mode & stat.S_ISGID)
    reply: meta.AttributesReply
    if file is None:
        mount.nodes.change(inode)
        reply = await mount.call_as(request, methods.TRUNCATE, make, grouped=grouped)
        mount.nodes.learn(reply.attributes, mount.now())
        mount.cache.invalidate(inode)
        return
    async with file.cutting():
        await file.back.flush()
        if handle is not None:
            # A handle whose session a flush has ended has the right all the same; but its user's privilege counts.
            session = handle.session or await file.have_session()
        old = file.length
        mount.nodes.change(inode)
        reply = await mount.call_as(request, methods.TRUNCATE, make, grouped=grouped)
        file.unsettled.cut(reply.attributes)
        file.names_unsynced = True
        mount.cache.invalidate(inode, file.chunk_size, min(old, length))
        # The version grew only if the service's length was another: a growth may be somebody else's.
        file.adopt_own(reply.attributes, None)
