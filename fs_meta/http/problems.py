"""Errors as people and programs get them over HTTP: problem+json (RFC 9457), one row of the error table each.

A problem names its row (`name`, `number`) and its retry class: programs match on these, and never on its text. Which
HTTP status a row has is told by `STATUS_OF` alone. What is malformed by the description of the API is refused with
422 before anybody is asked; INVALID of the service is a well-formed request that does not go with the cluster's state.
"""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from fs_common.errors import Code, EmberError

MEDIA_TYPE: Final = "application/problem+json"

STATUS_OF: Final[Mapping[Code, int]] = {
    Code.BAD_BODY: 400,
    Code.TOO_LARGE: 413,
    Code.UNKNOWN_METHOD: 404,
    Code.BUSY: 503,
    Code.CLOSING: 503,
    Code.TIMED_OUT: 504,
    Code.NOT_FOUND: 404,
    Code.EXISTS: 409,
    Code.NOT_DIRECTORY: 409,
    Code.IS_DIRECTORY: 409,
    Code.NAME_TOO_LONG: 404,
    Code.INVALID: 409,
    Code.LOOP: 409,
    Code.NOT_PERMITTED: 403,
    Code.ACCESS_DENIED: 403,
    Code.UNAUTHENTICATED: 401,
    Code.STALE: 404,
    Code.KV_CONFLICT: 503,
    Code.NODE_UNKNOWN: 404,
    Code.CLUSTER_NOT_READY: 503,
    Code.NOT_MANAGER: 503,
}
"""A row that is not here is a failure of the cluster: 500."""

_OF_FRAMEWORK: Final = {
    400: Code.BAD_BODY,
    404: Code.UNKNOWN_METHOD,
    405: Code.UNKNOWN_METHOD,
    413: Code.TOO_LARGE,
    415: Code.BAD_BODY,
}


class Wrong(BaseModel):
    """One thing that is wrong about a request."""

    where: str = Field(description="The part of the request and the name in it.", examples=["query.limit"])
    what: str = Field(examples=["Input should be less than or equal to 1000"])


class Problem(BaseModel):
    """Why a request failed. `name` and `number` are those of the error table, and stable; texts are for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "/api/v1/errors/NODE_UNKNOWN",
                    "title": "register the node first",
                    "status": 404,
                    "detail": "there is no node 9",
                    "instance": "/api/v1/nodes/9",
                    "name": "NODE_UNKNOWN",
                    "number": 400,
                    "retry": "final",
                    "errors": [],
                }
            ]
        }
    )

    type: str = Field(description="Where the row of the error table is described.")
    title: str = Field(description="What its receiver does about it.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened, to what, and what to do: one line.")
    instance: str = Field(description="The path of the request.")
    name: str = Field(description="Of the row of the error table.")
    number: int = Field(description="Of the row of the error table.")
    retry: str = Field(description="What the same request may do: `safe`, `after refresh`, `maybe applied`, `final`.")
    errors: list[Wrong] = Field(default=[], description="Of a request that is malformed: what is.")


def problem(
    request: Request,
    code: Code,
    detail: str = "",
    *,
    status: int | None = None,
    errors: list[Wrong] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    row = code.value
    body = Problem(
        type=f"/api/v1/errors/{row.name}",
        title=row.advice,
        status=STATUS_OF.get(code, 500) if status is None else status,
        detail=detail or row.advice,
        instance=request.url.path,
        name=row.name,
        number=row.number,
        retry=row.retry.value,
        errors=errors or [],
    )
    sent = dict(headers or {})
    if body.status == 503:
        sent.setdefault("Retry-After", "1")
    return JSONResponse(body.model_dump(), body.status, sent, MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an operation of the API declares to fail with, beyond what any of them may (`EVERYWHERE`)."""
    return {status: _declared(_MEANING[status]) for status in (*statuses, *EVERYWHERE)}


EVERYWHERE: Final = (401, 403, 422, 500, 503, 504)
OF_BODIES: Final = (400, 413, 415)
"""Of operations that take a body."""
_MEANING: Final = {
    400: "The request is malformed",
    401: "No token, or one that nobody knows",
    403: "The caller may not do that, or the request comes from another web page",
    404: "There is no such thing",
    409: "It does not go with the state of the cluster, which `detail` tells; or there is one already",
    413: "The request is too large",
    415: "The body is not JSON",
    422: "An argument is wrong; `errors` names it",
    500: "A defect, or the store has failed",
    503: "Not now: try again",
    504: "Not answered in time; a change may go on",
}


def of_bodies() -> dict[str, dict[str, Any]]:
    """What an operation that takes a body may fail with, as the description of the API has it."""
    return {str(status): _declared(_MEANING[status]) for status in OF_BODIES}


def _declared(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


def install(app: FastAPI) -> None:
    """Let every error of `app` be answered with a problem."""

    @app.exception_handler(EmberError)
    async def of_table(request: Request, error: EmberError) -> JSONResponse:
        headers = {"WWW-Authenticate": "Bearer"} if STATUS_OF.get(error.code) == 401 else None
        return problem(request, error.code, error.message, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        found = [Wrong(where=".".join(map(str, each["loc"])), what=each["msg"]) for each in error.errors()]
        detail = "; ".join(f"{wrong.where}: {wrong.what}" for wrong in found[:3])
        return problem(request, Code.INVALID, detail, status=422, errors=found[:20])

    @app.exception_handler(HTTPException)
    async def of_framework(request: Request, error: HTTPException) -> JSONResponse:
        code = _OF_FRAMEWORK.get(error.status_code, Code.INTERNAL)
        detail = f"there is no {request.method} {request.url.path}" if code is Code.UNKNOWN_METHOD else error.detail
        return problem(request, code, detail, status=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> JSONResponse:
        return problem(request, Code.INTERNAL)
