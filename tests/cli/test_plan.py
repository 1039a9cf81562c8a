"""Where the sources of a copy or a move go."""

import pytest

from fs_client.cli.copy.plan import ends_as_directory, is_below, name_inside, split
from fs_client.cli.failure import Usage


def test_the_last_argument_is_the_destination() -> None:
    assert split(["a", "b"], None, False) == (["a"], "b", False)
    assert split(["a", "b", "c"], None, False) == (["a", "b"], "c", True)
    assert split(["a", "b"], "c", False) == (["a", "b"], "c", True)
    assert split(["a", "b"], None, True) == (["a"], "b", False)


def test_what_cannot_be_meant() -> None:
    with pytest.raises(Usage, match="After 'a' there is no DESTINATION"):
        split(["a"], None, False)
    with pytest.raises(Usage, match="'b' is one too many"):
        split(["a", "b", "c"], None, True)
    with pytest.raises(Usage, match="-t and -T contradict each other"):
        split(["a"], "c", True)


@pytest.mark.parametrize(
    ("text", "directory"), [("a", False), ("a/", True), ("a/.", True), ("..", True), ("a.", False), ("a/b..", False)]
)
def test_ends_that_say_directory(text: str, directory: bool) -> None:
    assert ends_as_directory(text) == directory


@pytest.mark.parametrize(
    ("path", "name"), [("/a/b", "b"), ("/a/b/", "b"), ("/a/.", ""), (".", ""), ("..", ""), ("a/..", ""), ("/", "")]
)
def test_names_in_a_directory(path: str, name: str) -> None:
    assert name_inside(path, path) == name


def test_below() -> None:
    assert is_below("/a/b", "/a") and is_below("/a/", "/a") and is_below("/a", "/a/") and is_below("/a", "/")
    assert not is_below("/ab", "/a") and not is_below("/", "/a")
