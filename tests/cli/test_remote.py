"""Remote paths, names on a terminal, sizes."""

import re
from pathlib import Path

import pytest

from fs_client.cli.failure import Usage
from fs_client.cli.main import commands
from fs_client.cli.mounting import full_source, split_source
from fs_client.cli.on_a_mount import below_a_mount
from fs_client.cli.options import ClusterAddress, Size
from fs_client.cli.remote import parse, printable, require
from fs_client.cli.text import counted, human_size, size_words
from fs_client.fuse import mountpoint
from fs_client.fuse.mountpoint import MountEntry


@pytest.mark.parametrize(
    ("text", "cluster", "path", "written"),
    [
        ("ember:/", "here:1", "/", "ember:/"),
        ("ember:/a//b/./c", "here:1", "/a/b/c", "ember:/a/b/c"),
        ("ember:/a/b//", "here:1", "/a/b/", "ember:/a/b/"),
        ("ember:/a/b/.", "here:1", "/a/b/", "ember:/a/b/"),
        ("ember:/./", "here:1", "/", "ember:/"),
        ("ember:/a/../b", "here:1", "/a/../b", "ember:/a/../b"),
        ("ember://host:9700/data", "host:9700", "/data", "ember://host:9700/data"),
        ("ember://h1:1,h2:2/a b", "h1:1,h2:2", "/a b", "ember://h1:1,h2:2/a b"),
        ("ember://host", "host", "/", "ember://host/"),
    ],
)
def test_remote_paths(text: str, cluster: str, path: str, written: str) -> None:
    location = parse(text, "here:1")
    assert location is not None
    assert (location.cluster, location.path, str(location)) == (cluster, path, written)


@pytest.mark.parametrize("text", ["/a", "a", "./ember:/a", "ember", "", "-"])
def test_everything_else_is_local(text: str) -> None:
    assert parse(text, "here:1") is None
    with pytest.raises(Usage, match="is a local path: this command works on remote ones, as ember:/"):
        require(text, "here:1")


def test_mistakes_say_what_was_meant() -> None:
    with pytest.raises(Usage, match=r"'ember:data' is not absolute: .* as ember:/data"):
        parse("ember:data", "here:1")
    with pytest.raises(Usage, match="names no server"):
        parse("ember:///data", "here:1")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("emberfs:/data", "ember:/data"),
        ("EMBER:/data", "ember:/data"),
        ("emberfs://h:1/data", "ember://h:1/data"),
        ("embr:/", "ember:/"),
    ],
)
def test_a_mistyped_scheme_is_no_local_path(text: str, meant: str) -> None:
    for read in (parse, require):
        with pytest.raises(Usage, match=f"did you mean {meant}\\?"):
            read(text, "here:1")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("127.0.0.1:9700/data", "ember://127.0.0.1:9700/data"),
        ("h1:1,h2:2:/a/b", "ember://h1:1,h2:2/a/b"),
        ("[::1]:9700", "ember://[::1]:9700/"),
    ],
)
def test_paths_as_mount_takes_them(text: str, meant: str) -> None:
    with pytest.raises(Usage) as refused:
        require(text, "here:1")
    assert str(refused.value.message) == f"{text!r}: write {meant}"
    assert parse(text, "here:1") is None, "cp may mean a local file"


def test_paths_on_mounts_are_those_of_the_cluster() -> None:
    points = [("/mnt", "h:1"), ("/mnt/deep", "h:2:/data/sets"), ("/", "h:3:/root")]
    assert below_a_mount("/mnt", points) == "/"
    assert below_a_mount("/mnt/a/b", points) == "/a/b"
    assert below_a_mount("/mnt/deep", points) == "/data/sets"
    assert below_a_mount("/mnt/deep/a", points) == "/data/sets/a"
    assert below_a_mount("/mnt2/a", points) == "/root/mnt2/a"
    assert below_a_mount("/mnt2/a", points[:2]) is None


def test_cp_between_a_mount_and_elsewhere_says_what_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = MountEntry("/mnt/ember", "0:50", mountpoint.TYPE, "h:1:/data")
    monkeypatch.setattr(mountpoint, "mounts", lambda: [entry])
    with pytest.raises(Usage) as refused:
        commands.main(["cp", "a.txt", "/mnt/ember/new/"], standalone_mode=False)
    assert refused.value.message == (
        "'a.txt' and '/mnt/ember/new/' are both local: '/mnt/ember/new/' lies on a mount and is ember:/data/new"
    )
    with pytest.raises(Usage, match=r"both local: write remote ones as ember:/"):
        commands.main(["cp", "a.txt", "b.txt"], standalone_mode=False)


@pytest.mark.parametrize(
    ("text", "address"),
    [("h:1", "h:1"), ("ember://h:1", "h:1"), ("ember://h:1,i:2/a", "h:1,i:2"), ("ember:/", ""), ("[::1]:1", "[::1]:1")],
)
def test_addresses_may_be_written_as_remote_paths(text: str, address: str) -> None:
    assert ClusterAddress().convert(text, None, None) == address


def test_what_is_mounted_may_be_written_as_a_remote_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBERFS_CLUSTER", raising=False)
    assert split_source(full_source("ember:/data/")) == ("127.0.0.1:9700", "/data")
    monkeypatch.setenv("EMBERFS_CLUSTER", "h:1,i:2")
    assert split_source(full_source("ember:/")) == ("h:1,i:2", "/")
    assert split_source(full_source("ember://j:3/a")) == ("j:3", "/a")


def test_children() -> None:
    location = require("ember:/", "here:1").child("a").child("b")
    assert (str(location), location.name) == ("ember:/a/b", "b")
    assert require("ember:/a/b/", "here:1").name == "b"
    assert str(require("ember:/a/", "here:1").child("b")) == "ember:/a/b"


def test_names_cannot_play_with_the_terminal() -> None:
    assert printable("naïve file.txt") == "naïve file.txt"
    assert printable("\x1b[2Jgone\n\udcff") == "\\x1b[2Jgone\\n\\udcff"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0K"),
        (1025, "1.1K"),
        (10 * 1024, "10K"),
        (10 * 1024 + 1, "11K"),
        (1024**2 - 1, "1.0M"),
        (1024**2, "1.0M"),
        (int(9.95 * 1024**2), "10M"),
        (5 * 1024**4, "5.0T"),
        (2**63 - 1, "8.0E"),
    ],
)
def test_human_sizes(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (12 << 30, "12 GiB"), (2**63 - 1, "8.0 EiB")]
)
def test_sizes_in_sentences_have_the_same_units(size: int, text: str) -> None:
    assert size_words(size) == text


def test_nothing_else_is_called_mb() -> None:
    """One system: what is shown is in powers of 1024, and says so."""
    root = Path(__file__).parents[2]
    sources = [
        *root.glob("fs_client/cli/**/*.py"),
        *root.glob("fs_meta/http/console/*.js"),
        *root.glob("fs_common/*.py"),
    ]
    wrong = [
        f"{path.relative_to(root)}: {line.strip()}"
        for path in sources
        for line in path.read_text().splitlines()
        if re.search(r"\}B\b|\} ?[kKMGT]B\b|\"[kKMGT]B\"|/ 1e6:[^}]*\} MB", line)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("4096", 4096), ("64K", 65_536), ("1m", 1 << 20), ("2GiB", 2 << 30), ("3 TB", 3 << 40)]
)
def test_sizes_on_the_command_line(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


def test_counts() -> None:
    assert counted(1, "file") == "1 file"
    assert counted(1234, "directory", "directories") == "1,234 directories"
