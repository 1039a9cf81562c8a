"""The error table: what every problem names."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from fs_common.errors import Code, EmberError
from fs_meta.http.callers import Reader
from fs_meta.http.problems import STATUS_OF, responses

router = APIRouter(tags=["errors"])


class ErrorRow(BaseModel):
    """A row of the error table."""

    name: str = Field(examples=["NODE_UNKNOWN"])
    number: int = Field(description="Stable for ever.", examples=[400])
    status: int = Field(
        description="The HTTP status that it comes with, where nothing else fits better.", examples=[404]
    )
    retry: str = Field(
        description="What may be done with the same request. `safe`: it was not applied, send it again;"
        " `after refresh`: the same, after a look at the cluster; `maybe applied`: nobody knows; `final`: that was the"
        " answer.",
        examples=["final"],
    )
    advice: str = Field(description="What its receiver does about it.", examples=["register the node first"])


class ErrorTable(BaseModel):
    errors: list[ErrorRow] = Field(description="By number.")


def _row(code: Code) -> ErrorRow:
    row = code.value
    return ErrorRow(
        name=row.name,
        number=row.number,
        status=STATUS_OF.get(code, 500),
        retry=row.retry.value,
        advice=row.advice,
    )


@router.get("/errors", responses=responses())
async def list_errors(caller: Reader) -> ErrorTable:
    """The whole table. Programs match on `name` or `number` of a problem, and never on its text."""
    return ErrorTable(errors=sorted((_row(code) for code in Code), key=lambda row: row.number))


@router.get("/errors/{name}", responses=responses(404))
async def show_error(caller: Reader, name: str) -> ErrorRow:
    """One row."""
    try:
        return _row(Code[name])
    except KeyError:
        raise EmberError(Code.NOT_FOUND, f"the error table has no {name[:40]!r}") from None
