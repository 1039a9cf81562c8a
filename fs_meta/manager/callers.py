"""Who calls on the control plane, and what each may: asked before any method runs.

What a method is for is in its name, so that one which is added is not open by having been forgotten: `Heartbeat` and
`Pull...` are daemons', `Get...`, `List...` and `Watch...` read and are anybody's who is known, all others administer.
Health is everybody's: it says nothing but that the server lives.

Page: docs/SECURITY.md.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio

from fs_common.errors import Code, EmberError
from fs_common.security.bearer import shown_token
from fs_common.security.identity import STORAGE, Identity, require_admin
from fs_meta.manager.grpc_errors import abort
from fs_meta.users.admission import NO_TOKEN
from fs_meta.users.users import Users

PUBLIC: Final = "/grpc.health.v1.Health/"
REFLECTION: Final = "/grpc.reflection."
OF_DAEMONS: Final = ("Heartbeat", "Pull")
READING: Final = ("Get", "List", "Watch")
OF_ADMINISTRATORS: Final = frozenset(("ListUsers", "ListTokens"))
"""Although they only read."""


class Callers(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """The interceptor of a server, and what its methods ask."""

    def __init__(self, users: Users) -> None:
        self._users = users

    def identify(self, context: Any) -> Identity | None:
        """Who makes a call, asked now: a stream asks before each answer, as its token may have been revoked meanwhile.
        None: security is off. Raises UNAUTHENTICATED."""
        return self._identify(context.invocation_metadata())

    def require_admin(self, context: Any, what: str) -> None:
        """As `identify`. Raises also ACCESS_DENIED: it may not administer (any more)."""
        require_admin(self.identify(context), what)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or details.method.startswith(PUBLIC):
            return handler
        try:
            identity = self._identify(details.invocation_metadata)
            if identity is not None:
                _require(identity, details.method)
        except EmberError as error:
            return _refusing(handler, error)
        return handler

    def _identify(self, metadata: Any) -> Identity | None:
        if not self._users.enabled:
            return None
        token = shown_token(metadata or ())
        if not token:
            raise EmberError(Code.UNAUTHENTICATED, NO_TOKEN)
        return self._users.identify(token)


def _require(identity: Identity, method: str) -> None:
    """Raises ACCESS_DENIED."""
    name = method.rpartition("/")[2]
    if method.startswith(REFLECTION):
        return
    if name.startswith(OF_DAEMONS):
        if identity.role != STORAGE:
            raise EmberError(Code.ACCESS_DENIED, f"{name} is for daemons, which {identity} is not")
        return
    if name.startswith(READING) and name not in OF_ADMINISTRATORS:
        return
    require_admin(identity, name)


def _refusing(handler: Any, error: EmberError) -> Any:
    """A handler of the same kind that refuses."""

    async def refuse(request: Any, context: Any) -> Any:
        await abort(context, error)

    async def refuse_stream(request: Any, context: Any) -> Any:
        await refuse(request, context)
        yield

    kinds = {
        (False, False): (grpc.unary_unary_rpc_method_handler, refuse),
        (False, True): (grpc.unary_stream_rpc_method_handler, refuse_stream),
        (True, False): (grpc.stream_unary_rpc_method_handler, refuse),
        (True, True): (grpc.stream_stream_rpc_method_handler, refuse_stream),
    }
    make, behaviour = kinds[handler.request_streaming, handler.response_streaming]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)
