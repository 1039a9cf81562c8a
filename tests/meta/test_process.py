"""The metadata process: readiness line, bad starts in one line, and what a kill -9 leaves."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fs_client.cli.local.ports import free_ports
from fs_common import methods
from fs_common.errors import EmberError
from fs_common.records import meta
from fs_common.records.locks import GetLock, Lock
from fs_common.records.session import Hello
from fs_common.rpc import Peer
from fs_common.transports import tcp
from fs_meta import fsck
from fs_meta.kv.open import open_store
from tests.meta.world import CLIENT, ROOT, dump, new_request
from tests.support import run

pytestmark = pytest.mark.system
START_S = 30


def _config(directory: Path, **more: object) -> Path:
    values = {"cluster": "test", "directory": str(directory / "meta"), "port": 0, "grpc_port": 0, **more}
    path = directory / "meta.toml"
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    return path


@contextlib.contextmanager
def _process(config: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A metadata process that is ready, and its port. Killed at the end if it still runs."""
    command = [sys.executable, "-m", "fs_meta", "--config", str(config), "--format-if-missing"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        assert ready[:2] == ["ready", "meta"], ready
        yield process, int(ready[2].rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Ask it to end; its status and what it wrote to stderr."""
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=START_S)
    return process.returncode, errors


def _refused(config: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "fs_meta", "--config", str(config), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_S)
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("emberfs meta: ")]
    assert len(lines) == 1, done.stderr
    return done.returncode, lines[0]


async def _connect(port: int) -> Peer:
    return await tcp.connect("127.0.0.1", port, Hello([1], "client", CLIENT, "test"), timeout=START_S)


def test_serves_ends_and_serves_again(tmp_path: Path) -> None:
    config = _config(tmp_path)

    async def make() -> None:
        peer = await _connect(port)
        await peer.call(methods.MKDIR, meta.Mkdir(ROOT, b"d", 0o755, new_request()), timeout=START_S)
        await peer.close()

    async def look() -> int:
        peer = await _connect(port)
        reply = await peer.call(methods.STAT, meta.Stat(ROOT, b"d"), timeout=START_S)
        space = await peer.call(methods.STATFS, meta.Statfs(), timeout=START_S)
        await peer.close()
        assert reply.attributes.parent == ROOT
        return int(space.files)

    with _process(config) as (process, port):
        run(make())
        status, errors = _end(process)
        assert status == 0 and "Traceback" not in errors, errors
    with _process(config) as (process, port):
        assert run(look()) == 2
        assert _end(process)[0] == 0


def test_readiness_is_told_over_http(tmp_path: Path) -> None:
    (port,) = free_ports("127.0.0.1", 1)
    with _process(_config(tmp_path, http_port=port)) as (process, _):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=START_S) as answer:
            found = json.loads(answer.read())
        assert found["status"] == "ready" and found["details"]["manager"] == "this server"
        status, errors = _end(process)
        assert status == 0 and "Traceback" not in errors, errors


def test_bad_starts_are_told_in_one_line(tmp_path: Path) -> None:
    config = _config(tmp_path)
    with _process(config) as (process, port):
        status, line = _refused(config)
        assert status == 1 and "open in another process" in line
        other = tmp_path / "other"
        other.mkdir()
        status, line = _refused(_config(other))
        assert (
            status == 1 and "is empty: mount its disk or restore it; a new cluster is made once, with --format" in line
        )
        assert not (other / "meta").exists(), "nothing is made unasked"
        status, line = _refused(_config(other, port=port), "--format")
        assert status == 1 and f"cannot listen on 127.0.0.1:{port}" in line
        status, line = _refused(_config(other, http_port=port))
        assert status == 1 and f"http_port: cannot listen on 127.0.0.1:{port}" in line
        assert _end(process)[0] == 0
    status, line = _refused(_config(tmp_path), "--format")
    assert status == 1 and "formatted already: start without --format" in line
    status, line = _refused(_config(tmp_path, cluster="another"))
    assert status == 1 and "of cluster 'test', the configuration says 'another'" in line
    status, line = _refused(_config(tmp_path, replicas=9))
    assert status == 2 and "meta.toml" in line and "storage_nodes" in line
    status, line = _refused(_config(tmp_path, colour="red"))
    assert status == 2 and "colour" in line
    status, line = _refused(tmp_path / "missing.toml")
    assert status == 2 and "missing.toml" in line


@pytest.mark.slow
def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Directories are made by many callers until the process is killed; every acknowledged name is there again."""
    config = _config(tmp_path)
    acknowledged: dict[bytes, int] = {}
    request_ids: dict[bytes, bytes] = {}

    async def load(port: int, round_number: int, process: subprocess.Popen[str]) -> None:
        peer = await _connect(port)
        count = 0

        async def worker(worker_number: int) -> None:
            nonlocal count
            for number in range(10**6):
                name = b"%d-%d-%d" % (round_number, worker_number, number)
                request_ids[name] = os.urandom(16)
                try:
                    reply = await peer.call(
                        methods.MKDIR, meta.Mkdir(ROOT, name, 0o755, request_ids[name]), timeout=START_S
                    )
                except EmberError:
                    return
                acknowledged[name] = reply.attributes.inode
                count += 1
                if count == 500 * (round_number + 1):
                    os.kill(process.pid, signal.SIGKILL)

        await asyncio.gather(*[worker(number) for number in range(32)])
        await peer.close()

    async def check_names(port: int) -> None:
        peer = await _connect(port)
        names: dict[bytes, int] = {}
        after, more = b"", True
        while more:
            page = await peer.call(methods.READDIR, meta.Readdir(ROOT, after), timeout=START_S)
            names |= {entry.name: entry.inode for entry in page.entries}
            more, after = page.more, page.entries[-1].name
        lost = {name: inode for name, inode in acknowledged.items() if names.get(name) != inode}
        assert not lost
        # What was not acknowledged may be there or not; sent again it is answered once and the same.
        for name in request_ids.keys() - acknowledged.keys():
            request = meta.Mkdir(ROOT, name, 0o755, request_ids[name])
            reply = await peer.call(methods.MKDIR, request, timeout=START_S)
            assert names.get(name, reply.attributes.inode) == reply.attributes.inode
            acknowledged[name] = reply.attributes.inode
        await peer.close()

    for round_number in range(3):
        with _process(config) as (process, port):
            if round_number:
                run(check_names(port))
            run(load(port, round_number, process))
            assert process.wait(START_S) == -signal.SIGKILL
    with _process(config) as (process, port):
        run(check_names(port))
        assert _end(process)[0] == 0
    assert len(acknowledged) >= 3000

    async def check_store() -> None:
        store = open_store(f"lmdb://{tmp_path}/meta/kv")
        findings = fsck.check(await dump(store))
        await store.close()
        assert not findings, findings

    run(check_store())


def test_locks_survive_a_kill(tmp_path: Path) -> None:
    config = _config(tmp_path)
    request = new_request()

    async def take() -> None:
        peer = await _connect(port)
        await peer.call(methods.LOCK, Lock(ROOT, CLIENT, 1, 2, 2, request, 10, 19), timeout=START_S)
        await peer.close()

    async def look() -> None:
        peer = await _connect(port)
        found = await peer.call(methods.GET_LOCK, GetLock(ROOT, CLIENT, 2, 2, 2), timeout=START_S)
        assert (found.type, found.start, found.end) == (2, 10, 19)
        again = Lock(ROOT, CLIENT, 1, 2, 2, request, 10, 19)
        await peer.call(methods.LOCK, again, timeout=START_S)
        await peer.close()

    with _process(config) as (process, port):
        run(take())
        process.kill()
        process.wait(START_S)
    with _process(config) as (process, port):
        run(look())
        assert _end(process)[0] == 0
