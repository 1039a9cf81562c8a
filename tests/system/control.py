"""What system tests do to a cluster: run commands against it, kill its daemons, wait for what it becomes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import fs_client
from fs_client.cli.local.directory import DaemonRecord
from fs_client.cli.local.identity import open_process, wait_for_end
from fs_client.cli.local.launch import LaunchedCluster
from fs_client.cli.local.readiness import fetch_routing, hello, wait_until_ready
from fs_common.peers import PeerPool
from fs_common.records.routing import PublicState
from tests.support import run

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0
"""For things that take a second or two: only a broken cluster needs longer."""
_POLL_S = 0.02

_AS_USER = """
from fs_client import aio
from fs_client.cli.main import main
from fs_common.records.meta import User

aio.process_user = lambda: User({user}, {user})
main()
"""


def emberfs(
    *arguments: str | Path,
    cluster: str | None = None,
    code: int | None = 0,
    cwd: Path | None = None,
    user: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command; fails unless it ends with this exit code (None: any).

    `user`: whom it acts as on the cluster; by default it is this process's user, as for everybody who types it.
    """
    environment = dict(os.environ, PYTHONPATH=str(ROOT)) | dict(variables or {})
    if cluster is not None:
        environment["EMBERFS_CLUSTER"] = cluster
    program = ["-m", "fs_client.cli"] if user is None else ["-c", _AS_USER.format(user=user)]
    result = subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=cwd or ROOT,
        timeout=WAIT_S * 2,
    )
    assert code in (None, result.returncode), f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr, result.stderr
    return result


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Ask again and again: other processes have no way to tell us."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_S:.0f} s in vain until {what}"
        time.sleep(_POLL_S)


def daemon(cluster: LaunchedCluster, name: str) -> DaemonRecord:
    return next(one for one in cluster.record.daemons if one.name == name)


def kill(cluster: LaunchedCluster, *names: str) -> None:
    """SIGKILL these daemons at the same moment; return when they are gone."""
    descriptors = []
    for name in names:
        process = daemon(cluster, name).process
        assert process is not None
        descriptor = open_process(process)
        assert descriptor is not None, f"{name} does not run"
        descriptors.append(descriptor)
    for descriptor in descriptors:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    for descriptor in descriptors:
        assert wait_for_end(descriptor, WAIT_S)
        os.close(descriptor)


def start_again(cluster: LaunchedCluster) -> None:
    """Start every daemon that was killed; return when the cluster is ready."""
    # The supervisor notices an end a moment after it has happened, and starts only what it has seen end.
    wait_until(
        lambda: all(one.ready == _runs(one) for one in cluster.record.daemons), "the supervisor has seen who is dead"
    )
    cluster.send_signal(signal.SIGUSR1)
    wait_until(lambda: all(one.ready for one in cluster.record.daemons), "all daemons serve again")
    wait_ready(cluster)


def _runs(one: DaemonRecord) -> bool:
    descriptor = None if one.process is None else open_process(one.process)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def wait_ready(cluster: LaunchedCluster) -> None:
    """Until the manager knows all daemons as up."""
    record = cluster.record
    token = record.security_on and (cluster.path / "tokens" / "admin.token").read_text().strip()
    address = (record.host, record.meta.port)
    run(wait_until_ready(address, record.cluster, len(record.storage), WAIT_S, cluster.tls_ca, token or ""), WAIT_S * 2)


def wait_whole(cluster: LaunchedCluster) -> None:
    """Until every target of every chain serves: those that were dead have been filled up."""

    async def is_whole() -> bool:
        record = cluster.record
        pool = PeerPool(hello(record.cluster))
        try:
            routing = await fetch_routing(pool, (record.host, record.meta.port), WAIT_S)
        finally:
            await pool.close()
        return all(target.state is PublicState.SERVING for chain in routing.chains for target in chain.targets)

    wait_until(lambda: run(is_whole()), "all chains are whole")


def is_healthy(address: str) -> bool:
    """As the command says, in its output and in its exit code."""
    result = emberfs("status", "--json", address, code=None)
    healthy: bool = json.loads(result.stdout)["healthy"]
    assert healthy == (result.returncode == 0)
    return healthy


def assert_works(address: str, name: str = "/it-works") -> None:
    """A new connection writes and reads."""
    with fs_client.connect(address) as fs:
        data = os.urandom(100_000)
        fs.write_file(name, data)
        assert fs.read_file(name) == data
        fs.unlink(name)
