"""What the other tests of this folder count on: the guest's devices, their addresses, its cables."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.rdma.conftest import DEVICES, device_names

pytestmark = pytest.mark.rdma


def test_each_device_is_up_and_has_a_gid_of_its_own_address() -> None:
    gids = set()
    for name in device_names():
        port = Path(DEVICES, name, "ports", "1")
        assert port.joinpath("state").read_text().split()[1] == "ACTIVE"
        gid = port.joinpath("gids", "1").read_text().strip()
        assert gid.startswith("0000:0000:0000:0000:0000:ffff:0a4d:")
        gids.add(gid)
    assert len(gids) == len(device_names())


@pytest.mark.skipif("EMBERFS_RDMA_GUEST" not in os.environ, reason="only the guest's disk is made for this")
def test_the_disk_of_the_guest_can_what_a_daemon_asks_of_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    file = os.open(path, os.O_RDWR | os.O_DIRECT)
    os.close(file)


@pytest.mark.rdma(devices=2)
@pytest.mark.skipif("EMBERFS_RDMA_GUEST" not in os.environ, reason="only the guest's cables may be counted on")
def test_what_goes_from_one_device_to_the_other_takes_the_cable() -> None:
    def received() -> int:
        return int(Path("/sys/class/net/eth1/statistics/rx_bytes").read_text())

    before = received()
    server = subprocess.Popen(["ibv_rc_pingpong", "-d", "rxe1", "-g", "1", "-n", "10", "-s", "4096"])
    try:
        # Its port opens some time after its start; the client says when there was nobody yet.
        while subprocess.run(
            ["ibv_rc_pingpong", "-d", "rxe0", "-g", "1", "-n", "10", "-s", "4096", "10.77.0.2"], capture_output=True
        ).returncode:
            assert server.poll() is None
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()
    assert received() - before > 10 * 4096
