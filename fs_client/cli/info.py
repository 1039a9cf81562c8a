"""`emberfs info`."""

from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.options import cluster_option, json_option
from fs_client.cli.remote import Connections, Failures, RemotePath, printable, require_all, run, shown
from fs_client.cli.text import counted, put, put_json, size_words

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem
    from fs_client.file_map import ChunkPlace, Replica
    from fs_client.stat_result import StatResult

_SHOWN = 20
"""Chunks of a file that are shown without --chunks."""


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--chunks", type=click.IntRange(0), metavar="N", help=f"Show so many chunks.  [default: {_SHOWN}]")
@click.option("--first", type=click.IntRange(0), default=0, metavar="INDEX", help="Begin with this chunk.")
@json_option
@cluster_option
def info(paths: tuple[str, ...], chunks: int | None, first: int, as_json: bool, cluster: str) -> None:
    """Show where files lie: their chunks, the chains these are on, and what each replica has.

    For each chunk and replica: target, node, version and the checksum of the stored bytes. Replicas that agree are
    shown in one line. Where security is on, only administrators are told versions and checksums. Of a directory: the
    layout that new files in it get. --json prints one object a line, with all chunks unless --chunks says otherwise.
    Exit code 1 if replicas differ or do not answer.

    \b
    Example:
      emberfs info ember:/data/train.bin
      emberfs info --first 1000 --chunks 50 ember:/data/train.bin
    """
    if chunks is None and not as_json:
        chunks = _SHOWN
    run(_info(require_all(paths, cluster), first, chunks, as_json))


async def _info(locations: list[RemotePath], first: int, chunks: int | None, as_json: bool) -> None:
    from fs_client.file_map import NOT_TOLD, map_file
    from fs_client.file_ref import file_ref
    from fs_common.errors import EmberError

    failures = Failures()
    async with Connections() as connections:
        for location in locations:
            try:
                fs = await connections.to(location)
                found = await fs.stat(location.path)
                file = file_ref(found.attributes)
                places = [] if file is None else await map_file(fs, file, first, chunks)
            except EmberError as error:
                failures.add(location, error.message)
                continue
            except OSError as error:
                failures.add(location, error)
                continue
            if as_json:
                put_json(_as_json(location, found, places))
            else:
                _print(fs, location, found, places, first)
            silent = {
                replica.target: replica.trouble for place in places for replica in place.replicas if replica.trouble
            }
            if NOT_TOLD in silent.values():
                click.echo(
                    f"emberfs: {printable(str(location))}: what its replicas have is told to administrators alone",
                    err=True,
                )
            for target, trouble in sorted(silent.items()):
                if trouble == NOT_TOLD:
                    continue
                failures.add(location, f"target {target} was not asked: {trouble}")
            for place in places:
                if not place.agree:
                    failures.add(location, f"chunk {place.index}: its replicas differ; `emberfs fsck` looks closer")
    failures.end()


def _as_json(location: RemotePath, found: "StatResult", places: list["ChunkPlace"]) -> dict[str, Any]:
    from fs_client.cli import attributes

    value = attributes.as_json(location.path, found)
    value["chunks"] = [
        {
            "index": place.index,
            "chain": place.chain,
            "bytes": place.length,
            "agree": place.agree,
            "replicas": [
                {
                    "target": replica.target,
                    "node": replica.node,
                    "state": replica.state.name.lower(),
                    "version": replica.version,
                    "checksum": f"{replica.digest:08x}",
                    "bytes": replica.length,
                    "pending_version": replica.pending_version,
                    "trouble": replica.trouble,
                }
                for replica in place.replicas
            ],
        }
        for place in places
    ]
    return value


def _print(
    fs: "AsyncFileSystem", location: RemotePath, found: "StatResult", places: list["ChunkPlace"], first: int
) -> None:
    from fs_client.cli.attributes import layout_json, type_name

    put(f"{shown(str(location))}: {type_name(found.type)}, inode {found.inode}")
    if found.layout is None:
        return
    layout = layout_json(found.layout)
    text = (
        f"chunks of {size_words(layout['chunk_size'])} over {counted(layout['stripe'], 'chain')}, "
        f"{counted(fs.routing.routing.replicas, 'replica')}, durability {layout['durability']}, "
        f"chain table {layout['table']} version {layout['table_version']}"
    )
    if found.st_mode & 0o170000 != 0o100000:
        put(f"  new files in it: {text}")
        return
    total = -(-found.st_size // found.layout.chunk_size)
    put(f"  {found.st_size:,} bytes in {counted(total, 'chunk')}: {text}")
    if not places:
        return
    put(f"  {'chunk':>8}  {'bytes':>10}  {'chain':>6}  {'version':>7}  checksum  replicas (target@node), head first")
    for place in places:
        _print_place(place)
    left = total - first - len(places)
    if left > 0:
        put(f"  and {left:,} more: --first {first + len(places)}")


def _print_place(place: "ChunkPlace") -> None:
    where = f"  {place.index:>8}  {place.length:>10}  {place.chain:>6}"
    asked = [replica for replica in place.replicas if not replica.trouble]
    if place.agree and asked:
        first = asked[0]
        if not any(replica.version for replica in asked):
            put(f"{where}  {'':>7}  {'hole':8}  {' '.join(map(_name, place.replicas))}")
            return
        version, digest = next((r.version, r.digest) for r in (*asked, first) if r.version or r is first)
        put(f"{where}  {version:>7}  {digest:08x}  {' '.join(map(_name, place.replicas))}")
        return
    if not asked:
        put(f"{where}  {'':>7}  {'':8}  {' '.join(map(_name, place.replicas))}")
        return
    for replica in place.replicas:
        put(f"{where}  {replica.version:>7}  {replica.digest:08x}  {_name(replica)}")


def _name(replica: "Replica") -> str:
    from fs_client.file_map import NOT_TOLD
    from fs_common.records.routing import PublicState

    name = f"{replica.target}@{replica.node}"
    if replica.state is not PublicState.SERVING:
        name += f" ({replica.state.name.lower()})"
    elif replica.trouble and replica.trouble != NOT_TOLD:
        name += " (?)"
    return name + (f"+{replica.pending_version}" if replica.pending_version else "")
