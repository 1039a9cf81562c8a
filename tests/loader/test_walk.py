"""The index: every file once, in byte order of paths, whatever the shape of the tree and the order of the answers."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_client.loader.index import FileIndex, name_filter
from fs_client.loader.walk import walk
from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.records.meta import ReaddirReply
from tests.loader.fake_tree import FakeTree
from tests.support import run

NAMES = st.text("ab.-~éA", min_size=1, max_size=3).map(str.encode)
TREES = st.recursive(
    st.dictionaries(NAMES, st.integers(0, 9), max_size=5),
    lambda children: st.dictionaries(NAMES, st.integers(0, 9) | st.none() | children, max_size=5),
    max_leaves=30,
)


def files_of(tree: dict[bytes, object], prefix: bytes = b"") -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= files_of(value, prefix + name + b"/")
        elif isinstance(value, int):
            found[prefix + name] = value
    return found


def index_of(tree: dict[bytes, object], suffixes: str | None = None, pattern: str | None = None) -> FileIndex:
    return run(walk(FakeTree(tree), 1, name_filter(suffixes, pattern)))


def paths(index: FileIndex) -> list[bytes]:
    return [index.path(i) for i in range(len(index))]


@settings(deadline=None, max_examples=200)
@given(TREES)
def test_every_file_in_byte_order_of_its_path(tree: dict[bytes, object]) -> None:
    index = index_of(tree)
    expected = sorted(files_of(tree).items())
    assert list(zip(paths(index), index.lengths.tolist(), strict=True)) == expected
    assert index.total_bytes == sum(length for _, length in expected)


def test_a_directory_stands_where_its_paths_stand() -> None:
    tree = {b"a": {b"x": 1}, b"a.txt": 2, b"a0": 3, b"a-": {b"y": 4}}
    assert paths(index_of(tree)) == [b"a-/y", b"a.txt", b"a/x", b"a0"]


def test_refs_carry_what_the_directory_page_said() -> None:
    tree = {b"a": 10, b"d": {b"b": 20, b"c": 30}}
    refs = index_of(tree).refs(np.array([2, 0, 2]))
    assert [(ref.inode, ref.length) for ref in refs] == [(5, 30), (2, 10), (5, 30)]
    assert refs[0].layout == Layout(65536 << 1, 4, 1, 7, 5 % 4, 2**63 + 5)
    assert refs[1].layout == Layout(65536, 4, 1, 7, 2 % 4, 2**63 + 2)


def test_symbolic_links_are_no_samples() -> None:
    assert paths(index_of({b"link": None, b"file": 1})) == [b"file"]


@pytest.mark.parametrize(
    ("suffixes", "pattern", "expected"),
    [
        (".py", None, [b"a.py", b"d/b.py"]),
        (None, "d/*", [b"d/b.py", b"d/e/f.pyc"]),
        (".py", "d/*", [b"d/b.py"]),
        (None, "*.py?", [b"d/e/f.pyc"]),
    ],
)
def test_filters(suffixes: str | None, pattern: str | None, expected: list[bytes]) -> None:
    tree = {b"a.py": 1, b"c": 2, b"d": {b"b.py": 3, b"e": {b"f.pyc": 4}}}
    assert paths(index_of(tree, suffixes, pattern)) == expected


def test_an_index_survives_pickling() -> None:
    index = index_of({b"a": 1, b"d": {b"b": 2}})
    again = pickle.loads(pickle.dumps(index))
    assert paths(again) == paths(index)
    assert again.refs(np.array([1])) == index.refs(np.array([1]))


def test_directories_are_read_many_at_a_time() -> None:
    tree = FakeTree({b"%d" % i: {b"f": i} for i in range(100)}, page_size=1000)
    index = run(walk(tree, 1, name_filter(None, None)))
    assert len(index) == 100
    assert tree.pages == 101
    assert 2 <= tree.in_flight_most <= 16


def test_an_error_of_one_page_ends_the_walk() -> None:
    class Broken(FakeTree):
        async def page(self, inode: int, after: bytes) -> ReaddirReply:
            if inode == 50:
                raise EmberError(Code.ACCESS_DENIED, "no")
            return await super().page(inode, after)

    with pytest.raises(EmberError, match="no"):
        run(walk(Broken({b"%d" % i: {b"f": i} for i in range(100)}), 1, name_filter(None, None)))
