"""A cluster from the command line, as a user meets it: start it, use every command, stop it, start it again."""

import filecmp
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from fs_client.cli.local.ports import free_ports
from tests.system.control import ROOT, emberfs

pytestmark = pytest.mark.system


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "empty").mkdir()
    for number in range(40):
        (folder / "deep" / f"{number:03}.bin").write_bytes(os.urandom(number * 997))
    (folder / "deep" / "deeper" / "large.bin").write_bytes(os.urandom(9_000_001))
    (folder / "link").symlink_to("deep/001.bin")
    (folder / "naïve name.txt").write_text("naïve")
    return folder


def assert_same_tree(left: Path, right: Path) -> None:
    found = filecmp.dircmp(left, right)
    assert (found.left_only, found.right_only, found.funny_files) == ([], [], [])
    _, mismatch, errors = filecmp.cmpfiles(left, right, found.common_files, shallow=False)
    assert (mismatch, errors) == ([], [])
    for name in found.common_dirs:
        assert_same_tree(left / name, right / name)


def test_a_day_in_the_life_of_a_cluster(tmp_path: Path, tree: Path) -> None:
    directory = tmp_path / "data"
    port = str(free_ports("127.0.0.1", 1)[0])
    up = emberfs("up", "--detach", "--dir", directory, "--port", port, "--storage", "3")
    address = f"127.0.0.1:{port}"
    try:
        assert f"EmberFS is ready at {address}: 3 storage daemons, 3 replicas, data in {directory}" in up.stdout
        assert f'emberfs.connect("{address}")' in up.stdout
        emberfs("mkdir", "-p", "ember:/data/in", cluster=address)
        emberfs("cp", "-r", tree, "ember:/data/in", cluster=address)
        emberfs("down", "--dir", directory)
        emberfs("ls", "ember:/", cluster=address, code=1)
        again = emberfs("up", "--detach", "--dir", directory)
        assert address in again.stdout
        emberfs("cp", "-r", "ember:/data/in/tree", tmp_path / "back", cluster=address)
        assert_same_tree(tree, tmp_path / "back")
    finally:
        down = emberfs("down", "--dir", directory)
    assert down.stdout == f"stopped the cluster in {directory}; its data stays there\n"
    assert emberfs("down", "--dir", directory).stdout == f"the cluster in {directory} is not running\n"


@pytest.fixture
def here(cluster: LaunchedCluster, request: pytest.FixtureRequest) -> str:
    """A directory of this test in the shared cluster."""
    path = f"ember:/{request.node.name}"
    emberfs("mkdir", path, cluster=cluster.address)
    return path


@pytest.fixture
def command(cluster: LaunchedCluster) -> Callable[..., str]:
    """Runs `emberfs` against the shared cluster; returns what it printed."""
    return lambda *arguments, **options: emberfs(*arguments, cluster=cluster.address, **options).stdout


def test_copies_keep_what_they_should(
    command: Callable[..., str], here: str, cluster: LaunchedCluster, tree: Path, tmp_path: Path
) -> None:
    (tree / "deep" / "001.bin").chmod(0o640)
    os.utime(tree / "deep" / "001.bin", ns=(10**18, 10**18 + 123_456_789))
    os.utime(tree / "deep", ns=(10**18, 10**18 + 1))
    command("cp", "-rp", f"{tree}/.", here)
    other = f"ember://{cluster.address}{here.removeprefix('ember:')}-copy"
    command("cp", "-rpq", here, other)
    command("cp", "-rp", "-j", "2", other, tmp_path / "back")
    assert_same_tree(tree, tmp_path / "back")
    assert os.readlink(tmp_path / "back" / "link") == "deep/001.bin"
    for name in ("deep/001.bin", "deep"):
        original, copy = (tree / name).stat(), (tmp_path / "back" / name).stat()
        assert (copy.st_mode, copy.st_mtime_ns) == (original.st_mode, original.st_mtime_ns)


def test_copies_into_a_cluster_go_through_no_link(
    command: Callable[..., str], here: str, cluster: LaunchedCluster, tree: Path
) -> None:
    """And set-id bits come with their owner: whoever runs this."""
    program = tree / "deep" / "001.bin"
    if os.geteuid() == 0:
        os.chown(program, 12345, 23456)
    program.chmod(0o6755)
    path = here.removeprefix("ember:")
    with fs_client.connect(cluster.address) as fs:
        fs.makedirs(f"{path}/victim/deep")
        fs.write_file(f"{path}/victim/precious", b"precious")
        fs.makedirs(f"{path}/in/tree")
        fs.symlink(f"{path}/victim/deep", f"{path}/in/tree/deep")
        fs.symlink(f"{path}/victim/precious", f"{path}/in/tree/naïve name.txt")
        failed = emberfs_failure(command, "cp", "-rp", tree, f"{here}/in")
        assert f"goes where {here}/in/tree/deep is a symbolic link, which is not followed" in failed
        assert fs.listdir(f"{path}/victim/deep") == []
        assert fs.read_file(f"{path}/victim/precious") == b"precious"
        assert fs.read_file(f"{path}/in/tree/naïve name.txt") == (tree / "naïve name.txt").read_bytes()
        fs.unlink(f"{path}/in/tree/deep")
        command("cp", "-rpq", tree, f"{here}/in")
        there, original = fs.stat(f"{path}/in/tree/deep/001.bin"), program.stat()
        assert (there.st_mode, there.st_uid, there.st_gid) == (original.st_mode, original.st_uid, original.st_gid)


def test_listing(command: Callable[..., str], here: str, tree: Path) -> None:
    command("cp", "-rq", f"{tree}/.", here)
    assert command("ls", here).splitlines() == ["deep", "empty", "link", "naïve name.txt"]
    lines = command("ls", "-l", here).splitlines()
    assert lines[0].startswith("drwx")
    assert lines[2].endswith("link -> deep/001.bin")
    recursive = command("ls", "-R", here)
    assert f"{here}/deep/deeper:\nlarge.bin\n" in recursive
    objects = [json.loads(line) for line in command("ls", "--json", f"{here}/deep").splitlines()]
    assert [(o["path"].rpartition("/")[2], o["size"]) for o in objects][:3] == [
        ("000.bin", 0),
        ("001.bin", 997),
        ("002.bin", 1994),
    ]
    (details,) = [json.loads(line) for line in command("stat", "--json", f"{here}/deep/001.bin").splitlines()]
    assert details["type"] == "file"
    assert details["layout"]["durability"] == "memory"
    assert "size: 997 bytes\n" in command("stat", f"{here}/deep/001.bin")


def test_finding_and_measuring(command: Callable[..., str], here: str, tree: Path) -> None:
    command("cp", "-rq", f"{tree}/.", here)
    assert command("find", here, "-name", "*.txt") == f"{here}/naïve name.txt\n"
    assert command("find", here, "-type", "d").splitlines() == [
        here,
        f"{here}/deep",
        f"{here}/deep/deeper",
        f"{here}/empty",
    ]
    assert command("find", here, "-size", "+1M") == f"{here}/deep/deeper/large.bin\n"
    assert command("find", here, "-type", "l", "-0") == f"{here}/link\0"
    total = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    (usage,) = [json.loads(line) for line in command("du", "-s", "--json", here).splitlines()]
    assert (usage["files"], usage["bytes"], usage["symlinks"]) == (42, total, 1)
    lines = command("du", "-b", here).splitlines()
    assert [line.split()[-1] for line in lines] == [f"{here}/deep", f"{here}/empty", here]


def test_moving_and_removing(command: Callable[..., str], here: str, tree: Path) -> None:
    command("cp", "-rq", tree, here)
    command("mv", f"{here}/tree", f"{here}/moved")
    assert command("ls", here) == "moved\n"
    command("mkdir", f"{here}/folder")
    command("mv", f"{here}/moved/link", f"{here}/moved/naïve name.txt", f"{here}/folder")
    assert command("ls", f"{here}/folder").splitlines() == ["link", "naïve name.txt"]
    assert command("cat", f"{here}/folder/naïve name.txt", f"{here}/folder/naïve name.txt") == "naïvenaïve"
    failed = emberfs_failure(command, "rm", f"{here}/moved")
    assert failed == f"emberfs: {here}/moved: is a directory; -r removes it with everything below\n"
    command("rm", "-r", f"{here}/moved")
    command("rm", "-f", f"{here}/no such file")
    assert command("ls", here) == "folder\n"


def emberfs_failure(command: Callable[..., str], *arguments: str) -> str:
    """What a failing command said on stderr; it prints nothing else."""
    result = emberfs(*arguments, cluster=command("status", "--json") and _address(command), code=1)
    assert result.stdout == ""
    return result.stderr


def _address(command: Callable[..., str]) -> str:
    address: str = json.loads(command("status", "--json"))["address"]
    return address


def test_names_that_are_not_utf_8(
    command: Callable[..., str], here: str, cluster: LaunchedCluster, tmp_path: Path
) -> None:
    folder = os.fsencode(tmp_path / "folder")
    os.mkdir(folder)
    name = b"caf\xe9 \xff"
    with open(folder + b"/" + name, "wb") as file:
        file.write(b"content")
    command("cp", "-rq", f"{tmp_path}/folder/.", here)
    listing = subprocess.run(
        [sys.executable, "-m", "fs_client.cli", "ls", "--cluster", cluster.address, here],
        check=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert listing.stdout == name + b"\n"
    command("cp", "-q", f"{here}/{os.fsdecode(name)}", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"
    assert json.loads(command("ls", "--json", here))["path"].endswith(os.fsdecode(name))


def test_layouts_are_inherited(command: Callable[..., str], here: str, tree: Path) -> None:
    command("mkdir", "-p", "--chunk-size", "64K", "--stripe", "2", "--durability", "disk", f"{here}/a/b")
    command("cp", "-q", tree / "deep" / "deeper" / "large.bin", f"{here}/a/b")
    layout = json.loads(command("stat", "--json", f"{here}/a/b/large.bin"))["layout"]
    assert (layout["chunk_size"], layout["stripe"], layout["durability"]) == (65_536, 2, "disk")


def test_failures_are_lines_that_name_the_subject(command: Callable[..., str], here: str, tree: Path) -> None:
    assert emberfs_failure(command, "ls", f"{here}/none") == f"emberfs: {here}/none: No such file or directory\n"
    assert emberfs_failure(command, "cat", here) == f"emberfs: {here}: is a directory\n"
    assert emberfs_failure(command, "mkdir", here) == f"emberfs: {here}: File exists\n"
    long = f"{here}/{'x' * 256}"
    assert emberfs_failure(command, "mkdir", long) == f"emberfs: {long}: File name too long\n"
    copied = emberfs_failure(command, "cp", "-r", str(tree), "/no/such/folder/", f"{here}/")
    assert "emberfs: /no/such/folder/: No such file or directory\n" in copied
    assert "copied 43 files" in copied


def test_status(command: Callable[..., str], cluster: LaunchedCluster) -> None:
    value = json.loads(command("status", "--json"))
    assert value["healthy"] is True
    assert [node["state"] for node in value["nodes"]] == ["up", "up", "up"]
    assert all(chain["state"] == "serving" and len(chain["targets"]) == 3 for chain in value["chains"])
    assert len(value["chains"]) == 3
    assert 0 < value["free_bytes"] <= value["capacity_bytes"]
    text = command("status", cluster.address)
    assert f"cluster {cluster.record.cluster} at {cluster.address}: healthy, 3 replicas" in text
