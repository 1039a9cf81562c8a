"""Look-ups that memory does not answer, and looking ahead of those that walk through a directory.

A walk asks for one name after another. From the second look-up in a row on, a page of the directory with attributes is
fetched instead of the one name, from that name on, so that the following look-ups find it in memory. How large a page
is, is learned like a read-ahead: it doubles while look-ups go on behind the last page, and shrinks to nothing while
they jump about, because then most of a page would be fetched in vain. A name that a page lacked is no walk: who makes
or renames files asks for such names, and they are asked for one by one.
"""

from typing import TYPE_CHECKING

from fs_client.fuse.nodes import Names, Node
from fs_client.fuse.users import user_of
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.limits import NAME_BYTES_MAX
from fs_common.records import meta
from fs_common.records.following import Promised

if TYPE_CHECKING:
    from fs_client.fuse.kernel_request import Request
    from fs_client.fuse.mount import Mount

WALK_GAP_S = 1.0
"""Look-ups further apart than this are no walk."""
SIZE_FIRST = 32
SIZE_MAX = 1024
JUMPS_MAX = 3
"""Pages in a row that were not followed: then names are asked for one by one, for `PLAIN` look-ups."""
PLAIN = 64


class LookAhead:
    def __init__(self, mount: "Mount") -> None:
        self._mount = mount

    async def lookup(self, request: "Request", parent: int, name: bytes) -> tuple[Node, float]:
        """The node of a name, with attributes, and until when the name is believed. Raises NOT_FOUND, ..."""
        mount = self._mount
        names = mount.nodes.names(parent)
        now = mount.now()
        walking = now - names.last_miss < WALK_GAP_S and mount.nodes.name_s > 0
        names.last_miss = now
        names.ahead_misses = names.ahead_misses + 1 if walking else 0
        if walking and names.ahead_misses >= 2 and name not in (b".", b".."):
            size = self._page_size(names, name) if names.listed_until(name, now) is None else 0
            if size:
                found = await self._page(parent, names, name, size, request)
                if found is not None:
                    return found
        return await self._one(request, parent, name)

    async def _one(self, request: "Request", parent: int, name: bytes) -> tuple[Node, float]:
        mount = self._mount
        nodes = mount.nodes
        stamp = nodes.stamp()
        try:
            reply: meta.AttributesReply = await mount.call_as(
                request, methods.LOOKUP, lambda user: meta.Lookup(parent, name, user)
            )
        except EmberError as error:
            if error.code is Code.NOT_FOUND:
                nodes.adopt_name(parent, name, 0, stamp, mount.now())
            raise
        now = mount.now()
        node = nodes.adopt(reply.attributes, stamp, now, reply.promised)
        if name not in (b".", b".."):
            if reply.promised & Promised.NAMES:
                nodes.promise_names(parent, stamp)
            nodes.adopt_name(parent, name, node.inode, stamp, now)
        return node, now + nodes.name_s

    def _page_size(self, names: Names, name: bytes) -> int:
        """How many names to fetch; 0: only this one."""
        last = names.spans[-1] if names.spans else None
        if last is None or names.ahead_size == 0:
            if names.ahead_misses % PLAIN == 2:
                names.ahead_size = SIZE_FIRST
                return SIZE_FIRST
            return 0
        begin, end, _ = last
        if end is None or (begin < name and name <= _beyond(end)):
            names.ahead_size = min(names.ahead_size * 4, SIZE_MAX)
        elif name > end:
            # A walk goes on close behind what was listed; how close is not known, so any later name counts.
            names.ahead_size = min(names.ahead_size * 2, SIZE_MAX)
        else:
            names.ahead_size //= 4
            if names.ahead_size < SIZE_FIRST // JUMPS_MAX:
                names.ahead_size = 0
        return names.ahead_size

    async def _page(
        self, parent: int, names: Names, name: bytes, size: int, request: "Request"
    ) -> tuple[Node, float] | None:
        """Fetch a page that begins with `name`, if it exists. None: ask for the name alone."""
        mount = self._mount
        nodes = mount.nodes
        after = before(name)
        stamp = nodes.stamp()
        listing = meta.Readdir(parent, after, size, True, user_of(request))
        try:
            reply: meta.ReaddirReply = await mount.call(methods.READDIR, listing)
        except EmberError as error:
            if error.code in (Code.ACCESS_DENIED, Code.STALE):
                # To look a name up takes less than to list. What becomes of a directory that is gone it knows, too.
                return None
            raise
        now = mount.now()
        nodes.adopt_page(parent, after, reply.entries, reply.more, stamp, now, reply.promised)
        if nodes.node(parent).changed > stamp:
            # Names changed here meanwhile: what the page lacks may be there by now.
            return None
        if all(entry.name != name for entry in reply.entries):
            # Asked just now, by name as it were.
            nodes.put_name(parent, name, 0, now)
            raise EmberError(Code.NOT_FOUND, f"{name!r} is not in directory {parent}")
        found = nodes.find(parent, name, now)
        if found is None:
            return None
        inode, until = found
        node = nodes.by_inode.get(inode)
        if node is None or not nodes.fresh(node, now):
            return None
        return node, until


def before(name: bytes) -> bytes:
    """A name that sorts before `name`, with few names in between (those that begin like it and sort after)."""
    last = name[-1]
    if last <= 1:
        return name[:-1]
    return (name[:-1] + bytes([last - 1]) + b"\xff" * 4)[:NAME_BYTES_MAX]


def _beyond(name: bytes) -> bytes:
    return name + b"\xff"
