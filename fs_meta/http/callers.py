"""Who asks over HTTP, and whether he may: dependencies of the handlers.

`Reader`: any user of the cluster. `Administrator`: one whose token says so. Without security everybody is both.
"""

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fs_meta.http.backend import Backend

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A token of the cluster: `Authorization: Bearer ember....`. Not asked for where security is off.",
)


def backend_of(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


TheBackend = Annotated[Backend, Depends(backend_of)]


async def _reader(
    backend: TheBackend, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Any:
    return None


async def _administrator(reader: Annotated[Any, Depends(_reader)]) -> Any:
    return reader


Reader = Annotated[Any, Depends(_reader)]
Administrator = Annotated[Any, Depends(_administrator)]
