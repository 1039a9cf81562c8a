"""Clients that are killed: what they had goes to others, and nothing they were told is stored is lost."""

import subprocess
import sys
from collections.abc import Callable

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from tests.conftest import FAST_SETTINGS
from tests.system.control import ROOT, WAIT_S, wait_until

pytestmark = pytest.mark.system

SETTINGS = (*FAST_SETTINGS, "meta.client_timeout_ms=500")
MIB = 1 << 20

WRITER = """
import asyncio, os, sys
from fs_client import aio
from fs_common.methods import LOCK
from fs_common.records.locks import Lock


async def main():
    fs = await aio.connect(sys.argv[1])
    files = [await fs.open(path, "wb") for path in ("/kept", "/removed")]
    for file in files:
        await file.write_at(0, b"x" * (3 * 1024 * 1024 + 5))
    inode = (await fs.stat("/locked")).st_ino
    await fs.metadata.call(LOCK, Lock(inode, fs.client, 1, 1, 2, os.urandom(16)))
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_killed_client_leaves_locks_exact_lengths_and_no_chunks(
    fresh_cluster: Callable[..., LaunchedCluster],
) -> None:
    cluster = fresh_cluster(settings=SETTINGS, durability="memory")
    with fs_client.connect(cluster.address) as fs:
        fs.write_file("/locked", b"")
        command = [sys.executable, "-c", WRITER, cluster.address]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            fs.unlink("/removed")
            assert fs.getsize("/kept") < 3 * MIB + 5, "it has not told of its length"
            used = fs.statvfs("/")
            writer.kill()
            writer.wait(WAIT_S)
        wait_until(lambda: fs.getsize("/kept") == 3 * MIB + 5, "the length is settled")
        assert fs.read_file("/kept") == b"x" * (3 * MIB + 5)
        wait_until(lambda: _lock(cluster, "/locked"), "the lock goes to another client")
        wait_until(lambda: fs.statvfs("/").f_files <= used.f_files - 1, "the removed file is freed")


def _lock(cluster: LaunchedCluster, path: str) -> bool:
    """Whether a client of its own gets the lock at once."""
    code = (
        "import asyncio, os, sys\n"
        "from fs_client import aio\n"
        "from fs_common.methods import LOCK\n"
        "from fs_common.records.locks import Lock\n"
        "async def main():\n"
        "    async with await aio.connect(sys.argv[1]) as fs:\n"
        "        inode = (await fs.stat(sys.argv[2])).st_ino\n"
        "        await fs.metadata.call(LOCK, Lock(inode, fs.client, 1, 1, 2, os.urandom(16)))\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code, cluster.address, path]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=WAIT_S).returncode == 0
