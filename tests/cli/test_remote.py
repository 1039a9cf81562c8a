"""Remote paths, names on a terminal, sizes."""

import pytest

from fs_client.cli.failure import Usage
from fs_client.cli.options import Size
from fs_client.cli.remote import parse, printable, require
from fs_client.cli.text import counted, human_size


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
    ("text", "size"), [("0", 0), ("4096", 4096), ("64K", 65_536), ("1m", 1 << 20), ("2GiB", 2 << 30), ("3 TB", 3 << 40)]
)
def test_sizes_on_the_command_line(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


def test_counts() -> None:
    assert counted(1, "file") == "1 file"
    assert counted(1234, "directory", "directories") == "1,234 directories"
