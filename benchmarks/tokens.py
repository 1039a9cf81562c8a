"""What it costs that callers have to say who they are: creates and reads in two clusters, of which one has security on.

The limit is the cluster where nobody is asked: the same daemons, files, batches and checksums, alternately. Names are
made by an administrator; contents are read by an ordinary user, whom storage daemons ask for a permit for each file.
"""

import asyncio
import os
import random
import secrets
import subprocess
import sys
from pathlib import Path

import uvloop

import fs_client
from benchmarks.context import Context, administrators_token_in, cluster_in
from benchmarks.cpu import CpuMeter
from benchmarks.files import large_file
from benchmarks.limits import echo
from benchmarks.limits.process import touched
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from benchmarks.metadata import FILES_PER_DIRECTORY, IN_FLIGHT, MetaCalls
from benchmarks.read_small import BATCH, LENGTH, offsets_of, read_batches
from fs_common.ids import ROOT_INODE
from fs_common.methods import CREATE, MKDIR, REMOVE_TREE
from fs_common.records.meta import Create, Mkdir, RemoveTree


def run(context: Context) -> list[Figure]:
    creates, batches = context.count(8000), context.count(400)
    into = memoryview(touched(BATCH * LENGTH))
    places = offsets_of(random.Random(1), batches, context.file_bytes)
    with cluster_in(context.directory, tokens=True) as (address, processes):
        administrator = administrators_token_in(context.directory)
        reader = _user_token(address, administrator, context.directory / "reader.token")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sides = [
                (address, administrator, CpuMeter(processes)),
                (context.cluster, None, CpuMeter(context.processes)),
            ]
            made = alternate(
                context.repeat,
                *(
                    cpu.metered(lambda at=at, token=token: runner.run(_creates_per_s(at, token, creates)), creates)
                    for at, token, cpu in sides
                ),
            )
        notes = [cpu.note("create") for _, _, cpu in sides]
        with (
            fs_client.connect(address, token_file=administrator) as fs,
            fs_client.connect(address, token_file=reader) as known,
            fs_client.connect(context.cluster) as anybody,
        ):
            files = [(known, fs.ref(large_file(fs, context))), (anybody, anybody.ref(large_file(anybody, context)))]
            read = alternate(
                context.repeat,
                *(lambda fs=fs, file=file: read_batches(fs, file, places, into) for fs, file in files),
            )
    return [
        _figure("create", "create, 64 in flight, with tokens", made, f"{notes[0]}; without: {notes[1]}"),
        _figure("read_small", "read_ranges, 256 x 4 KiB, with tokens and permits", read),
    ]


def _figure(name: str, title: str, values: list[tuple[float, ...]], note: str = "") -> Figure:
    ours, theirs = values
    limit = Limit("without security", Series("1/s", theirs))
    return Figure(f"tokens.{name}", title, Series("1/s", ours), (limit,), Goal("ratio", ">=", 0.97), note)


def _user_token(address: str, administrator: Path, path: Path) -> Path:
    """Of a new user, in `path`."""
    environment = dict(os.environ, EMBERFS_TOKEN_FILE=str(administrator), EMBERFS_CLUSTER=address)
    environment.pop("EMBERFS_TOKEN", None)
    for words in (["add", "reader", "--uid", "60001", "--gid", "60001"], ["token", "reader", "-o", str(path)]):
        command = [sys.executable, "-m", "fs_client.cli", "users", *words]
        subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return path


async def _creates_per_s(cluster: str, token_file: Path | None, count: int) -> float:
    """In directories that are removed again."""
    meta = MetaCalls(cluster, token_file)
    root = f"bench-tokens-{secrets.token_hex(4)}".encode()

    async def create(number: int) -> None:
        path = b"%s/%d/%d" % (root, number // FILES_PER_DIRECTORY, number)
        await meta.call(CREATE, Create(ROOT_INODE, path, 0o644, os.urandom(16)))

    try:
        for number in range(-(-count // FILES_PER_DIRECTORY)):
            path = b"%s/%d" % (root, number)
            await meta.call(MKDIR, Mkdir(ROOT_INODE, path, 0o755, os.urandom(16), parents=True))
        per_s = await echo.calls_per_s(create, count, IN_FLIGHT)
        await meta.call(REMOVE_TREE, RemoveTree(ROOT_INODE, root, os.urandom(16)))
    finally:
        await meta.close()
    return per_s
