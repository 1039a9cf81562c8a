"""The metadata service's face to the data plane: each method's record goes to its operation, the answer goes back.

Holds no state. What an operation raises becomes an error frame (`fs_common.rpc`); a bug or a corrupt record becomes
INTERNAL there, with its traceback in the log.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.ids import shown_client
from fs_common.methods import Method
from fs_common.records.following import FollowReply
from fs_common.records.meta import AttributesReply, Open, OpenReply, ReaddirReply
from fs_common.records.session import Hello
from fs_common.rpc import Call, Handler, Reply, ServerSession, Service
from fs_common.security.identity import Grants
from fs_meta.clients import Clients
from fs_meta.following import FollowedStore, Following
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
from fs_meta.ops.kept import kept
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
from fs_meta.routing_news import RoutingNews
from fs_meta.store_times import clock_ns

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
    methods.KEPT: kept,
}
"""Every namespace method, and the operation that answers it."""

OF_CALLERS: Final[dict[Method, CallersOperation]] = {
    methods.LOCK: lock,
    methods.FSYNC: lambda context, request, caller: fsync(context, request, caller.hello.client),
    methods.CLOSE: lambda context, request, caller: close(context, request, caller.hello.client),
    methods.TRUNCATE: lambda context, request, caller: truncate(context, request, caller.hello.client),
}
"""Those of `OPERATIONS` that are told who calls."""


_HOLDING: Final = frozenset((methods.CREATE, methods.OPEN, methods.CREATE_UNNAMED, methods.LOCK))
"""Those that leave something of the client named in the request: a session, a lock."""

_NAMING: Final = _HOLDING | {methods.GET_LOCK, methods.RELEASE_LOCKS}
"""Those whose requests name a client: the one that is connected, and no other."""

_READING: Final = frozenset((methods.STAT, methods.LOOKUP, methods.ACCESS, methods.READDIR))
"""Those that change nothing: what they say is of now. An answer to a change may be an old one, given again."""


_TOLD_TO_CALLERS: Final = frozenset((methods.REMOVE_TREE,))
"""Those whose callers do not know what they change: they are told like everybody else."""


def make_service(
    context: Context,
    cluster: str,
    clients: Clients,
    following: Following | None = None,
    news: RoutingNews | None = None,
) -> Service:
    """The table of handlers of one metadata process.

    `clients` is told who connects, who is gone, and who may have something that outlives a connection. `following`: of
    `context.kv`, which is a `FollowedStore`; without it nothing is promised. `news` answers GET_ROUTING and is told of
    changes by the caller; without it nobody tells, and calls that wait have their answer when their time is over.
    """
    service = Service("meta", cluster, 0)
    callers = _Callers(context, following)
    for method, operation in OPERATIONS.items():
        handler = _handler(callers, method, operation, OF_CALLERS.get(method))
        if method in _HOLDING:
            handler = _noting(clients, handler)
        service.register(method, _own(handler) if method in _NAMING else handler)

    def admit(hello: Hello) -> None:
        if hello.role == "client":
            clients.connected(hello.client, hello.host, hello.pid, hello.program, _loop_time())

    def ended(session: ServerSession) -> None:
        context.lock_waits.caller_lost(session)
        context.lock_questions.caller_lost(session.hello.client, session)
        callers.ended(session)
        if session.hello.role == "client":
            clients.disconnected(session.hello.client, _loop_time())

    service.admit = admit
    # Whoever has closed its side wants no lock any more, and must not get one that nobody gives up.
    service.session_finished = context.lock_waits.caller_lost
    service.session_ended = ended

    routing_news = news or RoutingNews(context.routing)

    def get_routing(call: Call) -> Reply | Awaitable[Reply]:
        answer = routing_news.now(call.request)
        return newer_routing(call) if answer is None else Reply(answer)

    async def newer_routing(call: Call) -> Reply:
        return Reply(await routing_news.newer(call.request))

    async def follow(call: Call) -> Reply:
        if following is None:
            return Reply(FollowReply(0, 0, [], [], 0))
        return Reply(await following.follow(call.session.hello.client, call.request, _holder(call.session)))

    service.register(methods.GET_ROUTING, get_routing)

    async def lock_questions(call: Call) -> Reply:
        return Reply(
            await context.lock_questions.listen(call.session.hello.client, call.request.answered, call.session)
        )

    service.register(methods.FOLLOW, follow)
    service.register(methods.LOCK_QUESTIONS, lock_questions)

    def stats() -> dict[str, int]:
        counters = {
            "inodes_in_use": context.inode_count.estimate,
            "clients": len(clients),
            "routing_waits": routing_news.waiting,
        }
        if following is not None:
            counters |= {"followers": len(following.promises), "promises": following.promises.held}
        return counters

    service.add_stats(stats)
    return service


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _holder(session: ServerSession) -> str:
    """Who answers for a follower: its user, wherever he is; of a mount for all users of a machine, the machine, too.
    Nobody ("") where nobody is asked who he is: all would answer for each."""
    host, identity = session.address.rpartition(":")[0], session.identity
    if identity is None:
        return ""
    if identity.grants & Grants.ANY_USER:
        return f"a mount of {identity} at {host}"
    return f"user {identity.name!r}"


def _own(handler: Handler) -> Handler:
    """A client opens, locks and gives up locks for itself alone. What a request that names nobody leaves behind is its
    caller's too, and goes with him."""

    def handle(call: Call) -> Reply | Awaitable[Reply]:
        hello, request = call.session.hello, call.request
        if not request.client:
            if getattr(request, "write", True) or getattr(request, "hold", False):
                call.request = msgspec.structs.replace(request, client=hello.client)
        elif request.client != hello.client:
            raise EmberError(
                Code.NOT_PERMITTED,
                f"the request is for client {shown_client(call.request.client)}, and comes from client"
                f" {shown_client(hello.client)}",
            )
        return handler(call)

    return handle


def _noting(clients: Clients, handler: Handler) -> Handler:
    def handle(call: Call) -> Reply | Awaitable[Reply]:
        if call.request.client:
            clients.holds(call.request.client, _loop_time())
        return handler(call)

    return handle


class _Callers:
    """What an operation works with, by who calls: a follower is not told of its own changes."""

    def __init__(self, context: Context, following: Following | None) -> None:
        self.context = context
        self.following = following
        self._own: dict[bytes, tuple[Context, FollowedStore]] = {}

    def of(self, client: bytes) -> tuple[Context, FollowedStore]:
        own = self._own.get(client)
        if own is None:
            base = self.context.kv
            assert isinstance(base, FollowedStore)
            store = base.by(client)
            own = self._own[client] = (dataclasses.replace(self.context, kv=store), store)
        return own

    def ended(self, session: ServerSession) -> None:
        self._own.pop(session.hello.client, None)


def _handler(callers: _Callers, method: Method, operation: Operation, told: CallersOperation | None) -> Handler:
    following = callers.following
    times_of = None if following is None else following.times.of
    names_user = "user" in method.request.__struct_fields__

    async def handle(call: Call) -> Reply:
        request, session = call.request, call.session
        if times_of is not None:
            began_ns = clock_ns()
            call.times = lambda: times_of(call.trace, began_ns)
        if names_user and session.identity is not None:
            user = session.identity.acting(request.user)
            if user is not request.user:
                request = msgspec.structs.replace(request, user=user)
        follower = None if following is None else following.follower(session.hello.client)
        if follower is None or method in _TOLD_TO_CALLERS:
            context = callers.context
            return Reply(await (operation(context, request) if told is None else told(context, request, session)))
        assert following is not None
        context, store = callers.of(follower.client)
        stamp = following.promises.stamp()
        reply = await (operation(context, request) if told is None else told(context, request, session))
        # Nothing has run since the operation has looked at the store, or ended its transaction.
        if isinstance(reply, _PROMISING) and (store.wrote or method in _READING or _only_reads(request)):
            promised = following.promised(follower, request, reply, stamp)
            if promised:
                reply = msgspec.structs.replace(reply, promised=promised)
        return Reply(reply)

    return handle


_PROMISING = (AttributesReply, OpenReply, ReaddirReply)


def _only_reads(request: Any) -> bool:
    return isinstance(request, Open) and not request.write and not request.hold
