"""Root and ordinary users on one cluster: what the Python API and the commands let each of them do."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from fs_client import aio
from fs_client.cli.local.launch import LaunchedCluster
from fs_client.loader.file_dataset import FileDataset
from fs_common import methods
from fs_common.ids import ROOT_INODE
from fs_common.records import meta
from fs_common.records.meta import FileType, User
from tests.support import run
from tests.system.control import emberfs

pytestmark = pytest.mark.system

ALICE, BOB = User(60001, 60001), User(60002, 60002)
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="acting as other users needs root")


async def _connect(cluster: LaunchedCluster, user: User) -> aio.AsyncFileSystem:
    fs = await aio.connect(cluster.address)
    fs.user, fs.umask = user, 0o022
    return fs


def test_the_api_acts_as_its_user(cluster: LaunchedCluster) -> None:
    async def body() -> None:
        async with await _connect(cluster, User()) as root, await _connect(cluster, ALICE) as alice:
            async with await _connect(cluster, BOB) as bob:
                await root.mkdir("/users", 0o777)
                await root.chmod("/users", 0o777)
                await alice.mkdir("/users/a")
                await alice.write_file("/users/a/open", b"x" * 100)
                await alice.write_file("/users/a/secret", b"secret")
                await alice.chmod("/users/a/secret", 0o600)
                assert await bob.read_file("/users/a/open") == b"x" * 100
                for attempt in (
                    bob.read_file("/users/a/secret"),
                    bob.read_ranges([("/users/a/open", 0, 1), ("/users/a/secret", 0, 1)]),
                    bob.ref("/users/a/secret"),
                    bob.open("/users/a/secret"),
                    bob.open("/users/a/open", "r+b"),
                    bob.open("/users/a/open", "wb"),
                    bob.open("/users/a/new", "wb"),
                    bob.truncate("/users/a/open", 0),
                    bob.unlink("/users/a/open"),
                    bob.rmtree("/users/a"),
                    bob.chmod("/users/a/open", 0o777),
                    bob.utime("/users/a/open"),
                ):
                    with pytest.raises(PermissionError):
                        await attempt
                assert await root.read_file("/users/a/secret") == b"secret"
                assert (await bob.stat("/users/a/secret")).st_size == 6
                assert (await bob.stat("/users/a/open")).st_size == 100
                # What was opened stays open, and what one makes oneself may be of any mode.
                async with await alice.open("/users/a/mine", "wb", permissions=0) as file:
                    await file.write_at(0, b"12345")
                    await file.truncate(3)
                assert (await alice.stat("/users/a/mine")).st_size == 3
                with pytest.raises(PermissionError):
                    await alice.read_file("/users/a/mine")
                await alice.chmod("/users/a/mine", 0o222)
                async with await bob.open("/users/a/mine", "ab") as file:
                    await file.append(b"!")
                assert await root.read_file("/users/a/mine") == b"123!"

    run(body())


def test_writers_without_privilege_take_set_id_bits(cluster: LaunchedCluster) -> None:
    async def body() -> None:
        async with await _connect(cluster, User()) as root, await _connect(cluster, ALICE) as alice:
            for fs, left in ((root, 0o6777), (alice, 0o777)):
                name = f"/set-id-{fs.user.uid}"
                await root.write_file(name, b"x")
                await root.chmod(name, 0o6777)
                async with await fs.open(name, "r+b") as file:
                    await file.write_at(0, b"y")
                assert stat.S_IMODE((await root.stat(name)).st_mode) == left

    run(body())


def test_a_directory_that_may_be_listed_but_not_searched(cluster: LaunchedCluster) -> None:
    async def body() -> None:
        async with await _connect(cluster, User()) as root, await _connect(cluster, BOB) as bob:
            await root.mkdir("/list")
            await root.write_file("/list/f", b"x")
            await root.chmod("/list", 0o744)
            assert await bob.listdir("/list") == ["f"]
            with pytest.raises(PermissionError):
                async for _ in bob.scandir("/list", attributes=True):
                    pass

    run(body())


async def _mknod(fs: aio.AsyncFileSystem, path: bytes, type_: FileType) -> None:
    request = meta.Mknod(ROOT_INODE, path, type_, 0o644, fs.request_id(), device=os.makedev(1, 3), user=fs.user)
    await fs.meta_call(methods.MKNOD, request, path)


@NEEDS_ROOT
def test_special_files_in_the_api_and_in_commands(cluster: LaunchedCluster, tmp_path: Path) -> None:
    async def body() -> None:
        async with await _connect(cluster, User()) as root:
            await root.mkdir("/special")
            for type_ in (FileType.FIFO, FileType.SOCKET, FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE):
                await _mknod(root, f"/special/{type_.name}".encode(), type_)
            device = await root.stat("/special/CHARACTER_DEVICE")
            assert stat.S_ISCHR(device.st_mode) and (os.major(device.st_rdev), os.minor(device.st_rdev)) == (1, 3)
            assert stat.S_ISFIFO((await root.stat("/special/FIFO")).st_mode)
            with pytest.raises(OSError) as caught:
                await root.open("/special/FIFO")
            assert caught.value.errno == errno.ENXIO
            usage = await root.usage("/special")
            assert (usage.files, usage.specials) == (0, 4)

    run(body())
    listing = emberfs("ls", "-l", "ember:/special", cluster=cluster.address).stdout
    assert [line[0] for line in listing.splitlines()] == ["b", "c", "p", "s"]
    types = [json.loads(line)["type"] for line in emberfs(
        "ls", "--json", "ember:/special", cluster=cluster.address
    ).stdout.splitlines()]  # fmt: skip
    assert types == ["block device", "character device", "fifo", "socket"]
    found = emberfs("find", "ember:/special", "-type", "p", cluster=cluster.address).stdout
    assert found == "ember:/special/FIFO\n"
    failed = emberfs("cp", "-r", "ember:/special", tmp_path, cluster=cluster.address, code=1)
    assert "neither a file nor a directory" in failed.stderr
    emberfs("rm", "-r", "ember:/special", cluster=cluster.address)


@NEEDS_ROOT
def test_commands_of_an_ordinary_user(cluster: LaunchedCluster) -> None:
    def command(*arguments: str, code: int = 0) -> str:
        result = emberfs(*arguments, cluster=cluster.address, user=ALICE.uid, code=code)
        return result.stdout + result.stderr

    emberfs("mkdir", "ember:/commands", cluster=cluster.address)
    assert "ermission denied" in command("mkdir", "ember:/commands/mine", code=1)

    async def body() -> None:
        async with await _connect(cluster, User()) as root:
            await root.chown("/commands", ALICE.uid, ALICE.gid)
            await root.mkdir("/commands/closed", 0o700)
            await root.write_file("/commands/closed/f", b"12345")

    run(body())
    command("mkdir", "ember:/commands/mine")
    command("cp", "/etc/hostname", "ember:/commands/mine/f")
    assert command("cat", "ember:/commands/mine/f") == Path("/etc/hostname").read_text()
    assert json.loads(command("stat", "--json", "ember:/commands/mine/f"))["uid"] == ALICE.uid
    command("mv", "ember:/commands/mine/f", "ember:/commands/g")
    assert "ermission denied" in command("ls", "ember:/commands/closed", code=1)
    assert "ermission denied" in command("cat", "ember:/commands/closed/f", code=1)
    assert "1 directory below cannot be read" in command("du", "-s", "ember:/commands", code=1)
    assert "ermission denied" in command("rm", "-r", "ember:/commands", code=1)
    found = command("find", "ember:/commands", code=1).splitlines()
    assert "ember:/commands/closed" in found and "ember:/commands/closed/f" not in found
    emberfs("rm", "-r", "ember:/commands", cluster=cluster.address)


def test_a_dataset_of_files_that_may_not_be_looked_at(cluster: LaunchedCluster) -> None:
    async def body() -> None:
        async with await _connect(cluster, User()) as root:
            await root.mkdir("/dataset")
            await root.write_file("/dataset/f", b"x")
            await root.chmod("/dataset", 0o744)

    run(body())
    with pytest.MonkeyPatch.context() as patch, pytest.raises(PermissionError):
        patch.setattr("fs_client.aio.process_user", lambda: BOB)
        FileDataset(cluster.address, "/dataset")
