"""Who is let in by a storage daemon, what each may call, and what the daemon shows to others.

What it goes by (`fs_common.manager_client.Security`) comes with the heartbeats' answers. Before the first one a daemon
that has a token lets nobody in; one without a token belongs to a cluster that asks nobody, or is refused by its manager
and serves nothing.

Invariants:
* with security on, every session has an identity that a pass has shown;
* a session ends with its token, and with the key under which its pass was made: a revoked token is listed no longer
  than that. Its caller comes again with a newer pass.

Used from the daemon's loop. Called by: `service.Daemon`.
Page: docs/SECURITY.md.
"""

from collections.abc import Awaitable, Collection
from typing import Final

import msgspec

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.manager_client import Security
from fs_common.methods import Method
from fs_common.peers import Address
from fs_common.records.session import Hello, Welcome
from fs_common.rpc import ANYBODY, Admission, Call, Handler, Reply, Service
from fs_common.security.identity import CLIENT, META, STORAGE, Identity
from fs_common.security.keys import KeyRing, refuse_pass
from fs_common.security.passes import check_pass, key_of

TARGETS_OF_NODE: Final = 100
"""A target's id is its node's times this, and a number (`fs_common.ids.TargetId`)."""


def _numbers(*named: Method) -> frozenset[int]:
    return frozenset(method.number for method in named)


OF_CLIENTS: Final = _numbers(
    methods.PING,
    methods.STATS,
    methods.READ_CHUNKS,
    methods.UPDATE_CHUNKS,
    methods.QUERY_LAST_CHUNK,
    methods.LIST_CHUNKS,
    methods.SYNC_CHAINS,
    methods.SUSPECT_CHUNKS,
    methods.SPACE_INFO,
    methods.WARM_CHUNKS,
    methods.SHOW_PERMIT,
)
OF_ADMINISTRATORS: Final = OF_CLIENTS | _numbers(
    methods.LIST_HELD, methods.SCRUB, methods.REMOVE_FILES, methods.REFILL_TARGET, methods.SLOW_OPERATIONS
)
"""`fsck`, `scrub`, `info`."""
OF_META: Final = OF_ADMINISTRATORS | _numbers(methods.REMOVE_CHUNKS)
OF_REPLICAS: Final = _numbers(
    methods.PING,
    methods.STATS,
    methods.READ_CHUNKS,
    methods.UPDATE_CHUNKS,
    methods.COMMITTED_VERSIONS,
    methods.AT_VERSION,
    methods.LIST_HELD,
    methods.LIST_REMEMBERED,
    methods.PULL_VERSION,
    methods.FINISH_SYNC,
    methods.SUSPECT_CHUNKS,
    methods.REFILL_TARGET,
)


class Gate:
    """A `fs_common.peers.Introduction`, and the `authenticate` of the daemon's service."""

    def __init__(self, service: Service, hello: Hello, *, expected: bool) -> None:
        """`expected`: the daemon has a token, so that security may be on."""
        self._service = service
        self._hello = hello
        self._security: Security | None = None
        """None: nobody is asked, or nothing was heard yet."""
        self._heard = not expected
        service.authenticate = self.authenticate

    # What the manager says

    def adopt(self, security: Security | None) -> None:
        """Go by this from now on; None: security is off."""
        self._heard = True
        self._security = security
        shown = b"" if security is None else security.given_pass
        self._hello = msgspec.structs.replace(self._hello, shown_pass=shown)
        if security is None:
            return
        for session in list(self._service.sessions):
            identity = session.identity
            if identity is None:
                session.end(refuse_pass("security was turned on: connect with a pass"))
            elif identity.token in security.revoked:
                session.end(_revoked(identity))
            elif security.ring.key(key_of(session.hello.shown_pass)) is None:
                session.end(refuse_pass("the key under which the pass was made is not in use any more: show a new one"))

    @property
    def ring(self) -> KeyRing | None:
        """The keys that are valid now; None: security is off, as far as is known."""
        return None if self._security is None else self._security.ring

    # Who calls

    def authenticate(self, hello: Hello) -> Admission:
        """See `Service.authenticate`. Raises PASS_REFUSED, CLUSTER_NOT_READY, ACCESS_DENIED."""
        security = self._security
        if security is None:
            if self._heard:
                return ANYBODY
            raise EmberError(Code.CLUSTER_NOT_READY, "this daemon has not heard from its manager yet: try again")
        identity = check_pass(security.ring, hello.shown_pass)
        if identity.client != hello.client:
            raise refuse_pass("the pass is another client's")
        if identity.role != hello.role:
            raise refuse_pass(f"the pass is for a {identity.role!r}, the caller says to be {hello.role!r}")
        if identity.token in security.revoked:
            raise _revoked(identity)
        return Admission(identity, _may_call(identity))

    # What is shown to other daemons

    def hello(self, address: Address) -> Hello:
        return self._hello

    def greeted(self, address: Address, welcome: Welcome) -> None:
        pass

    async def renew(self, address: Address) -> bool:
        return False


def _may_call(identity: Identity) -> frozenset[int]:
    if identity.role == CLIENT:
        return OF_ADMINISTRATORS if identity.admin else OF_CLIENTS
    if identity.role == STORAGE:
        return OF_REPLICAS
    if identity.role == META:
        return OF_META
    raise refuse_pass(f"the pass is for a {identity.role!r}, which this release does not know")


def _revoked(identity: Identity) -> EmberError:
    return refuse_pass(f"token {identity.token} is not valid any more")


FROM_NO_TARGET: Final = frozenset((CLIENT, META))
"""Updates that enter at a head: of no target."""
FOR_COMPARISON: Final = frozenset((CLIENT, META, STORAGE))
"""Lists that are compared, which says nothing of who asks."""


def of_its_own(handler: Handler, field: str, *, otherwise: Collection[str] = ()) -> Handler:
    """A handler whose requests name in `field` the target that sends them: its own node alone speaks for a target.
    `otherwise`: the roles that may name none (0)."""

    def handle(call: Call) -> Reply | Awaitable[Reply]:
        identity = call.session.identity
        if identity is not None:
            target = getattr(call.request, field)
            if not (identity.speaks_for(target // TARGETS_OF_NODE) if target else identity.role in otherwise):
                raise EmberError(Code.ACCESS_DENIED, f"{identity} does not speak for target {target}")
        return handler(call)

    return handle
