"""Who uses the cluster: connected clients and mounts, and the files that they have open.

A client is named by the first eight digits of its id, and a session not at all: with the whole of them one could speak
for the client, or end what it has open.
"""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from fs_common.ids import shown_client
from fs_meta import schema
from fs_meta.http.backend import Backend
from fs_meta.http.callers import Reader, TheBackend
from fs_meta.http.problems import responses
from fs_meta.http.rest.names import time_of
from fs_meta.http.rest.paging import LIMIT_DEFAULT, Limit
from fs_meta.kv.interface import Transaction

router = APIRouter(tags=["clients"])

ClientName = Annotated[str, Query(pattern="^([0-9a-f]{8})?$", description="Only those of this client; empty: of all.")]
_SAME_FILE_MAX: Final = 10_000
"""Sessions of one file that are listed."""


class Client(BaseModel):
    """A process that is connected to this metadata server."""

    client: str = Field(description="The first digits of its id, as in logs.", examples=["5f03a7c1"])
    host: str = Field(description="As it says itself.")
    process: int = Field(description="As it says itself.")
    program: str = Field(description="As it says itself: its name; of a mount, where it is.", examples=["train.py"])
    mount: bool
    connections: int
    seconds: float = Field(description="For how long it has been connected without a break.")
    holds: bool = Field(description="It may have files open for writing, or locks.")


class ClientPage(BaseModel):
    clients: list[Client] = Field(description="By id.")
    total: int = Field(description="That are connected.")
    next: str | None = Field(description="`after` of the following page; null: this is the last one.")


class Session(BaseModel):
    """One open of a file that keeps its contents."""

    inode: int
    client: str = Field(examples=["5f03a7c1"])
    opened: str = Field(examples=["2026-01-02T03:04:05.000000006Z"])
    write: bool = Field(description="False: it only holds the contents, for readers.")
    append: bool = Field(description="It may only append.")


class SessionPage(BaseModel):
    sessions: list[Session] = Field(description="By inode.")
    next: str | None = Field(description="`after` of the following page; null: this is the last one.")


@router.get("/clients", responses=responses())
async def list_clients(
    backend: TheBackend,
    caller: Reader,
    after: Annotated[
        str, Query(pattern="^([0-9a-f]{8})?$", description="`next` of the page before; empty: the first page.")
    ] = "",
    limit: Limit = LIMIT_DEFAULT,
) -> ClientPage:
    """A page of the clients that are connected, by id."""
    return await backend.look(lambda: _clients(backend, bytes.fromhex(after), limit))


@router.get("/sessions", responses=responses())
async def list_sessions(
    backend: TheBackend,
    caller: Reader,
    after: Annotated[
        str,
        Query(pattern="^([0-9]{1,18}[.][0-9]{1,4})?$", description="`next` of the page before; empty: the first page."),
    ] = "",
    limit: Limit = LIMIT_DEFAULT,
    client: ClientName = "",
) -> SessionPage:
    """A page of the opens that keep files: for writing, or as a hold for readers of files that were removed.

    `limit` sessions are looked at; with `client` a page may have fewer, and not be the last. Of one file ten thousand
    are listed at most.
    """
    inode, _, skipped = after.partition(".")
    return await backend.ask(lambda: _sessions(backend, int(inode or 0), int(skipped or 0), limit, client))


def _clients(backend: Backend, after: bytes, limit: int) -> ClientPage:
    """On the service's loop."""
    server = backend.server
    now_s = asyncio.get_running_loop().time()
    listed = server.clients.listed()
    found = sorted((each for each in listed if each.client[:4] > after), key=lambda each: each.client)
    page, rest = found[:limit], found[limit:]
    while rest and rest[0].client[:4] == page[-1].client[:4]:
        page.append(rest.pop(0))
    return ClientPage(
        clients=[
            Client(
                client=shown_client(each.client),
                host=each.host,
                process=each.pid,
                program=each.program,
                mount=each.mount,
                connections=each.connections,
                seconds=round(max(now_s - each.since_s, 0.0), 3),
                holds=each.holds,
            )
            for each in page
        ],
        total=len(listed),
        next=shown_client(page[-1].client) if rest else None,
    )


async def _sessions(backend: Backend, inode: int, skipped: int, limit: int, client: str) -> SessionPage:
    """On the service's loop. The page goes on behind the first `skipped` sessions of `inode`."""
    begin, _ = schema.sessions_range(inode)
    _, end = schema.all_sessions_range()

    async def page(txn: Transaction) -> list[tuple[bytes, bytes]]:
        return await txn.snapshot_range(begin, end, skipped + limit + 1)

    pairs = await backend.context.kv.read(page)
    inodes = [schema.split_session_key(key)[0] for key, _ in pairs]
    first = next((place for place, each in enumerate(inodes) if each != inode or place == skipped), len(inodes))
    sessions = []
    for number, (_, value) in zip(inodes[first : first + limit], pairs[first : first + limit], strict=True):
        found = schema.decode_session(value)
        if client in ("", shown_client(found.client)):
            sessions.append(
                Session(
                    inode=number,
                    client=shown_client(found.client),
                    opened=time_of(found.opened_ns),
                    write=found.write,
                    append=found.append,
                )
            )
    last = inodes[first : first + limit][-1:]
    more = len(inodes) > first + limit
    following = None
    if more:
        same = inodes[: first + limit].count(last[0])
        following = f"{last[0]}.{same}" if same < _SAME_FILE_MAX else f"{last[0] + 1}.0"
    return SessionPage(sessions=sessions, next=following)
