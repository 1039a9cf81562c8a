"""Commands on files, typed as one types them for coreutils, on a cluster of real processes."""

import json
import os
import threading
from collections.abc import Callable

import pytest

import fs_client
from fs_client.cli import tail as tail_module
from fs_client.cli.local.launch import LaunchedCluster
from tests.system.conftest import Typed

pytestmark = pytest.mark.system

Command = Callable[..., Typed]


@pytest.fixture
def tree(cluster: LaunchedCluster, home: str) -> str:
    """three files of different size and age, one of them hidden, a directory and a link."""
    folder = home.removeprefix("ember:")
    with fs_client.connect(cluster.address) as fs:
        fs.mkdir(f"{folder}/sub")
        for number, name in enumerate(("old", "large", ".hidden")):
            fs.write_file(f"{folder}/{name}", bytes((2000, 3000, 1000)[number]))
            fs.utime(f"{folder}/{name}", ns=(0, (number + 1) * 10**18))
        fs.utime(f"{folder}/sub", ns=(0, 1))
        fs.write_file(f"{folder}/sub/inner", b"x")
        fs.symlink("sub", f"{folder}/link")
        fs.utime(f"{folder}/link", ns=(0, 2), follow_symlinks=False)
        fs.utime(f"{folder}/sub", ns=(0, 1))
    return home


def names(typed: Typed) -> list[str]:
    assert (typed.code, typed.err) == (0, "")
    return [line.split()[-1] for line in typed.out.splitlines() if line]


def test_ls_as_fingers_type_it(typed: Command, tree: str) -> None:
    everything = [".hidden", "large", "link", "old", "sub"]
    assert names(typed("ls", "-a", tree)) == names(typed("ls", "-1A", tree)) == everything
    long = typed("ls", "-la", tree).out.splitlines()
    assert [line.split()[4] for line in long] == ["1000", "3000", "3", "2000", long[-1].split()[4]]
    assert "2.0K" in typed("ls", "-lh", tree).out and typed("ls", "-lh", tree).code == 0
    assert names(typed("ls", "-t", tree)) == [".hidden", "large", "old", "link", "sub"]
    assert names(typed("ls", "-rt", tree)) == ["sub", "link", "old", "large", ".hidden"]
    assert [name for name in names(typed("ls", "-S", tree)) if name not in ("sub", "link")] == [
        "large",
        "old",
        ".hidden",
    ]
    assert names(typed("ls", "-r", tree)) == everything[::-1]
    assert typed("ls", "-F", tree).out.split() == [".hidden", "large", "link@", "old", "sub/"]
    assert typed("ls", "-dl", tree).out.endswith(f" {tree}\n")
    assert typed("ls", "-lhtr", f"{tree}/old", f"{tree}/large").out.split()[-1] == f"{tree}/large"
    both = typed("ls", f"{tree}/sub", f"{tree}/old").out
    assert both == f"{tree}/old\n\n{tree}/sub:\ninner\n"
    assert "inner" in names(typed("ls", "-R", tree))
    inode, name = typed("ls", "-i", f"{tree}/old").out.split()
    assert inode == typed("stat", "-c", "%i", f"{tree}/old").out.strip() and name == f"{tree}/old"
    assert typed("ls", "-n", f"{tree}/old").out.split()[2:4] == [str(os.getuid()), str(os.getgid())]


def test_du_and_df(typed: Command, tree: str) -> None:
    assert typed("du", "-sh", tree).out.split()[:2] == ["5.9K", "4"]
    assert [line.split()[0] for line in typed("du", "-b", "-d", "1", tree).out.splitlines()] == ["1", "6001"]
    assert len(typed("du", "-d0", tree).out.splitlines()) == 1
    total = typed("du", "-sbc", f"{tree}/old", f"{tree}/sub").out.splitlines()[-1].split()
    assert (total[0], total[-1]) == ("2001", "total")
    assert typed("df", "-h").code == 0


def test_rm_mkdir_and_rmdir(typed: Command, home: str) -> None:
    assert typed("mkdir", "-pv", f"{home}/a/b/c").out == f"{home}/a/b/c\n"
    assert typed("rmdir", f"{home}/a").code == 1
    typed("touch", f"{home}/keep")
    kept = typed("rmdir", "-p", f"{home}/a/b/c")
    assert kept == (1, "", f"emberfs: {home}: Directory not empty\n")
    assert typed("ls", home).out == "keep\n"
    typed("mkdir", "-p", f"{home}/a/b")
    assert typed("rm", "-rf", f"{home}/a", f"{home}/none").code == 0
    assert typed("rm", "-f").code == 0 and typed("rm").code == 2
    typed("mkdir", f"{home}/empty")
    assert typed("rm", f"{home}/empty").code == 1
    assert typed("rm", "-dv", f"{home}/empty").out == f"{home}/empty\n"


def test_head_and_tail(typed: Command, home: str, cluster: LaunchedCluster) -> None:
    folder = home.removeprefix("ember:")
    lines = [b"%06d\n" % number for number in range(100_000)]
    with fs_client.connect(cluster.address) as fs:
        fs.write_file(f"{folder}/lines", b"".join(lines))
        fs.write_file(f"{folder}/open-end", b"a\nb\nc")
        fs.write_file(f"{folder}/empty", b"")
    path = f"{home}/lines"

    def text(some: list[bytes]) -> str:
        return b"".join(some).decode()

    assert typed("head", path).out == text(lines[:10])
    assert typed("head", "-n50000", path).out == text(lines[:50_000])
    assert typed("head", "-c", "1K", path).out == text(lines)[:1024]
    assert typed("head", "-n", "0", path).out == ""
    assert typed("tail", path).out == text(lines[-10:])
    assert typed("tail", "-n", "50000", path).out == text(lines[50_000:])
    assert typed("tail", "-n", "+99999", path).out == text(lines[-2:])
    assert typed("tail", "-n", "999999", path).out == text(lines)
    assert typed("tail", "-c10", path).out == text(lines)[-10:]
    assert typed("tail", "-c", "+699991", path).out == text(lines)[-10:]
    assert typed("tail", "-n2", f"{home}/open-end").out == "b\nc"
    assert typed("head", "-n2", f"{home}/open-end").out == "a\nb\n"
    assert typed("head", "-n9", f"{home}/open-end").out == "a\nb\nc"
    assert typed("tail", f"{home}/empty").out == typed("head", f"{home}/empty").out == ""
    two = typed("head", "-n1", f"{home}/open-end", path).out
    assert two == f"==> {home}/open-end <==\na\n\n==> {path} <==\n000000\n"
    assert typed("tail", "-q", "-n1", f"{home}/open-end", path).out == "c099999\n"
    failed = typed("tail", home, f"{home}/none", path)
    assert failed.code == 1 and failed.out.endswith(text(lines[-10:]))
    assert failed.err == f"emberfs: {home}: is a directory\nemberfs: {home}/none: No such file or directory\n"


def test_tail_follows_what_is_added(
    typed: Command, home: str, cluster: LaunchedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{home.removeprefix('ember:')}/log"
    with fs_client.connect(cluster.address) as fs:
        fs.write_file(path, b"one\n")
        looks = threading.Semaphore(0)
        go_on = tail_module._Tail._go_on

        async def look(self: object, *arguments: object) -> object:
            """After the first look something is added, after the second the file goes."""
            left = await go_on(self, *arguments)  # type: ignore[arg-type]
            looks.release()
            return left

        monkeypatch.setattr(tail_module._Tail, "_go_on", look)
        monkeypatch.setattr(tail_module, "LOOK_S", 0.01)

        def write() -> None:
            assert looks.acquire(timeout=60)
            with fs.open(path, "ab") as file:
                file.write(b"two\n")
            for _ in range(3):
                assert looks.acquire(timeout=60)
            fs.truncate(path, 1)
            for _ in range(3):
                assert looks.acquire(timeout=60)
            fs.unlink(path)

        writer = threading.Thread(target=write)
        writer.start()
        followed = typed("tail", "-f", f"ember:{path}")
        writer.join()
    assert followed.out == "one\ntwo\n"
    assert f"ember:{path}: was cut to 1 bytes; going on from there" in followed.err
    assert followed.code == 1


def test_touch_and_truncate(typed: Command, home: str) -> None:
    path = f"{home}/file"
    assert typed("touch", "-c", path).code == 0 and typed("ls", home).out == ""
    assert typed("touch", path).code == 0
    assert typed("touch", "-d", "@5", path).code == 0
    assert typed("stat", "-c", "%X %Y", path).out == "5 5\n"
    assert typed("touch", "-m", "-d", "@7", path).code == 0
    assert typed("stat", "-c", "%X %Y", path).out == "5 7\n"
    assert typed("touch", "-a", path).code == 0
    accessed, modified = typed("stat", "-c", "%X %Y", path).out.split()
    assert int(accessed) > 10**9 and modified == "7"
    assert typed("touch", "-d", "soon", path).code == 2
    assert typed("truncate", "-s", "1M", path, f"{home}/made").code == 0
    assert typed("truncate", "-c", "-s", "1", f"{home}/none").code == 0
    assert typed("stat", "-c", "%s %n", path, f"{home}/made").out == f"1048576 {path}\n1048576 {home}/made\n"
    assert "none" not in typed("ls", home).out


def test_links(typed: Command, home: str) -> None:
    typed("mkdir", "-p", f"{home}/data/run-1", f"{home}/data/run-2")
    typed("touch", f"{home}/data/run-1/one", f"{home}/data/run-2/two")
    latest = f"{home}/data/latest"
    assert typed("ln", "-s", f"{home}/data/run-1", latest).code == 0
    assert typed("readlink", latest).out == "run-1\n"
    assert typed("ls", latest).out == "one\n"
    assert typed("ln", "-sn", "run-2", latest).code == 1, "it exists"
    assert typed("ln", "-sfn", "run-2", latest).code == 0
    assert typed("ls", f"{latest}/").out == "two\n"
    assert typed("ln", "-s", "anything", latest).code == 0, "into the directory it leads to"
    assert typed("readlink", f"{home}/data/run-2/anything").out == "anything\n"
    assert typed("ln", f"{latest}/two", f"{home}/data/again").code == 0
    assert typed("stat", "-c", "%h", f"{home}/data/again").out == "2\n"
    assert typed("ln", "-v", "-t", f"{home}/data", f"{latest}/two").out == f"{home}/data/two -> {latest}/two\n"
    assert "is a local path" in typed("ln", "two", f"{home}/x").err
    assert typed("readlink", f"{home}/data/two").code == 1


def test_chmod(typed: Command, home: str) -> None:
    typed("mkdir", "-p", f"{home}/a/b")
    typed("touch", f"{home}/a/b/file")
    typed("ln", "-s", "b/file", f"{home}/a/link")
    assert typed("chmod", "640", f"{home}/a/link").code == 0
    assert typed("stat", "-c", "%a", f"{home}/a/b/file").out == "640\n"
    assert typed("chmod", "-R", "go-rwx,u+X", f"{home}/a").code == 0
    assert typed("stat", "-c", "%a", f"{home}/a", f"{home}/a/b", f"{home}/a/b/file").out == "700\n700\n600\n"
    assert typed("chmod", "-v", "-w", f"{home}/a/b/file").out == f"{home}/a/b/file\n"
    assert typed("chmod", "rubbish", home).code == 2
    assert typed("chown", "nobody-of-this-name", home).code == 2
    assert typed("chown", str(os.getuid()), f"{home}/none").code == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_chown(typed: Command, home: str) -> None:
    typed("mkdir", "-p", f"{home}/a/b")
    typed("touch", f"{home}/a/b/file")
    typed("ln", "-s", "b/file", f"{home}/a/link")
    assert typed("chown", "-R", "7:8", f"{home}/a").code == 0
    assert typed("stat", "-c", "%u:%g", f"{home}/a/b/file", f"{home}/a/link").out == "7:8\n0:0\n"
    assert typed("chown", "-h", "5", f"{home}/a/link").code == 0
    assert typed("chgrp", "9", f"{home}/a/link").code == 0
    assert typed("stat", "-c", "%u:%g", f"{home}/a/b/file", f"{home}/a/link").out == "7:9\n5:0\n"


def test_tree(typed: Command, tree: str) -> None:
    assert typed("tree", tree).out.splitlines() == [
        tree,
        "├── .hidden",
        "├── large",
        "├── link -> sub",
        "├── old",
        "└── sub",
        "    └── inner",
        "",
        "1 directory, 5 files",
    ]
    assert typed("tree", "-L", "1", "-h", tree).out.splitlines()[2] == "├── [3.0K]  large"
    assert typed("tree", "-d", tree).out == f"{tree}\n└── sub\n\n1 directory\n"
    depths = {
        value["path"].rpartition("/")[2]: value["depth"]
        for value in map(json.loads, typed("tree", "--json", tree).out.splitlines())
    }
    assert depths == {".hidden": 1, "large": 1, "link": 1, "old": 1, "sub": 1, "inner": 2}
    assert typed("tree", f"{tree}/none").code == 1
