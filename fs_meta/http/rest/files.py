"""The namespace: what a directory has, and where a file's chunks are. Callers see what they have a right to."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE
from fs_common.layout import Durability, stripe_chains
from fs_common.limits import CHUNK_INDEX_MAX
from fs_common.records.meta import Attributes, DirectoryEntry, FileType, Readdir, Stat
from fs_common.records.routing import Chain, Routing
from fs_meta.http.callers import Reader, TheBackend, acting
from fs_meta.http.problems import responses
from fs_meta.http.rest.names import AfterName, PathQuery, encoded, shown, time_of
from fs_meta.http.rest.paging import LIMIT_DEFAULT
from fs_meta.http.rest.states import TargetState
from fs_meta.ops.readdir import readdir
from fs_meta.ops.stat import stat

router = APIRouter(tags=["files"])

ENTRIES_MAX = 250
"""Of a page: half a millisecond of the service's loop, and two of the interpreter to write it."""
CHUNKS_MAX = 1000

Kind = Literal["file", "directory", "symlink", "fifo", "socket", "character device", "block device"]
Follow = Annotated[bool, Query(description="If the path ends in a symbolic link: what it points to.")]


class FileLayout(BaseModel):
    """How a file is cut up and where it goes; of a directory: what new files in it get."""

    chunk_size_bytes: int
    stripe: int = Field(description="Chains a file is spread over.")
    durability: Literal["disk", "memory"]


class Inode(BaseModel):
    inode: int
    type: Kind
    mode: str = Field(description="Permission bits, octal.", examples=["0644"])
    uid: int
    gid: int
    links: int
    length: int = Field(description="Bytes.")
    accessed: str = Field(examples=["2026-01-02T03:04:05.000000006Z"])
    modified: str
    changed: str = Field(description="When the inode was.")
    made: str
    target: str | None = Field(description="Of a symbolic link.")
    sparse: bool = Field(description="Whole chunks of it may be holes.")
    layout: FileLayout | None


class Entry(BaseModel):
    """A name in a directory."""

    name: str = Field(description="For people: bytes that are not UTF-8 are written as \\xNN.")
    href: str = Field(description="Where it is described, from the root of this server.")
    type: Kind
    inode: int
    attributes: Inode | None = Field(description="Null where the caller may not search the directory.")


class FileView(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "path": "/datasets",
                    "attributes": {
                        "inode": 2,
                        "type": "directory",
                        "mode": "0755",
                        "uid": 1000,
                        "gid": 1000,
                        "links": 3,
                        "length": 0,
                        "accessed": "2026-01-02T03:04:05.000000006Z",
                        "modified": "2026-01-02T03:04:05.000000006Z",
                        "changed": "2026-01-02T03:04:05.000000006Z",
                        "made": "2026-01-02T03:04:05.000000006Z",
                        "target": None,
                        "sparse": False,
                        "layout": {"chunk_size_bytes": 1048576, "stripe": 16, "durability": "disk"},
                    },
                    "entries": [],
                    "next": None,
                }
            ]
        }
    )

    path: str
    attributes: Inode
    entries: list[Entry] | None = Field(description="Of a directory: a page of its names, in byte order.")
    next: str | None = Field(description="`after` of the following page, as it goes into a URL; null: that was all.")


class Replica(BaseModel):
    target: int
    node: int
    address: str = Field(description="Of the node's data plane.", examples=["192.0.2.11:9710"])
    state: TargetState


class LaidOnChain(BaseModel):
    chain: int
    version: int
    targets: list[Replica] = Field(description="Head first.")


class ChunkView(BaseModel):
    chunk: int = Field(description="Its index in the file.")
    offset: int = Field(description="Of its first byte in the file.")
    length: int = Field(description="Bytes of the file in it; holes count.")
    chain: int


class LayoutView(BaseModel):
    path: str
    inode: int
    length: int
    layout: FileLayout
    chunks_total: int
    routing_version: int
    chains: list[LaidOnChain] = Field(description="Those of the chunks below.")
    chunks: list[ChunkView]
    next: int | None = Field(description="`first` of the following page; null: that was all.")


@router.get("/files", responses=responses(404, 409))
async def show_file(
    backend: TheBackend,
    caller: Reader,
    path: PathQuery,
    after: AfterName,
    limit: Annotated[int, Query(ge=1, le=ENTRIES_MAX, description="Entries of a page.")] = LIMIT_DEFAULT,
    follow: Follow = True,
) -> FileView:
    """What a path names; for a directory with a page of its names.

    The caller sees what his user may see; where security is off, everything.
    """
    user = acting(caller)
    context = backend.context
    found = (await backend.ask(lambda: stat(context, Stat(ROOT_INODE, path, follow, user)))).attributes
    if found.type is not FileType.DIRECTORY:
        return FileView(path=shown(path), attributes=inode_of(found), entries=None, next=None)
    request = Readdir(found.inode, after, limit, with_attributes=True, user=user)
    page = await backend.ask(lambda: readdir(context, request))
    folder = path.rstrip(b"/")
    return FileView(
        path=shown(path),
        attributes=inode_of(found),
        entries=[_entry(folder, entry) for entry in page.entries],
        next=encoded(page.entries[-1].name) if page.more and page.entries else None,
    )


@router.get("/layout", responses=responses(404, 409))
async def show_layout(
    backend: TheBackend,
    caller: Reader,
    path: PathQuery,
    first: Annotated[int, Query(ge=0, le=CHUNK_INDEX_MAX, description="Index of the first chunk.")] = 0,
    limit: Annotated[int, Query(ge=1, le=CHUNKS_MAX, description="Chunks of a page.")] = LIMIT_DEFAULT,
) -> LayoutView:
    """Where the chunks of a file are: chunk by chunk the chain, and of each chain its targets with their states."""
    user = acting(caller)
    found, routing = await backend.ask(lambda: _file_and_routing(backend, path, user))
    layout = found.layout
    if found.type is not FileType.FILE or layout is None:
        raise EmberError(Code.IS_DIRECTORY, f"{shown(path)} is a {_kind(found.type)}: it has no chunks")
    size = layout.chunk_size
    total = -(-found.length // size)
    end = min(first + limit, total)
    table = next(
        (
            table.chains
            for table in routing.tables
            if (table.table, table.version) == (layout.table, layout.table_version)
        ),
        (),
    )
    if not table:
        raise EmberError(Code.CLUSTER_NOT_READY, "the chains of the file are not known here yet")
    stripe = stripe_chains(layout, table)
    chunks = [
        ChunkView(
            chunk=index,
            offset=index * size,
            length=min(size, found.length - index * size),
            chain=stripe[index % len(stripe)],
        )
        for index in range(first, end)
    ]
    addresses = {node.node: f"{node.host}:{node.port}" for node in routing.nodes}
    return LayoutView(
        path=shown(path),
        inode=found.inode,
        length=found.length,
        layout=layout_of(layout),
        chunks_total=total,
        routing_version=routing.version,
        chains=[
            LaidOnChain(
                chain=chain.chain,
                version=chain.version,
                targets=[
                    Replica(
                        target=member.target,
                        node=member.node,
                        address=addresses.get(member.node, ""),
                        state=member.state.name.lower(),  # type: ignore[arg-type]
                    )
                    for member in chain.targets
                ],
            )
            for chain in _chains(routing.chains, {chunk.chain for chunk in chunks})
        ],
        chunks=chunks,
        next=end if end < total else None,
    )


async def _file_and_routing(backend: Any, path: bytes, user: Any) -> tuple[Attributes, Routing]:
    reply = await stat(backend.context, Stat(ROOT_INODE, path, True, user))
    return reply.attributes, backend.manager.routing


def _chains(chains: Sequence[Chain], wanted: set[int]) -> list[Chain]:
    """Those with these ids, of chains in the order of their ids."""
    found = []
    for number in sorted(wanted):
        place = bisect_left(chains, number, key=lambda chain: chain.chain)
        if place < len(chains) and chains[place].chain == number:
            found.append(chains[place])
    return found


def _entry(folder: bytes, entry: DirectoryEntry) -> Entry:
    return Entry(
        name=shown(entry.name),
        href=f"/api/v1/files?path={encoded(folder + b'/' + entry.name)}",
        type=_kind(entry.type),
        inode=entry.inode,
        attributes=None if entry.attributes is None else inode_of(entry.attributes),
    )


def inode_of(found: Attributes) -> Inode:
    return Inode(
        inode=found.inode,
        type=_kind(found.type),
        mode=f"{found.mode:04o}",
        uid=found.uid,
        gid=found.gid,
        links=found.links,
        length=found.length,
        accessed=time_of(found.atime_ns),
        modified=time_of(found.mtime_ns),
        changed=time_of(found.ctime_ns),
        made=time_of(found.btime_ns),
        target=shown(found.target) if found.type is FileType.SYMLINK else None,
        sparse=found.sparse,
        layout=None if found.layout is None else layout_of(found.layout),
    )


def layout_of(layout: Any) -> FileLayout:
    return FileLayout(
        chunk_size_bytes=layout.chunk_size,
        stripe=layout.stripe,
        durability="disk" if layout.durability == Durability.DISK else "memory",
    )


def _kind(kind: FileType) -> Any:
    return kind.name.lower().replace("_", " ")
