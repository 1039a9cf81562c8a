"""Processes are named so that a recycled pid is never signalled, and daemons die with their supervisor."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fs_client.cli.local.identity import end, identify, is_running, open_process, wait_for_end

TETHER = Path(__file__).parents[2] / "fs_client" / "cli" / "local" / "tether.py"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until it is told otherwise."""
    process = subprocess.Popen([sys.executable, "-ISc", "import signal; signal.pause()"])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_itself(sleeper: subprocess.Popen[bytes]) -> None:
    assert is_running(identify(sleeper.pid))


def test_another_process_with_the_same_pid_is_not_it(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identify(sleeper.pid)
    for other in (
        msgspec.structs.replace(identity, start_ticks=identity.start_ticks - 1),
        msgspec.structs.replace(identity, boot="another"),
    ):
        assert not is_running(other)
        assert end(other, grace_s=1.0) is None
    assert sleeper.poll() is None


def test_a_zombie_does_not_run(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identify(sleeper.pid)
    descriptor = open_process(identity)
    assert descriptor is not None
    sleeper.kill()
    assert wait_for_end(descriptor, 10.0)
    os.close(descriptor)
    assert not is_running(identity)


def test_end_asks_first(sleeper: subprocess.Popen[bytes]) -> None:
    assert end(identify(sleeper.pid), grace_s=30.0) is True
    assert sleeper.wait() == -signal.SIGTERM


def test_end_kills_who_does_not_listen() -> None:
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-ISc", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert end(identify(process.pid), grace_s=0.1) is False
        assert process.wait() == -signal.SIGKILL


def test_no_such_process() -> None:
    with pytest.raises(ProcessLookupError):
        identify(2**22 + 1)


def test_a_tethered_command_dies_with_a_parent_that_is_killed() -> None:
    child = [sys.executable, "-ISc", "import os, signal; print(os.getpid(), flush=True); signal.pause()"]
    parent = (
        "import os, subprocess, sys, signal\n"
        f"subprocess.Popen([sys.executable, '-IS', {str(TETHER)!r}, str(os.getpid()), *{child!r}])\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-ISc", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        identity = identify(int(process.stdout.readline()))
        descriptor = open_process(identity)
        assert descriptor is not None
        process.kill()
        try:
            assert wait_for_end(descriptor, 10.0)
        finally:
            os.close(descriptor)


def test_a_tether_whose_parent_is_gone_does_not_start(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-IS", str(TETHER), "1", sys.executable, "-c", "print('started')"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert "the supervisor ended before its daemon began" in result.stderr
