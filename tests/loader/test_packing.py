"""Packing and reading back: the same samples and names, bounded memory, and nothing half-done to be seen."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_client.loader import packing
from fs_client.loader.batch import SampleError
from fs_client.loader.packed_dataset import PackedDataset
from fs_client.loader.packed_format import DATA_OFFSET, PackedFormatError
from fs_client.loader.packing import pack
from fs_common.errors import Code
from tests.loader.fake_fs import FakeFileSystem

NAMES = st.text(max_size=8).filter(lambda name: "\0" not in name and name.isprintable())


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(NAMES, st.binary(max_size=5000)), max_size=20), st.booleans())
def test_what_was_packed_is_read(samples: list[tuple[str, bytes]], names: bool) -> None:
    fs = FakeFileSystem({})
    written = pack(fs, iter(samples), "/p", names=names)
    data = PackedDataset(fs, "/p")
    assert len(data) == written.samples == len(samples)
    assert [bytes(sample) for sample in data] == [content for _, content in samples]
    assert [data.name(i) for i in range(len(data))] == [name if names else None for name, _ in samples]
    assert data.total_bytes == written.sample_bytes == sum(len(content) for _, content in samples)
    assert written.file_bytes == len(fs.contents["/p"])


def test_a_batch_is_one_read() -> None:
    fs = FakeFileSystem({})
    pack(fs, [(str(i), b"%d" % i * i) for i in range(100)], "/p")
    data = PackedDataset(fs, "/p")
    fs.batches.clear()
    assert [bytes(sample) for sample in data.__getitems__([7, 99, 7])] == [b"%d" % i * i for i in (7, 99, 7)]
    assert fs.batches == [3]


def test_local_files_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "BUFFER_BYTES", 1000)
    (tmp_path / "large").write_bytes(bytes(range(250)) * 100)
    (tmp_path / "empty").write_bytes(b"")
    fs = FakeFileSystem({})
    pack(fs, [("large", tmp_path / "large"), ("empty", tmp_path / "empty"), ("small", b"abc")], "/p")
    assert [bytes(sample) for sample in PackedDataset(fs, "/p")] == [bytes(range(250)) * 100, b"", b"abc"]
    assert max(fs.write_sizes) <= DATA_OFFSET + 1000, "no more than a buffer is gathered"


def test_contents_are_let_go_before_the_next_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "BUFFER_BYTES", 100)
    fs = FakeFileSystem({})
    stored: list[int] = []

    def sources() -> Iterator[tuple[str, bytes]]:
        for i in range(10):
            stored.append(sum(fs.write_sizes))
            yield str(i), bytes(200)

    pack(fs, sources(), "/p")
    assert stored == [DATA_OFFSET + 200 * i for i in range(10)]


def test_the_header_is_written_last() -> None:
    fs = FakeFileSystem({})
    pack(fs, [("a", b"a")], "/p")
    assert fs.write_sizes[-1] == 128
    unfinished = bytes(128) + fs.contents["/p"][128:]
    with pytest.raises(PackedFormatError, match="did not finish"):
        PackedDataset(FakeFileSystem({"/p": unfinished}), "/p")


@pytest.mark.parametrize("name", ["/p", "/other"])
def test_a_failure_leaves_the_old_file_and_nothing_else(name: str, tmp_path: Path) -> None:
    fs = FakeFileSystem({name: b"old"})
    with pytest.raises(FileNotFoundError):
        pack(fs, [("a", b"a"), ("b", tmp_path / "missing")], "/p")
    assert fs.contents == {name: b"old"}


def test_packing_replaces() -> None:
    fs = FakeFileSystem({"/p": b"old"})
    pack(fs, [("a", b"a")], "/p")
    assert list(fs.contents) == ["/p"]
    assert [bytes(sample) for sample in PackedDataset(fs, "/p")] == [b"a"]


@pytest.mark.parametrize("change", ["cut", "longer"])
def test_a_file_of_another_length_than_its_header_says_is_refused(change: str) -> None:
    fs = FakeFileSystem({})
    pack(fs, [("a", b"a")], "/p")
    fs.contents["/p"] = fs.contents["/p"][:-1] if change == "cut" else fs.contents["/p"] + b"x"
    with pytest.raises(PackedFormatError, match="file_size"):
        PackedDataset(fs, "/p")


@pytest.mark.parametrize("size", [0, 100])
def test_a_file_that_is_too_short_is_refused(size: int) -> None:
    with pytest.raises(PackedFormatError, match="shorter than its header"):
        PackedDataset(FakeFileSystem({"/p": bytes(size)}), "/p")


def test_errors_name_the_sample_by_its_name_or_number() -> None:
    fs = FakeFileSystem({})
    for names, path in ((True, "/p#b"), (False, "/p#1")):
        pack(fs, [("a", b"a"), ("b", b"b")], "/p", names=names)
        data = PackedDataset(fs, "/p")
        assert data.path(1) == path
        fs.broken["/p"] = Code.DISK_FAILED
        if not names:
            with pytest.raises(SampleError, match=path) as caught:
                data[1]
            assert caught.value.errno == errno.EIO
        fs.broken.clear()
