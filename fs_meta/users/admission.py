"""Who is let in on the data plane of a metadata server, what each may call, and when he is put out.

Called by: `fs_meta.server`.
Page: docs/SECURITY.md.
"""

import logging
from typing import Final

import msgspec

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records.session import GivenPass, Hello
from fs_common.rpc import ANYBODY, Admission, Call, Reply, ServerSession, Service
from fs_common.security.identity import CLIENT
from fs_common.telemetry import LimitedLog
from fs_meta.users.users import Users

ADMINISTRATION: Final = frozenset((methods.SLOW_OPERATIONS.number,))
"""Methods of administrators alone: what took long of everybody, with names. The rest of administration is gRPC's."""
OF_DAEMONS: Final = frozenset((methods.PING.number, methods.STATS.number, methods.GET_ROUTING.number))
"""What storage daemons may call here; the rest of what they have to say goes to the manager."""
CLIENT_BYTES: Final = 16
"""Of `Hello.client`."""
NO_TOKEN: Final = (
    "this cluster has security on, and no token came with the connection: set EMBERFS_TOKEN_FILE, or give token_file"
)

_log = LimitedLog(logging.getLogger(__name__))


def guard(service: Service, users: Users) -> None:
    """Let `service` admit those that `users` knows. Called when all methods are registered."""
    service.register(methods.GET_PASS, lambda call: Reply(GivenPass(_pass(call, users))))
    ordinary = frozenset(service.registrations) - ADMINISTRATION

    def authenticate(hello: Hello) -> Admission:
        if not users.enabled:
            if hello.token:
                _log.line(logging.INFO, "a client of %s gives a token; security is off here, nobody asks", hello.host)
            return ANYBODY
        if len(hello.client) != CLIENT_BYTES:
            # None at all is the service itself, to operations that ask whose a session is.
            raise EmberError(Code.INVALID, f"a client id of {len(hello.client)} bytes, not {CLIENT_BYTES}")
        if not hello.token:
            raise EmberError(Code.UNAUTHENTICATED, NO_TOKEN)
        identity = users.identify(hello.token)
        if hello.role != identity.role:
            raise EmberError(Code.ACCESS_DENIED, f"{identity} says to be {hello.role!r}, which its token is not for")
        identity = msgspec.structs.replace(identity, client=hello.client)
        if identity.role != CLIENT:
            return Admission(identity, OF_DAEMONS)
        return Admission(identity, None if identity.admin else ordinary, users.vouching.give(identity))

    def end_sessions(tokens: frozenset[str]) -> None:
        reason = EmberError(Code.UNAUTHENTICATED, "the token of this connection is not valid any more")
        for session in [session for session in service.sessions if _of(session, tokens)]:
            session.end(reason)

    service.authenticate = authenticate
    users.revoked.append(end_sessions)


def _of(session: ServerSession, tokens: frozenset[str]) -> bool:
    return session.identity is not None and session.identity.token in tokens


def _pass(call: Call, users: Users) -> bytes:
    identity = call.session.identity
    return b"" if identity is None else users.vouching.give(identity)
