"""Set-id bits go when somebody without privilege changes a file's bytes: what Linux's file_modified() does.

The kernel leaves it to us (HANDLE_KILLPRIV_V2). Of writes it tells by a flag that the caller has no privilege, of other
changes nothing but who the caller is. It believes the attributes that it has until their time is over, the mode among
them, and looks at no answer to a change of bytes for another: so it is told that they are wrong before the program has
its answer. Nobody sees or runs the file with the bits from then on.

Truncates drop the bits at the service, in the same step.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fs_client.fuse.files import File
    from fs_client.fuse.mount import Mount

BITS = 0o6000


async def drop_set_id(mount: "Mount", file: "File") -> None:
    """Somebody without privilege changes the file: on return its set-id bits are gone, if it had any, and so are its
    capabilities. Where they were
    set so lately that this mount does not know, they go when the service is told of the change."""
    node = await mount.attributes(file.inode)
    file.unsettled.unprivileged()
    assert node.attributes is not None
    if node.attributes.mode & BITS or node.attributes.capable:
        await file.settle()
        await mount.channel.notify_attributes(file.inode)
