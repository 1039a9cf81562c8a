"""Each finding of `emberfs doctor` about a machine, by breaking that thing; and of addresses where nobody answers."""

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client.cli.checkup import cluster, machine
from fs_client.cli.checkup.finding import Finding, Level
from fs_client.cli.checkup.machine import UNLIMITED, Limits, Machine
from fs_client.cli.checkup.rdma import packet_bytes
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
        self.trouble = ""

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

    def verbs_trouble(self) -> str:
        return self.trouble

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


NO_GID = "0000:0000:0000:0000:0000:0000:0000:0000"
LINK_LOCAL = "fe80:0000:0000:0000:0000:0000:0000:0001"
MAPPED = "0000:0000:0000:0000:0000:ffff:0a4d:0001"


def rdma_port(
    root: Path, state: str = "4: ACTIVE", gids: tuple[str, ...] = (LINK_LOCAL, MAPPED), mtu: int = 9000
) -> None:
    """Port 1 of mlx5_0, on eth0."""
    port = root / "sys/class/infiniband/mlx5_0/ports/1"
    shutil.rmtree(port, ignore_errors=True)
    files = {"state": state, "link_layer": "Ethernet"}
    for index, gid in enumerate(gids):
        files |= {f"gids/{index}": gid, f"gid_attrs/types/{index}": "RoCE v2", f"gid_attrs/ndevs/{index}": "eth0"}
    for name, text in files.items():
        (port / name).parent.mkdir(parents=True, exist_ok=True)
        (port / name).write_text(text + "\n")
    for path in (root / "sys/class/net/eth0/mtu", root / "dev/infiniband/uverbs0"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{mtu}\n")


def test_rdma(here: Broken, tmp_path: Path) -> None:
    rdma_port(tmp_path)
    finding = only(here, "rdma")
    assert finding.level is Level.NOTE and "mlx5_0" in finding.what and "pyverbs" in finding.do
    here.modules.add("pyverbs")
    assert {finding.level for finding in machine.look(here)} == {Level.OK}
    assert only(here, "rdma").what == "pyverbs, and 1 port that works (mlx5_0)"
    here.trouble = "no binding of verbs: pyverbs cannot be used: version 'IBVERBS_PRIVATE_59' not found"
    finding = only(here, "rdma")
    assert finding.level is Level.WARNING and "IBVERBS_PRIVATE_59" in finding.what and finding.do


@pytest.mark.parametrize(
    ("port", "subject", "what"),
    [
        ({"state": "1: DOWN"}, "rdma link", "is not active: DOWN"),
        ({"gids": (NO_GID,)}, "rdma address", "no address"),
        ({"gids": (LINK_LOCAL,)}, "rdma address", "its link alone (fe80::1)"),
    ],
)
def test_rdma_ports_that_do_not_work(
    here: Broken, tmp_path: Path, port: dict[str, Any], subject: str, what: str
) -> None:
    here.modules.add("pyverbs")
    rdma_port(tmp_path, **port)
    finding = only(here, subject)
    assert finding.level is Level.WARNING and what in finding.what and finding.do
    finding = only(here, "rdma")
    assert finding.level is Level.WARNING and "data goes over TCP" in finding.what


def test_rdma_packets(here: Broken, tmp_path: Path) -> None:
    here.modules.add("pyverbs")
    rdma_port(tmp_path, mtu=1500)
    finding = only(here, "rdma packets")
    assert finding.level is Level.NOTE and "packets of 1024 bytes" in finding.what and "eth0 mtu 4200" in finding.do
    assert [packet_bytes(mtu) for mtu in (0, 1279, 1500, 4175, 4176, 9000)] == [256, 1024, 1024, 2048, 4096, 4096]


def test_rdma_device_files(here: Broken, tmp_path: Path) -> None:
    here.modules.add("pyverbs")
    rdma_port(tmp_path)
    here.device = errno.EACCES
    finding = only(here, "rdma device")
    assert finding.level is Level.WARNING and "0666" in finding.do
    (tmp_path / "dev/infiniband/uverbs0").unlink()
    finding = only(here, "rdma device")
    assert finding.level is Level.NOTE and "--device /dev/infiniband" in finding.do


def test_locked_memory(here: Broken, tmp_path: Path) -> None:
    here.modules.add("pyverbs")
    rdma_port(tmp_path)
    here.rlimits = here.rlimits._replace(locked_bytes=(65536, 65536))
    finding = only(here, "locked memory")
    assert finding.level is Level.WARNING and "64 KiB" in finding.what
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("Name:\tpython\nCapEff:\t0000000000004000\nThreads:\t1\n")
    assert not of(machine.look(here), "locked memory"), "whom CAP_IPC_LOCK lets lock what he wants"
    (tmp_path / "proc/self/status").unlink()
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


def test_nodes_whose_data_does_not_go_by_rdma_are_named() -> None:
    nodes = [SimpleNamespace(node=node, host="h", port=9710 + node) for node in (1, 2)]
    transports = {("h", 9711): "rdma", ("h", 9712): "tcp", ("h", 9700): "tcp"}
    fs: Any = SimpleNamespace(
        transport=SimpleNamespace(offers=["rdma"], reasons={"h:9712": "the server does not offer it"}),
        pool=SimpleNamespace(transports=lambda: transports),
        routing=SimpleNamespace(routing=SimpleNamespace(nodes=nodes)),
    )

    async def found() -> list[Finding]:
        return [finding async for finding in cluster._transports(fs)]

    (finding,) = run(found())
    assert finding.level is Level.NOTE and "node 2 goes over TCP: the server does not offer it" in finding.what
    transports["h", 9712] = "rdma"
    assert [finding.level for finding in run(found())] == [Level.OK]
    fs.transport.offers = []
    assert not run(found())
