"""Programs that know nothing of EmberFS, on a mount of a real cluster."""

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from tests.mount.conftest import Mounted, run, wait_until
from tests.system.control import emberfs

pytestmark = pytest.mark.system

MakeMount = Callable[..., Mounted]


def test_a_tree_is_copied_packed_moved_and_removed(cluster: LaunchedCluster, mount: MakeMount, tmp_path: Path) -> None:
    home = mount(cluster).path / "tools"
    home.mkdir()
    tree = tmp_path / "tree"
    (tree / "deep" / "deeper").mkdir(parents=True)
    for number in range(30):
        (tree / "deep" / f"{number}.bin").write_bytes(os.urandom(number * 1013))
    (tree / "deep" / "deeper" / "large").write_bytes(os.urandom(5_000_003))
    (tree / "link").symlink_to("deep/1.bin")
    os.chmod(tree / "deep" / "2.bin", 0o640)
    os.utime(tree / "deep" / "3.bin", ns=(1_111_111_111_222_333_444, 1_222_222_222_333_444_555))

    run(f"cp -a {tree} copied && diff -r --no-dereference {tree} copied", home)
    listing = "cd {} && find . -printf '%p %y %m %s %T@ %l\\n' | grep -v '^. d' | sort"
    assert run(listing.format(tree), home).replace(" 4096 ", " - ") == run(listing.format("copied"), home).replace(
        " 4096 ", " - "
    )
    run("tar cf packed.tar copied && mkdir out && tar xf packed.tar -C out && diff -r copied out/copied", home)
    run("mv out/copied/deep moved && test ! -e out/copied/deep && cmp moved/9.bin copied/deep/9.bin", home)
    run("ln moved/9.bin hard && echo more >> hard && cmp moved/9.bin hard && test $(stat -c %h hard) = 2", home)
    run('rm -rf copied out moved hard packed.tar && test -z "$(ls -A)"', home)


def test_git(cluster: LaunchedCluster, mount: MakeMount) -> None:
    home = mount(cluster).path / "git"
    home.mkdir()
    run(
        """
        git init -q -b main one && cd one
        git config user.email a@b.c && git config user.name a
        for i in $(seq 20); do echo $i > f$i; done
        git add . && git commit -qm first
        sed -i s/1/one/ f1 && git commit -qam second && git mv f2 g2 && git commit -qm third
        cd .. && git clone -q one two && cd two && git fsck --strict && git log --oneline | wc -l | grep -qx 3
        git gc -q && git fsck --strict && git status --porcelain | wc -l | grep -qx 0
        """,
        home,
    )


def test_sqlite_on_two_mounts(cluster: LaunchedCluster, mount: MakeMount) -> None:
    first, second = mount(cluster, "first"), mount(cluster, "second")
    (first.path / "db").mkdir()
    here = sqlite3.connect(first.path / "db" / "x.sqlite", timeout=30)
    there = sqlite3.connect(second.path / "db" / "x.sqlite", timeout=30)
    try:
        here.execute("create table t (n integer primary key, text text)")
        here.commit()
        for number in range(10):
            one, other = (here, there) if number % 2 else (there, here)
            with one:
                one.execute("insert into t (text) values (?)", (f"{number}" * 500,))
            assert other.execute("select count(*) from t").fetchone() == (number + 1,)
            assert other.execute("pragma integrity_check").fetchone() == ("ok",)
    finally:
        here.close()
        there.close()


def test_what_is_written_on_one_mount_is_read_on_another(cluster: LaunchedCluster, mount: MakeMount) -> None:
    first, second = mount(cluster, "first"), mount(cluster, "second")
    for content in (b"short", os.urandom(3_000_000), b"", b"short again"):
        (first.path / "shared").write_bytes(content)
        assert (second.path / "shared").read_bytes() == content
    with open(second.path / "shared", "rb") as reader, open(first.path / "shared", "r+b") as writer:
        writer.write(b"SHORT")
        writer.flush()
        os.fsync(writer.fileno())
        with open(second.path / "shared", "rb") as fresh:
            assert fresh.read() == b"SHORT again"
        reader.read(1)


def test_appends_of_two_mounts_are_whole_and_all_there(cluster: LaunchedCluster, mount: MakeMount) -> None:
    first, second = mount(cluster, "first"), mount(cluster, "second")
    (first.path / "log").write_bytes(b"")
    script = 'for i in $(seq 60); do echo "$0 $i ..................." >> log; done'
    run(
        f"(cd {first.path} && bash -c '{script}' A) & a=$!; (cd {second.path} && bash -c '{script}' B) & b=$!;"
        " wait $a && wait $b",
        first.path,
    )
    lines = (second.path / "log").read_text().splitlines()
    assert sorted(lines) == sorted(f"{who} {number} {'.' * 19}" for who in "AB" for number in range(1, 61))
    for who in "AB":
        assert [line for line in lines if line.startswith(who)] == [f"{who} {n} {'.' * 19}" for n in range(1, 61)]


def test_programs_run_from_the_mount(cluster: LaunchedCluster, mount: MakeMount) -> None:
    home = mount(cluster).path
    run("cp /bin/ls ./my-ls && ./my-ls -l my-ls && printf '#!/bin/sh\\necho $1\\n' > s && chmod +x s && ./s hi", home)


def test_the_control_directory(cluster: LaunchedCluster, mount: MakeMount) -> None:
    home = mount(cluster).path
    assert ".emberfs" not in os.listdir(home)
    run("mkdir -p big/a/b && touch big/a/b/c && ln -s $PWD/big .emberfs/rm-rf/now && test ! -e big", home)
    run("mkdir -p other/a && mv other .emberfs/rm-rf/ && test ! -e other", home)
    run("ln -s 1048576 .emberfs/set-conf/cache_bytes && grep -x 1048576 .emberfs/conf/cache_bytes", home)
    run("! touch .emberfs/x && ! rm .emberfs/stats && ! mkdir .emberfs/d && ! ln -s 1 .emberfs/set-conf/nothing", home)
    found = json.loads(emberfs("stats", home, "--json").stdout)
    assert found["consistency"] == "close-to-open"
    assert {"lookup", "mkdir", "create"} <= {operation["name"] for operation in found["operations"]}
    assert "lookup" in emberfs("stats", home).stdout


def test_a_dataset_mount_is_read_only_and_a_strict_one_sees_everything(
    cluster: LaunchedCluster, mount: MakeMount
) -> None:
    writer = mount(cluster, "writer")
    (writer.path / "data").write_bytes(b"one")
    dataset, strict = mount(cluster, "dataset", "consistency=dataset"), mount(cluster, "strict", "consistency=strict")
    assert (dataset.path / "data").read_bytes() == b"one"
    with pytest.raises(OSError, match="Read-only"):
        (dataset.path / "new").write_bytes(b"")
    with open(strict.path / "data", "rb") as reader:
        assert reader.read() == b"one"
        with open(writer.path / "data", "ab") as more:
            more.write(b" two")
        assert reader.read() == b" two"
    assert os.stat(strict.path / "data").st_size == 7


def test_what_was_removed_is_forgotten(cluster: LaunchedCluster, mount: MakeMount) -> None:
    """Files, open ones too, directories, and names that others were renamed over."""
    home = mount(cluster).path / "gone"
    home.mkdir()

    def known() -> int:
        nodes: int = json.loads((home.parent / ".emberfs" / "stats").read_text())["nodes"]
        return nodes

    before = known()
    for number in range(60):
        (home / f"f{number}").write_bytes(b"x" * (number % 3))
        (home / f"d{number}").mkdir()
    for number in range(0, 60, 2):
        (home / f"f{number}").rename(home / f"f{number + 1}")
        (home / f"d{number}").rename(home / f"d{number + 1}")
    for number in range(1, 60, 2):
        with (home / f"f{number}").open() as file:
            (home / f"f{number}").unlink()
            file.read()
        (home / f"d{number}").rmdir()
    wait_until(lambda: known() <= before, "nothing is known of them any more")
