"""Which files a client may read and write here, if it acts for one user alone.

It shows permits of the metadata service (`fs_common.security.permits`) on its connection; a request for a file without
one is refused as a whole, before anything of it is done (PERMIT_NEEDED), and sent again behind the permit.

Daemons, mounts and root need none, and cost one look at their identity for each request.

Called by: `service`. Page: docs/SECURITY.md.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from fs_common.errors import Code, EmberError
from fs_common.records.session import Empty, ShowPermit
from fs_common.rpc import Call, Handler, Reply
from fs_common.security.keys import KeyRing
from fs_common.security.permits import Right, check_permit

FILES_MAX: Final = 1 << 18
"""Whose rights are kept for one connection. Beyond them all are forgotten, and shown again as they are needed."""


def of_items(request: Any) -> Iterable[int]:
    """The files of READ_CHUNKS, UPDATE_CHUNKS, WARM_CHUNKS."""
    return (item.inode for item in request.items)


def of_file(request: Any) -> Iterable[int]:
    """The file of QUERY_LAST_CHUNK and LIST_CHUNKS."""
    return (request.inode,)


def permitted(handler: Handler, files: Callable[[Any], Iterable[int]], right: Right) -> Handler:
    """The handler for those who may: of `right`, one is enough."""
    wanted = int(right)

    def handle(call: Call) -> Reply | Awaitable[Reply]:
        session = call.session
        identity = session.identity
        if identity is not None and identity.needs_permits:
            held = session.permits
            for inode in files(call.request):
                if held is None or not held.get(inode, 0) & wanted:
                    raise EmberError(Code.PERMIT_NEEDED, f"{identity} has shown no permit for file {inode}")
        return handler(call)

    return handle


def show_permit(ring: Callable[[], KeyRing | None]) -> Handler:
    """The handler of SHOW_PERMIT. `ring`: the keys in use now; None: security is off, and nobody asks."""

    def handle(call: Call) -> Reply:
        request: ShowPermit = call.request
        keys = ring()
        session = call.session
        if keys is None or session.identity is None:
            return Reply(Empty())
        permit = check_permit(keys, request.permit, session.hello.client)
        held = session.permits
        if held is None or len(held) + len(permit.inodes) > FILES_MAX:
            held = session.permits = {}
        held.update(zip(permit.inodes, permit.rights, strict=True))
        return Reply(Empty())

    return handle
