"""Pages of lists, and what requests say of them."""

from typing import Annotated

from fastapi import Path, Query
from pydantic import BaseModel, Field

ID_MAX = 2**53 - 1
"""What every reader of JSON keeps exact."""
LIMIT_MAX = 200
"""To check and to write so many chains takes the interpreter for two milliseconds at a time, which others wait for."""
LIMIT_DEFAULT = 100

After = Annotated[
    int, Query(ge=0, le=ID_MAX, description="`next` of the page before; 0: the first page.", examples=[0])
]
Limit = Annotated[
    int,
    Query(
        ge=1,
        le=LIMIT_MAX,
        description="How many entries are looked at. With a filter a page may have fewer, and not be the last.",
    ),
]
Id = Annotated[int, Path(ge=1, le=ID_MAX, examples=[1])]


class Page(BaseModel):
    next: int | None = Field(description="`after` of the following page; null: this is the last one.")
