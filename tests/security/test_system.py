"""A whole cluster with security on, of real processes: what a token lets its holder do, and what nobody gets around."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fs_client import aio
from fs_client.cli.local.configuration import Options
from fs_client.cli.local.launch import LaunchedCluster, launch
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records.meta import User
from fs_common.records.session import Hello
from fs_common.records.storage import ReadChunks, ReadItem, SpaceInfo, UpdateChunks
from fs_common.security.tokens import make_token, token_text
from fs_common.transports import tcp
from tests.conftest import FAST_SETTINGS
from tests.fuse.mounting import needs_mount, needs_root
from tests.support import run
from tests.system.control import ROOT, WAIT_S, kill, start_again, wait_until

pytestmark = pytest.mark.system

ALICE, BOB = User(60001, 60001, []), User(60002, 60002, [60001])
SECRET = r"ember\.[0-9a-f]{8}\.[A-Za-z0-9_-]{20}"


class Secured:
    """The cluster, and who is known to it."""

    def __init__(self, cluster: LaunchedCluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.address = cluster.address

    def first(self, name: str) -> Path:
        return self.cluster.path / "tokens" / f"{name}.token"

    def emberfs(self, *arguments: str | Path, token: Path | None = None, code: int = 0) -> str:
        """As its shell prints it, errors included; by default the administrator's."""
        environment = dict(os.environ, PYTHONPATH=str(ROOT), EMBERFS_CLUSTER=self.address)
        environment["EMBERFS_TOKEN_FILE"] = str(token or self.first("admin"))
        done = subprocess.run(
            [sys.executable, "-m", "fs_client.cli", *map(str, arguments)],
            capture_output=True, text=True, env=environment, timeout=2 * WAIT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def user(self, name: str, user: User, *words: str) -> Path:
        """File with a token of a new user."""
        groups = [word for group in user.groups for word in ("--group", str(group))]
        self.emberfs("users", "add", name, "--uid", str(user.uid), "--gid", str(user.gid), *groups)
        return self.token(name, *words)

    def token(self, name: str, *words: str) -> Path:
        path = self.folder / f"{name}{len(list(self.folder.iterdir()))}.token"
        self.emberfs("users", "token", name, *words, "-o", path)
        assert path.stat().st_mode & 0o777 == 0o600
        return path


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    options = Options(port=0, durability="memory", settings=FAST_SETTINGS, security="on")
    with launch(tmp_path_factory.mktemp("secured"), options, restart=False) as cluster:
        secured = Secured(cluster, tmp_path_factory.mktemp("tokens"))
        secured.emberfs("mkdir", "-m", "1777", "ember:/open")
        yield secured


def test_a_user_is_himself_whatever_his_program_says(secured: Secured) -> None:
    alice, bob = secured.user("alice", ALICE), secured.user("bob", BOB)

    async def main() -> None:
        async with await aio.connect(secured.address, token_file=alice) as fs:
            await fs.write_file("/open/alices", b"x" * 100)
            await fs.chmod("/open/alices", 0o600)
            assert (await fs.stat("/open/alices")).st_uid == ALICE.uid
        async with await aio.connect(secured.address, token_file=bob) as fs:
            for claimed in (ALICE, User(0, 0, []), BOB):
                fs.user = claimed
                for attempt in (
                    fs.read_file("/open/alices"),
                    fs.open("/open/alices", "r+b"),
                    fs.unlink("/open/alices"),
                    fs.chmod("/open/alices", 0o777),
                    fs.chown("/open/alices", BOB.uid, BOB.gid),
                    fs.mkdir("/mine"),
                ):
                    with pytest.raises(PermissionError):
                        await attempt
            await fs.write_file("/open/bobs", b"y")
            assert (await fs.stat("/open/bobs")).st_uid == BOB.uid

    run(main())


def test_a_mounts_token_acts_for_its_users_and_squashes_root(secured: Secured) -> None:
    trusted, squashed = (
        secured.user("host", User(1, 1, []), "--mount"),
        secured.token("host", "--mount", "--squash-root"),
    )

    async def made_by(token: Path, user: User, name: str) -> int:
        async with await aio.connect(secured.address, token_file=token) as fs:
            fs.user = user
            await fs.write_file(name, b"z")
            return (await fs.stat(name)).st_uid

    async def main() -> None:
        assert await made_by(trusted, ALICE, "/open/m1") == ALICE.uid
        assert await made_by(trusted, User(0, 0, []), "/open/m2") == 0
        assert await made_by(squashed, ALICE, "/open/m3") == ALICE.uid
        assert await made_by(squashed, User(0, 0, []), "/open/m4") == 65534
        with pytest.raises(PermissionError):
            await made_by(squashed, User(0, 0, []), "/not-here")

    run(main())


@needs_mount
@needs_root
def test_a_mount_shows_its_token_to_nobody(secured: Secured, tmp_path: Path) -> None:
    text = secured.user("gateway", User(60007, 60007, []), "--mount", "--squash-root").read_text().strip()
    secret = text.split(".")[2]
    place, log = tmp_path / "mnt", tmp_path / "mount.log"
    place.mkdir()
    secured.emberfs("mount", "-o", f"token={text}", "--log", log, secured.address, place)
    try:
        made = place / "open" / "by-root"
        made.write_bytes(b"x")
        assert made.stat().st_uid == 65534, "root is nobody here"
        daemons = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(place).encode() in _read(path)]
        assert daemons
        for path in [*daemons, Path("/proc/mounts"), log]:
            assert secret.encode() not in _read(path), path
    finally:
        secured.emberfs("umount", place)


def _read(path: Path) -> bytes:
    """Of a process that may be gone meanwhile."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_only_administrators_administer(secured: Secured) -> None:
    carol, mount = secured.user("carol", User(60003, 60003, [])), secured.first("mount")
    before = json.loads(secured.emberfs("status", "--json"))["routing_version"]
    for token in (carol, mount, secured.first("storage")):
        for command in (["users", "list"], ["drain", "1"], ["rebalance"], ["users", "revoke", "00000000"]):
            text = secured.emberfs(*command, token=token, code=1)
            assert "may administer" in text or "its token is not for" in text, text
    assert "healthy" in secured.emberfs("status", token=carol)
    for token in (carol, mount):
        told = secured.emberfs("fsck", token=token, code=1)
        assert "fsck needs a token of a user who may administer" in told and "not checked" not in told, told
    assert "sound" in secured.emberfs("fsck")
    assert json.loads(secured.emberfs("status", "--json"))["routing_version"] == before
    secured.emberfs("users", "add", "operator", "--uid", "0", "--gid", "0", "--admin")
    assert "carol" in secured.emberfs("users", "list", token=secured.token("operator"))


def test_storage_daemons_take_passes_of_this_cluster_alone(secured: Secured) -> None:
    token = secured.user("dave", User(60004, 60004, []))
    daemon = secured.cluster.record.storage[0]

    async def main() -> None:
        async with await aio.connect(secured.address, token_file=token) as fs:
            given = (await fs.pool.peer(fs.options.addresses[0])).welcome.given_pass
            client = fs.client
        good = Hello([1], "client", client, shown_pass=given)
        read = ReadChunks([ReadItem(1, 1, 1, 0, 0, 1)])
        peer = await tcp.connect(secured.cluster.record.host, daemon.port, good, timeout=WAIT_S)
        with pytest.raises(EmberError) as needed:
            await peer.call(methods.READ_CHUNKS, read, timeout=WAIT_S)
        assert needed.value.code is Code.PERMIT_NEEDED
        await peer.call(methods.SPACE_INFO, SpaceInfo(), timeout=WAIT_S)
        forwarded = UpdateChunks(b"x" * 16, [], source=daemon.node * 100 + 1)
        pulled = methods.PULL_VERSION.request(1, 1, bytes(12), 1, False)
        removed = methods.REMOVE_FILES.request(1, 1, [2])
        for method, request in (
            (methods.UPDATE_CHUNKS, forwarded),
            (methods.PULL_VERSION, pulled),
            (methods.REMOVE_FILES, removed),
        ):
            with pytest.raises(EmberError) as denied:
                await peer.call(method, request, timeout=WAIT_S)
            assert denied.value.code is Code.ACCESS_DENIED, method.name
        await peer.close()
        changed = bytearray(given)
        changed[20] ^= 1
        for hello in (
            Hello([1], "client", client),
            Hello([1], "client", client, token=token.read_text().strip()),
            Hello([1], "client", bytes(16), shown_pass=given),
            Hello([1], "storage", client, shown_pass=given),
            Hello([1], "client", client, shown_pass=bytes(changed)),
        ):
            with pytest.raises(EmberError) as refused:
                await tcp.connect(secured.cluster.record.host, daemon.port, hello, timeout=WAIT_S)
            assert refused.value.code is Code.PASS_REFUSED

    run(main())


def test_storage_daemons_let_users_at_the_files_that_are_theirs(secured: Secured) -> None:
    """Whatever a program does with what it knows of a file: its inode is all that it needs to ask for the bytes."""
    owner, other = secured.user("gina", User(60007, 60007, [])), secured.user("hugo", User(60008, 60008, []))
    data = os.urandom(3_000_000)

    async def main() -> None:
        async with (
            await aio.connect(secured.address, token_file=owner) as ours,
            await aio.connect(secured.address, token_file=other) as theirs,
        ):
            await ours.write_file("/open/ginas", data)
            await ours.chmod("/open/ginas", 0o644)
            ref = await theirs.ref("/open/ginas")
            assert bytes((await theirs.read_ranges([(ref, 0, len(data))]))[0]) == data
            await ours.chmod("/open/ginas", 0o600)
            # As an open descriptor does, a permit goes on.
            assert bytes((await theirs.read_ranges([(ref, 0, 100)]))[0]) == data[:100]
            with pytest.raises(EmberError, match="may not write"):
                await theirs.writer.write(ref, 0, memoryview(b"x" * 100), lambda _: None)
        async with await aio.connect(secured.address, token_file=other) as theirs:
            with pytest.raises(PermissionError, match="may not read"):
                await theirs.read_ranges([(ref, 0, 100)])
            # Whose right to write was looked at when it opened writes, whatever the mode is by now.
            await theirs.write_file("/open/hugos", b"1")
            async with await theirs.open("/open/hugos", "r+b") as file:
                await theirs.chmod("/open/hugos", 0o000)
                await file.write_at(0, b"2" * 2_000_000)
            assert (await theirs.stat("/open/hugos")).st_size == 2_000_000
        async with await aio.connect(secured.address, token_file=owner) as ours:
            assert await ours.read_file("/open/ginas") == data

    run(main(), 2 * WAIT_S)


def test_info_tells_users_where_their_files_lie_and_administrators_what_replicas_have(secured: Secured) -> None:
    token = secured.user("iris", User(60009, 60009, []))

    async def write() -> None:
        async with await aio.connect(secured.address, token_file=token) as fs:
            await fs.write_file("/open/iris", b"i" * 1000)

    run(write())
    # A test before may have killed a daemon.
    wait_until(lambda: _is_healthy(secured), "all replicas serve")
    told = secured.emberfs("info", "ember:/open/iris", token=token)
    assert "told to administrators alone" in told and re.search(r"@1\b", told) and "(?)" not in told
    assert " 1000 " in secured.emberfs("info", "ember:/open/iris")


def test_metadata_is_measured_with_a_token(secured: Secured) -> None:
    told = secured.emberfs("bench", "--only", "metadata", "--quick", "--repeat", "1", "--cluster", secured.address)
    assert "create, 64 in flight" in told and "failed" not in told, told


def test_who_has_no_token_or_another_clusters_is_told_so(secured: Secured, tmp_path: Path) -> None:
    other = tmp_path / "other.token"
    other.write_text(token_text(make_token(os.urandom(36))))
    assert "nobody knows this token here" in secured.emberfs("ls", "ember:/", token=other, code=1)
    other.write_text("not a token")
    assert f"token_file {other}: this is no token" in secured.emberfs("ls", "ember:/", token=other, code=1)
    assert "No such file" in secured.emberfs("ls", "ember:/", token=tmp_path / "missing", code=1)
    done = subprocess.run(
        [sys.executable, "-m", "fs_client.cli", "ls", "ember:/", "--cluster", secured.address],
        capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(ROOT)), timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 1 and "EMBERFS_TOKEN_FILE" in done.stderr


def test_a_revoked_token_is_void_for_those_who_are_connected(secured: Secured) -> None:
    token = secured.user("erin", User(60005, 60005, []))
    number = token.read_text().split(".")[1]

    async def main() -> None:
        async with await aio.connect(secured.address, token_file=token) as fs:
            await fs.write_file("/open/erins", b"e" * 3_000_000)
            ref = await fs.ref("/open/erins")
            await fs.read_ranges([(ref, 0, 1)])
            await asyncio.to_thread(secured.emberfs, "users", "revoke", number)
            with pytest.raises(OSError, match="nobody knows this token"):
                await fs.stat("/open/erins")
            # Storage daemons hear of it with their next heartbeat.
            deadline = asyncio.get_running_loop().time() + WAIT_S
            with pytest.raises(OSError):
                while asyncio.get_running_loop().time() < deadline:
                    await fs.read_ranges([(ref, 0, 3_000_000)])

    run(main(), 2 * WAIT_S)


def test_keys_are_rotated_under_clients_that_go_on(secured: Secured) -> None:
    """Connections end with the keys that made their passes; programs do not notice."""
    token = secured.user("frank", User(60006, 60006, []))

    def rotate() -> None:
        wait_until(lambda: _rotated(secured), "the last key is everywhere")

    async def main() -> None:
        data = os.urandom(1_500_000)
        over = asyncio.Event()

        async def work(name: str) -> int:
            rounds = 0
            while not over.is_set():
                await fs.write_file(name, data)
                assert await fs.read_file(name) == data
                rounds += 1
            return rounds

        async with await aio.connect(secured.address, token_file=token) as fs:
            await fs.write_file("/open/franks", b"f" * 100)
            async with asyncio.TaskGroup() as group:
                working = [group.create_task(work(f"/open/franks{number}")) for number in range(3)]
                for _ in range(4):
                    await asyncio.to_thread(rotate)
                over.set()
            assert all(task.result() for task in working)
            assert await fs.read_file("/open/franks") == b"f" * 100
            # A daemon that was killed knows none of the old connections: the client comes with a pass that is void.
            name = secured.cluster.record.storage[0].name
            await asyncio.to_thread(kill, secured.cluster, name)
            await asyncio.to_thread(_restart, secured)
            for number in range(20):
                await fs.write_file(f"/open/frank{number}", b"g" * 1000)
                assert await fs.read_file(f"/open/frank{number}") == b"g" * 1000

    run(main(), 4 * WAIT_S)
    wait_until(lambda: _is_healthy(secured), "all replicas serve")


def _rotated(secured: Secured) -> bool:
    environment = dict(os.environ, PYTHONPATH=str(ROOT), EMBERFS_TOKEN_FILE=str(secured.first("admin")))
    done = subprocess.run(
        [sys.executable, "-m", "fs_client.cli", "users", "rotate-keys", "--cluster", secured.address],
        capture_output=True, text=True, env=environment, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0 or "has not reached every storage daemon" in done.stderr, done.stderr
    return done.returncode == 0


def _is_healthy(secured: Secured) -> bool:
    environment = dict(os.environ, PYTHONPATH=str(ROOT), EMBERFS_TOKEN_FILE=str(secured.first("admin")))
    command = [sys.executable, "-m", "fs_client.cli", "status", secured.address]
    return subprocess.run(command, capture_output=True, env=environment, timeout=WAIT_S).returncode == 0


def _restart(secured: Secured) -> None:
    start_again(secured.cluster)


def test_no_secret_is_in_logs_files_or_process_lists(secured: Secured) -> None:
    secured.emberfs("users", "token", "admin", "--lasts", "1h", "-o", secured.folder / "checked.token")
    texts = {path.read_text().strip() for path in [*secured.folder.iterdir(), *secured.first("x").parent.iterdir()]}
    assert len(texts) >= 4
    secrets = [text.split(".")[2].encode() for text in texts]
    for path in secured.cluster.path.rglob("*"):
        if path.is_file() and path.parent.name != "tokens":
            content = path.read_bytes()
            assert not any(secret in content for secret in secrets), path
    record = secured.cluster.record
    pids = [secured.cluster.pid, *(daemon.process.pid for daemon in record.daemons if daemon.process is not None)]
    for pid in pids:
        for name in ("cmdline", "environ"):
            content = Path(f"/proc/{pid}/{name}").read_bytes()
            assert not any(secret in content for secret in secrets), (pid, name)
