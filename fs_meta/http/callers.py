"""Who asks over HTTP, and whether he may: dependencies of the handlers.

`Reader`: any user of the cluster. `Administrator`: one whose token says so. Both are the caller's identity; None where
the cluster's security is off and nobody has to say who he is.
"""

from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fs_common.errors import Code, EmberError
from fs_common.records.meta import User
from fs_common.security.identity import CLIENT, Identity, require_admin
from fs_meta.http.backend import Backend

ROOT: Final = User()

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    bearerFormat="ember.<id>.<secret>",
    description="A token of the cluster. Where security is off none is needed, and one that is sent is not looked at.",
)


def backend_of(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


TheBackend = Annotated[Backend, Depends(backend_of)]


async def _reader(
    backend: TheBackend, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Identity | None:
    if not backend.security:
        return None
    if credentials is None:
        raise EmberError(
            Code.UNAUTHENTICATED, "this cluster has security on: send a token, as `Authorization: Bearer ember....`"
        )
    text = credentials.credentials
    identity = await backend.look(lambda: backend.users.identify(text))
    if identity.role != CLIENT:
        raise EmberError(Code.ACCESS_DENIED, f"the token of a {identity.role} daemon is for the daemon alone")
    return identity


Reader = Annotated[Identity | None, Depends(_reader)]


async def _administrator(request: Request, reader: Reader) -> Identity | None:
    require_admin(reader, f"{request.method} {request.url.path}")
    return reader


Administrator = Annotated[Identity | None, Depends(_administrator)]


def acting(identity: Identity | None) -> User:
    """As which user names are looked at: the caller's own; root where nobody has to say who he is, as such a cluster
    believes whatever user a client names."""
    return ROOT if identity is None else identity.acting(ROOT)
