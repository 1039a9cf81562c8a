"""`cp` and `mv` on a cluster of real processes: what the fingers of those who know cp(1) and mv(1) expect."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from tests.system.conftest import Typed

pytestmark = pytest.mark.system

Command = Callable[..., Typed]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("one")
    two.write_text("two")
    return one, two


def test_a_file_goes_to_a_slash_only_if_there_is_a_directory(
    typed: Command, home: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    one, _ = files
    failed = typed("cp", "-q", one, f"{home}/new/")
    assert failed.code == 1
    assert failed.err == f"emberfs: {one}: cannot go to {home}/new/, which is no directory; make it first\n"
    assert typed("cp", "-q", one, f"{home}/new/.").code == 1
    assert typed("ls", home).out == ""
    typed("cp", "-q", one, f"{home}/file")
    assert "file/: Not a directory" in typed("cp", "-q", one, f"{home}/file/").err
    assert "file/: Not a directory" in typed("cp", "-q", f"{home}/file/", tmp_path / "back").err
    back = typed("cp", "-q", f"{home}/file", f"{tmp_path}/missing/")
    assert back.code == 1 and not (tmp_path / "missing").exists()
    typed("mkdir", f"{home}/new")
    assert typed("cp", "-q", one, f"{home}/new/").code == 0
    assert typed("cat", f"{home}/new/one.txt").out == "one"


def test_a_directory_may_become_what_ends_with_a_slash(typed: Command, home: str, files: tuple[Path, Path]) -> None:
    tree = files[0].parent
    assert typed("cp", "-rq", tree, f"{home}/new/").code == 0
    assert typed("ls", f"{home}/new").out == "one.txt\ntwo.txt\n"
    assert typed("cp", "-rq", f"{home}/new/", f"{tree}/back/").code == 0
    assert (tree / "back" / "one.txt").read_text() == "one"
    assert typed("mv", f"{home}/new/", f"{home}/newer/").code == 0
    assert typed("ls", home).out == "newer\n"


def test_a_file_is_not_renamed_to_what_ends_with_a_slash(typed: Command, home: str, files: tuple[Path, Path]) -> None:
    typed("cp", "-q", files[0], f"{home}/file")
    failed = typed("mv", f"{home}/file", f"{home}/new/")
    assert (failed.code, failed.err) == (1, f"emberfs: {home}/file -> {home}/new/: Not a directory\n")
    assert typed("ls", home).out == "file\n"
    typed("mkdir", f"{home}/new")
    moved = typed("mv", "-v", f"{home}/file", f"{home}/new/")
    assert moved == (0, f"renamed {home}/file -> {home}/new/file\n", "")


def test_a_slash_means_a_directory_everywhere(
    typed: Command, home: str, cluster: LaunchedCluster, files: tuple[Path, Path]
) -> None:
    typed("cp", "-q", files[0], f"{home}/file")
    for command in ("ls", "stat", "cat", "rm", "du", "find"):
        failed = typed(command, f"{home}/file/")
        assert (failed.code, failed.out) == (1, ""), command
        assert failed.err == f"emberfs: {home}/file/: Not a directory\n"
    with fs_client.connect(cluster.address) as fs:
        folder = home.removeprefix("ember:")
        fs.mkdir(f"{folder}/directory")
        fs.symlink("directory", f"{folder}/link")
    assert "type: directory" in typed("stat", f"{home}/link/").out
    assert "type: symlink" in typed("stat", f"{home}/link").out


def test_t_and_capital_t_say_what_the_destination_is(typed: Command, home: str, files: tuple[Path, Path]) -> None:
    one, two = files
    typed("mkdir", f"{home}/a", f"{home}/b")
    assert typed("cp", "-q", "-t", f"{home}/a", one, two).code == 0
    assert typed("ls", f"{home}/a").out == "one.txt\ntwo.txt\n"
    assert typed("mv", "-t", f"{home}/b", f"{home}/a/one.txt", f"{home}/a/two.txt").code == 0
    assert typed("ls", f"{home}/b").out == "one.txt\ntwo.txt\n"
    missing = typed("cp", "-q", "-t", f"{home}/none", one)
    assert (missing.code, missing.err) == (1, f"emberfs: {home}/none does not exist\n")
    assert typed("mv", "-T", f"{home}/a", f"{home}/b").code == 1, "b has entries"
    assert typed("cp", "-rqT", one.parent, f"{home}/a").code == 0
    assert typed("ls", f"{home}/a").out == "one.txt\ntwo.txt\n"


def test_two_files_of_one_name_do_not_replace_each_other(
    typed: Command, home: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "one.txt").write_text("the other one")
    copied = typed("cp", files[0], tmp_path / "other" / "one.txt", home)
    assert copied.code == 1 and f"would replace {home}/one.txt, which was only just copied" in copied.err
    assert typed("cat", f"{home}/one.txt").out == "one"
    typed("mkdir", f"{home}/a", f"{home}/b")
    typed("cp", "-q", files[1], f"{home}/a/one.txt")
    moved = typed("mv", f"{home}/a/one.txt", f"{home}/one.txt", f"{home}/b")
    assert moved.code == 1 and f"would replace {home}/b/one.txt, which was only just moved there" in moved.err
    assert typed("cat", f"{home}/one.txt", f"{home}/b/one.txt").out == "onetwo"


def test_archive_update_and_no_clobber(typed: Command, home: str, files: tuple[Path, Path]) -> None:
    one, two = files
    os.utime(one, (10**9, 10**9))
    assert "copied 2 files" in typed("cp", "-a", f"{one.parent}/.", f"{home}/").err
    assert '"mtime": 1000000000.0' in typed("stat", "--json", f"{home}/one.txt").out
    one.write_text("new")
    told = typed("cp", "-auv", f"{one.parent}/.", home)
    assert told.out == f"{one.parent}/./one.txt -> {home}/one.txt\n"
    assert "copied 1 file" in told.err and "1 file left as they were" not in told.err
    assert "1 file left as it was" in told.err
    two.write_text("newer")
    assert "2 files left as they were" in typed("cp", "-rn", f"{one.parent}/.", home).err
    assert typed("cat", f"{home}/two.txt").out == "two"


def test_a_local_path_is_not_renamed_into_a_cluster(typed: Command, home: str, files: tuple[Path, Path]) -> None:
    refused = typed("mv", files[0], home)
    assert refused.code == 2 and "`emberfs cp -a` copies between both" in refused.err
