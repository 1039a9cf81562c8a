"""The metadata service's face to the data plane: each method's record goes to its operation, the answer goes back.

Holds no state. What an operation raises becomes an error frame (`fs_common.rpc`); a bug or a corrupt record becomes
INTERNAL there, with its traceback in the log.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fs_common import methods
from fs_common.methods import Method
from fs_common.records.routing import GetRouting, GetRoutingReply
from fs_common.records.session import Hello
from fs_common.rpc import Call, Handler, Reply, ServerSession, Service
from fs_meta.clients import Clients
from fs_meta.ops.access import access
from fs_meta.ops.batch_create import batch_create
from fs_meta.ops.batch_stat import batch_stat
from fs_meta.ops.close import close
from fs_meta.ops.context import Context
from fs_meta.ops.create import create
from fs_meta.ops.create_unnamed import create_unnamed
from fs_meta.ops.fsync import fsync
from fs_meta.ops.get_lock import get_lock
from fs_meta.ops.get_xattr import get_xattr
from fs_meta.ops.link import link
from fs_meta.ops.list_xattrs import list_xattrs
from fs_meta.ops.lock import lock
from fs_meta.ops.lookup import lookup
from fs_meta.ops.mkdir import mkdir
from fs_meta.ops.mknod import mknod
from fs_meta.ops.open import open_
from fs_meta.ops.readdir import readdir
from fs_meta.ops.readlink import readlink
from fs_meta.ops.real_path import real_path
from fs_meta.ops.release_locks import release_locks
from fs_meta.ops.remove_tree import remove_tree
from fs_meta.ops.remove_xattr import remove_xattr
from fs_meta.ops.rename import rename
from fs_meta.ops.rmdir import rmdir
from fs_meta.ops.set_attr import set_attr
from fs_meta.ops.set_xattr import set_xattr
from fs_meta.ops.stat import stat
from fs_meta.ops.statfs import statfs
from fs_meta.ops.symlink import symlink
from fs_meta.ops.sync import sync
from fs_meta.ops.truncate import truncate
from fs_meta.ops.unlink import unlink
from fs_meta.ops.usage import usage

Operation = Callable[[Context, Any], Awaitable[Any]]
CallersOperation = Callable[[Context, Any, ServerSession], Awaitable[Any]]

OPERATIONS: Final[dict[Method, Operation]] = {
    methods.STAT: stat,
    methods.BATCH_STAT: batch_stat,
    methods.LOOKUP: lookup,
    methods.STATFS: statfs,
    methods.CREATE: create,
    methods.BATCH_CREATE: batch_create,
    methods.OPEN: open_,
    methods.CLOSE: close,
    methods.FSYNC: fsync,
    methods.MKDIR: mkdir,
    methods.READDIR: readdir,
    methods.UNLINK: unlink,
    methods.RMDIR: rmdir,
    methods.REMOVE_TREE: remove_tree,
    methods.RENAME: rename,
    methods.SYMLINK: symlink,
    methods.READLINK: readlink,
    methods.LINK: link,
    methods.SET_ATTR: set_attr,
    methods.TRUNCATE: truncate,
    methods.REAL_PATH: real_path,
    methods.USAGE: usage,
    methods.CREATE_UNNAMED: create_unnamed,
    methods.ACCESS: access,
    methods.MKNOD: mknod,
    methods.GET_XATTR: get_xattr,
    methods.LIST_XATTRS: list_xattrs,
    methods.SET_XATTR: set_xattr,
    methods.REMOVE_XATTR: remove_xattr,
    methods.LOCK: lock,
    methods.GET_LOCK: get_lock,
    methods.RELEASE_LOCKS: release_locks,
    methods.SYNC: sync,
}
"""Every namespace method, and the operation that answers it."""

_OF_CALLERS: Final[dict[Method, CallersOperation]] = {
    methods.LOCK: lock,
    methods.FSYNC: lambda context, request, caller: fsync(context, request, caller.hello.client),
    methods.CLOSE: lambda context, request, caller: close(context, request, caller.hello.client),
    methods.TRUNCATE: lambda context, request, caller: truncate(context, request, caller.hello.client),
}
"""Those of `OPERATIONS` that are told who calls."""


_HOLDING: Final = frozenset((methods.CREATE, methods.OPEN, methods.CREATE_UNNAMED, methods.LOCK))
"""Those that leave something of the client named in the request: a session, a lock."""


def make_service(context: Context, cluster: str, clients: Clients) -> Service:
    """The table of handlers of one metadata process; `GET_ROUTING` is answered from `context.routing`.

    `clients` is told who connects, who is gone, and who may have something that outlives a connection.
    """
    service = Service("meta", cluster, 0)
    for method, operation in OPERATIONS.items():
        told = _OF_CALLERS.get(method)
        handler = _handler(context, operation) if told is None else _callers_handler(context, told)
        service.register(method, _noting(clients, handler) if method in _HOLDING else handler)

    def admit(hello: Hello) -> None:
        if hello.role == "client":
            clients.connected(hello.client)

    def ended(session: ServerSession) -> None:
        context.lock_waits.caller_lost(session)
        if session.hello.role == "client":
            clients.disconnected(session.hello.client, _loop_time())

    service.admit = admit
    # Whoever has closed its side wants no lock any more, and must not get one that nobody gives up.
    service.session_finished = context.lock_waits.caller_lost
    service.session_ended = ended

    def get_routing(call: Call) -> Reply:
        request: GetRouting = call.request
        routing = context.routing()
        # Who knows none is given even an empty one: None means that what the caller has is current.
        if routing is not None and request.known_version and routing.version == request.known_version:
            routing = None
        return Reply(GetRoutingReply(routing))

    service.register(methods.GET_ROUTING, get_routing)
    service.add_stats(lambda: {"inodes_in_use": context.inode_count.estimate, "clients": len(clients)})
    return service


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _noting(clients: Clients, handler: Handler) -> Handler:
    def handle(call: Call) -> Reply | Awaitable[Reply]:
        if call.request.client:
            clients.holds(call.request.client, _loop_time())
        return handler(call)

    return handle


def _handler(context: Context, operation: Operation) -> Handler:
    async def handle(call: Call) -> Reply:
        return Reply(await operation(context, call.request))

    return handle


def _callers_handler(context: Context, operation: CallersOperation) -> Handler:
    async def handle(call: Call) -> Reply:
        return Reply(await operation(context, call.request, call.session))

    return handle
