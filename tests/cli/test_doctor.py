"""Each finding of `emberfs doctor` about a machine, by breaking that thing; and of addresses where nobody answers."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fs_client.cli.checkup import cluster, machine
from fs_client.cli.checkup.finding import Finding, Level
from fs_client.cli.checkup.machine import UNLIMITED, Limits, Machine
from fs_client.options import make_options
from tests.support import run


class Broken(Machine):
    """A machine in whose order everything is, but for what a test breaks."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.modules = {"lmdb", "grpc", "fastapi"}
        self.rlimits = Limits((1 << 20, 1 << 20), (UNLIMITED, UNLIMITED))
        self.uid = 0
        self.helper: str | None = "/usr/bin/true"
        self.clock: int | None = 0
        self.device = 0
        self.version = (3, 12)

    def limits(self) -> Limits:
        return self.rlimits

    def user(self) -> int:
        return self.uid

    def which(self, program: str) -> str | None:
        return self.helper

    def has_module(self, name: str) -> bool:
        return name in self.modules

    def python(self) -> tuple[int, int]:
        return self.version

    def clock_state(self) -> int | None:
        return self.clock

    def open_device(self, path: Path) -> int:
        return self.device


@pytest.fixture
def here(tmp_path: Path) -> Broken:
    return Broken(tmp_path)


def of(findings: Iterator[Finding], subject: str) -> list[Finding]:
    return [finding for finding in findings if finding.subject == subject]


def only(here: Broken, subject: str) -> Finding:
    (finding,) = of(machine.look(here), subject)
    return finding


def test_nothing_is_wrong(here: Broken) -> None:
    assert {finding.level for finding in machine.look(here)} == {Level.OK}


def test_what_is_wrong_says_what_to_do(here: Broken) -> None:
    here.device, here.modules, here.version, here.clock = errno.ENOENT, set(), (3, 10), 5
    here.rlimits = Limits((1024, 1024), (0, 0))
    bad = [finding for finding in machine.look(here) if finding.level in (Level.WARNING, Level.PROBLEM)]
    assert {finding.subject for finding in bad} == {"python", "fuse device", "open files"}
    assert all(finding.do for finding in bad)


@pytest.mark.parametrize(
    ("failed", "word"),
    [(errno.ENOENT, "modprobe"), (errno.EACCES, "0666"), (errno.EPERM, "--device"), (errno.ENODEV, "log")],
)
def test_the_device_for_mounts(here: Broken, failed: int, word: str) -> None:
    here.device = failed
    finding = only(here, "fuse device")
    assert finding.level is Level.PROBLEM and word in finding.do


def test_a_real_device_that_is_not_there(tmp_path: Path) -> None:
    assert Machine(tmp_path).open_device(tmp_path / "dev/fuse") == errno.ENOENT


def test_packages_for_daemons(here: Broken) -> None:
    here.modules.discard("lmdb")
    finding = only(here, "packages")
    assert finding.level is Level.NOTE and "no lmdb" in finding.what and "emberfs[server]" in finding.do


def test_the_mount_helper(here: Broken, tmp_path: Path) -> None:
    here.helper = None
    assert only(here, "mount helper").level is Level.NOTE, "root mounts without it"
    here.uid = 1000
    assert only(here, "mount helper").level is Level.PROBLEM
    helper = tmp_path / "fusermount3"
    helper.touch(0o755)
    here.helper = str(helper)
    finding = only(here, "mount helper")
    assert finding.level is Level.PROBLEM and "u+s" in finding.do
    if os.getuid() == 0:
        helper.chmod(0o4755)
        assert only(here, "mount helper").level is Level.OK
        assert only(here, "allow_other").level is Level.NOTE
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/fuse.conf").write_text("# for others\nuser_allow_other\n")
        assert not of(machine.look(here), "allow_other")


def test_open_files(here: Broken) -> None:
    here.rlimits = here.rlimits._replace(files=(256, 512))
    assert only(here, "open files").level is Level.WARNING
    here.rlimits = here.rlimits._replace(files=(256, 1 << 20))
    assert only(here, "open files").level is Level.NOTE


def test_a_clock_that_nothing_keeps_right(here: Broken) -> None:
    here.clock = 5
    assert only(here, "clock").level is Level.NOTE
    here.clock = None
    assert not of(machine.look(here), "clock")


def rdma_port(root: Path, state: str = "4: ACTIVE", gid: str = "fe80:0000:0000:0000:0000:0000:0000:0001") -> None:
    port = root / "sys/class/infiniband/mlx5_0/ports/1"
    (port / "gids").mkdir(parents=True, exist_ok=True)
    (port / "state").write_text(state + "\n")
    (port / "gids/0").write_text(gid + "\n")


def test_rdma(here: Broken, tmp_path: Path) -> None:
    rdma_port(tmp_path)
    finding = only(here, "rdma")
    assert finding.level is Level.NOTE and "mlx5_0" in finding.what and "pyverbs" in finding.do
    here.modules.add("pyverbs")
    assert only(here, "rdma").level is Level.OK
    rdma_port(tmp_path, state="1: DOWN")
    finding = only(here, "rdma link")
    assert finding.level is Level.WARNING and "DOWN" in finding.what
    rdma_port(tmp_path, gid="0000:0000:0000:0000:0000:0000:0000:0000")
    assert only(here, "rdma address").level is Level.WARNING
    here.rlimits = here.rlimits._replace(locked_bytes=(65536, 65536))
    finding = only(here, "locked memory")
    assert finding.level is Level.WARNING and "64 KiB" in finding.what
    here.rlimits = here.rlimits._replace(locked_bytes=(65536, UNLIMITED))
    assert only(here, "locked memory").level is Level.NOTE


# -- addresses -----------------------------------------------------------------------------------------------------


def of_cluster(address: str) -> list[Finding]:
    async def look() -> list[Finding]:
        return [finding async for finding in cluster.look(make_options(address, None, "auto", 5.0))]

    return run(look())


def test_nothing_listens_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (finding,) = of_cluster(address)
    assert finding.level is Level.PROBLEM and finding.what == f"{address}: nothing listens there"
    assert "start the metadata server" in finding.do


def test_a_name_that_nobody_knows() -> None:
    (finding,) = of_cluster("no-such-host.invalid:9700")
    assert finding.level is Level.PROBLEM and "is not known" in finding.what
