"""Commands that are stopped half-way: by Ctrl-C, by SIGTERM, by a reader that goes away."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from tests.system.control import ROOT, WAIT_S, wait_until

pytestmark = pytest.mark.system


def start(*arguments: str, cluster: LaunchedCluster) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "fs_client.cli", *arguments, "--cluster", cluster.address]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_a_copy_that_is_stopped_leaves_no_half_file(
    cluster: LaunchedCluster, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / f"stopped-{code}"
    folder.mkdir()
    (folder / "done").write_bytes(b"small")
    # Larger than can be copied before the signal arrives; it takes no space here.
    with open(folder / "large", "wb") as file:
        file.truncate(8 << 30)
    with fs_client.connect(cluster.address) as fs, start("cp", "-r", str(folder), "ember:/", cluster=cluster) as copy:
        wait_until(
            lambda: all(fs.exists(f"/stopped-{code}/{name}") for name in ("done", "large")), "the copy is under way"
        )
        copy.send_signal(number)
        _, errors = copy.communicate(timeout=WAIT_S)
        assert copy.returncode == code
        assert "Traceback" not in errors
        assert "copied " in errors
        for name in fs.listdir(f"/stopped-{code}"):
            # What was whole when the signal came is kept.
            assert name == "done"
            assert fs.read_file(f"/stopped-{code}/done") == b"small"
        fs.rmtree(f"/stopped-{code}")


def test_a_reader_that_goes_away_ends_the_command_quietly(cluster: LaunchedCluster) -> None:
    with fs_client.connect(cluster.address) as fs:
        fs.makedirs("/many", exist_ok=True)
        fs.create_many("/many", [f"{number:060}" for number in range(4000)], exist_ok=True)
        with start("ls", "ember:/many", cluster=cluster) as listing:
            assert listing.stdout is not None
            assert listing.stdout.readline() == f"{0:060}\n"
            listing.stdout.close()
            assert listing.stderr is not None
            assert listing.stderr.read() == ""
            assert listing.wait(WAIT_S) == 141
        fs.rmtree("/many")
