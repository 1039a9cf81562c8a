"""File objects of the blocking face, with the behaviour of the built-in `open`."""

import gc
import io
import os
import pathlib
import pickle
import random
import sys
import warnings

import pytest

import fs_client
from fs_client import FileSystem, process
from fs_client.file import OpenMode
from fs_client.file_layers import FileRandom, FileReader, FileWriter
from fs_client.raw_file import RawFile
from fs_common.errors import Code, EmberError
from tests.client.fake_cluster import CHUNK, FakeCluster


@pytest.mark.parametrize("wrong", ["", "b", "rw", "rr", "rbt", "+", "r+x", "U", "br+w"])
def test_wrong_modes_are_value_errors(wrong: str) -> None:
    with pytest.raises(ValueError, match="mode"):
        OpenMode(wrong)


def test_the_classes_are_those_of_open(fs: FileSystem) -> None:
    with fs.open("/f", "wb") as file:
        assert isinstance(file, FileWriter) and isinstance(file, io.BufferedWriter)
        assert not file.readable() and file.writable() and file.seekable()
        assert (file.name, file.mode) == ("/f", "wb")
    with fs.open("/f") as file:
        assert isinstance(file, FileReader) and isinstance(file, io.BufferedReader)
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"")
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()
    with fs.open("/f", "r+b") as file:
        assert isinstance(file, FileRandom)
    with fs.open("/f", "rb", buffering=0) as file:
        assert isinstance(file, RawFile) and isinstance(file, io.RawIOBase)
    with fs.open("/f", "r", encoding="utf-8") as file:
        assert isinstance(file, io.TextIOWrapper)
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_options_that_do_not_go_together(fs: FileSystem) -> None:
    with pytest.raises(ValueError, match="encoding"):
        fs.open("/f", "wb", encoding="utf-8")
    with pytest.raises(ValueError, match="unbuffered"):
        fs.open("/f", "w", buffering=0)


def test_text(fs: FileSystem) -> None:
    with fs.open("/t", "w", encoding="utf-8", newline="\n") as file:
        print("grüße", file=file)
        file.writelines(["a\n", "b\n"])
    with fs.open("/t", "a", encoding="utf-8") as file:
        file.write("c\n")
    with fs.open("/t", "r", encoding="utf-8") as file:
        assert list(file) == ["grüße\n", "a\n", "b\n", "c\n"]
    assert fs.read_file("/t") == "grüße\na\nb\nc\n".encode()


def test_many_small_writes_travel_as_whole_chunks(cluster: FakeCluster, fs: FileSystem) -> None:
    data = random.Random(1).randbytes(5 * CHUNK + 100)
    with fs.open("/f", "wb") as file:
        for start in range(0, len(data), 1000):
            file.write(data[start : start + 1000])
    assert fs.read_file("/f") == data
    updates = [item for daemon in cluster.storage.values() for item in daemon.updates]
    assert sorted((item.index, item.offset, item.length) for item in updates) == [
        *((index, 0, CHUNK) for index in range(5)),
        (5, 0, 100),
    ]


def test_a_large_write_between_small_ones_keeps_to_chunk_borders(cluster: FakeCluster, fs: FileSystem) -> None:
    data = random.Random(2).randbytes(10 + 9 * CHUNK // 2 + 10)
    with fs.open("/f", "wb") as file:
        file.write(data[:10])
        file.write(data[10:-10])
        file.write(data[-10:])
    assert fs.read_file("/f") == data
    updates = sorted((item.index, item.offset) for daemon in cluster.storage.values() for item in daemon.updates)
    assert updates == [(index, 0) for index in range(5)]


def test_the_file_is_as_long_as_what_was_written_once_it_is_closed(fs: FileSystem) -> None:
    with fs.open("/f", "wb") as file:
        file.write(b"x" * 100)
        assert fs.stat("/f").st_size == 0
        file.fsync()
        assert fs.stat("/f").st_size == 100
        file.write(b"y")
    assert fs.stat("/f").st_size == 101


def test_flush_makes_bytes_readable_by_reference(fs: FileSystem) -> None:
    with fs.open("/f", "wb") as file:
        file.write(b"hello")
        file.flush()
        (view,) = fs.read_ranges([(file.ref, 0, 5)])
        assert bytes(view) == b"hello"


def test_flush_shows_others_the_bytes_and_the_length(cluster: FakeCluster, fs: FileSystem) -> None:
    with fs_client.connect(cluster.address) as other:
        for mode in ("wb", "w", "ab"):
            with fs.open("/f", mode) as file:
                file.write("hello" if mode == "w" else b"hello")
                file.flush()
                size = 10 if mode == "ab" else 5
                assert fs.getsize("/f") == other.getsize("/f") == size
                assert other.read_file("/f") == b"hello" * (size // 5)


def test_what_flush_and_close_cost(cluster: FakeCluster, fs: FileSystem) -> None:
    """One call for each flush that has something to tell; none before the call that a close is."""
    for mode in ("wb", "w"):
        with fs.open("/f", mode) as file:
            for _ in range(3):
                file.write("x" if mode == "w" else b"x")
            file.flush()
            file.flush()
            file.write("y" if mode == "w" else b"y")
        calls = [name for name, _ in cluster.metadata.calls if name in ("fsync", "close")]
        assert calls == ["fsync", "close"]
        cluster.metadata.calls.clear()
    relaxed = [request.relaxed for name, request in cluster.metadata.calls if name == "fsync"]
    assert all(relaxed)


def test_modes_cut_keep_and_append(fs: FileSystem) -> None:
    fs.write_file("/f", b"0123456789")
    with fs.open("/f", "ab") as file:
        assert file.tell() == 10
        file.write(b"ab")
    with fs.open("/f", "r+b") as file:
        file.seek(3)
        file.write(b"XY")
        assert file.read(2) == b"56"
        file.seek(-2, os.SEEK_END)
        assert file.read() == b"ab"
    assert fs.read_file("/f") == b"012XY56789ab"
    with fs.open("/f", "wb") as file:
        file.write(b"new")
    assert fs.read_file("/f") == b"new"
    with fs.open("/g", "w+b") as file:
        file.write(b"abc")
        file.seek(0)
        assert file.read() == b"abc"


def test_appending_goes_to_the_end_wherever_one_reads(fs: FileSystem) -> None:
    fs.write_file("/f", b"abc")
    with fs.open("/f", "a+b") as file:
        file.seek(0)
        assert file.read(1) == b"a"
        file.write(b"d")
    assert fs.read_file("/f") == b"abcd"


def test_seeking_past_the_end_and_writing_leaves_a_hole(fs: FileSystem) -> None:
    with fs.open("/f", "wb") as file:
        file.seek(3 * CHUNK + 5)
        file.write(b"end")
    data = fs.read_file("/f")
    assert data == bytes(3 * CHUNK + 5) + b"end"


def test_truncate(fs: FileSystem) -> None:
    fs.write_file("/f", b"x" * (2 * CHUNK))
    with fs.open("/f", "r+b") as file:
        file.seek(10)
        assert file.truncate() == 10
        assert file.truncate(CHUNK + 5) == CHUNK + 5
        file.seek(0, os.SEEK_END)
        assert file.tell() == CHUNK + 5
    assert fs.read_file("/f") == b"x" * 10 + bytes(CHUNK - 5)
    fs.truncate("/f", 3)
    assert fs.read_file("/f") == b"xxx"


@pytest.mark.parametrize("length", [0, 10])
def test_what_is_there_is_cut_when_it_is_opened_to_be_made_anew(
    cluster: FakeCluster, fs: FileSystem, length: int
) -> None:
    """Also where nothing is seen of it: another writer may not have reported, and the times change."""
    fs.write_file("/f", b"x" * length)
    cluster.metadata.calls.clear()
    fs.write_file("/f", b"new")
    assert [name for name, _ in cluster.metadata.calls] == ["create", "truncate", "close"]
    fs.write_file("/g", b"new")
    assert [name for name, _ in cluster.metadata.calls][3:] == ["create", "close"], "a new file is not cut"


def test_a_write_after_a_truncate_counts(fs: FileSystem) -> None:
    with fs.open("/f", "wb") as file:
        file.write(b"x" * 1000)
        file.truncate(0)
        file.seek(0)
        file.write(b"ab")
    assert fs.read_file("/f") == b"ab"


def test_unbuffered_files(fs: FileSystem) -> None:
    data = random.Random(3).randbytes(3 * CHUNK)
    with fs.open("/f", "w+b", buffering=0) as file:
        assert file.write(data) == len(data)
        buffer = bytearray(10)
        file.seek(CHUNK - 5)
        assert file.readinto(buffer) == 10 and buffer == data[CHUNK - 5 : CHUNK + 5]
        assert file.readall() == data[CHUNK + 5 :] and file.read() == b""


def test_a_random_walk_over_a_file_matches_a_local_one(fs: FileSystem, tmp_path: pathlib.Path) -> None:
    chooser = random.Random(4)
    with fs.open("/f", "w+b") as ours, (tmp_path / "f").open("w+b") as theirs:
        for _ in range(300):
            match chooser.randrange(5):
                case 0 | 1:
                    data = chooser.randbytes(chooser.choice([1, 100, 5000, CHUNK, 2 * CHUNK + 3]))
                    assert ours.write(data) == theirs.write(data)
                case 2:
                    size = chooser.choice([0, 1, 1000, CHUNK, 3 * CHUNK])
                    assert ours.read(size) == theirs.read(size)
                case 3:
                    place = chooser.randrange(6 * CHUNK)
                    assert ours.seek(place) == theirs.seek(place)
                case 4:
                    assert ours.tell() == theirs.tell()
                    if chooser.random() < 0.2:
                        size = chooser.randrange(6 * CHUNK)
                        assert ours.truncate(size) == theirs.truncate(size)
        ours.seek(0)
        theirs.seek(0)
        assert ours.read() == theirs.read()
    assert fs.read_file("/f") == (tmp_path / "f").read_bytes()


def test_random_small_reads_do_not_read_whole_chunks(cluster: FakeCluster, fs: FileSystem) -> None:
    data = random.Random(5).randbytes(64 * CHUNK)
    fs.write_file("/f", data)
    with fs.open("/f") as file:
        for place in (40 * CHUNK, 10 * CHUNK, 30 * CHUNK):
            file.seek(place)
            assert file.read(100) == data[place : place + 100]
    asked = sum(item.length for daemon in cluster.storage.values() for item in daemon.reads)
    assert asked <= 3 * CHUNK


def test_an_error_behind_is_raised_once_by_what_comes_next(cluster: FakeCluster, fs: FileSystem) -> None:
    full = EmberError(Code.NO_SPACE, "the disk is full")
    for daemon in cluster.storage.values():
        daemon.update_fault = lambda item: full if item.index == 0 else None
    file = fs.open("/f", "wb")
    file.write(b"x" * CHUNK)
    with pytest.raises(OSError, match="disk is full") as caught:
        file.write(b"y" * CHUNK)
        file.flush()
    assert caught.value.errno == full.errno and caught.value.filename == "/f"
    file.close()
    assert file.closed
    exact = [request.exact for name, request in cluster.metadata.calls if name == "close"]
    assert exact == [True], "the service is told that the hint is not to be trusted"


def test_an_error_behind_is_raised_by_close_and_the_session_ends(cluster: FakeCluster, fs: FileSystem) -> None:
    for daemon in cluster.storage.values():
        daemon.update_fault = lambda item: EmberError(Code.NO_SPACE, "full")
    file = fs.open("/f", "wb")
    file.write(b"x")
    with pytest.raises(OSError, match="full"):
        file.close()
    assert file.closed and not cluster.metadata.sessions
    file.close()


def test_a_file_that_is_dropped_warns_and_is_stored(cluster: FakeCluster, fs: FileSystem) -> None:
    file = fs.open("/f", "wb")
    file.write(b"hello")
    closed = cluster.when_called("close")
    with pytest.warns(ResourceWarning, match="unclosed file"):
        del file
        gc.collect()
    assert closed.wait(10), "the session ends in the background"
    assert fs.read_file("/f") == b"hello"
    assert not cluster.metadata.sessions


def test_a_file_that_is_dropped_is_there_for_the_next_call(cluster: FakeCluster, fs: FileSystem) -> None:
    """As the file of `np.save(fs.open(path, "wb"), array)`, which a built-in one would be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for number in range(20):
            data = bytes([number]) * (number * 9000)
            for mode in ("wb", "w+b", "ab"):
                name = f"/{mode}{number}"
                fs.open(name, mode).write(data)
                assert fs.getsize(name) == len(data)
            fs.open(f"/w{number}", "w").write("text")
            assert fs.read_file(f"/w{number}") == b"text"
            fs.open(f"/raw{number}", "wb", buffering=0).write(data)
            with fs.open(f"/raw{number}") as file:
                assert file.read() == data
    assert not cluster.metadata.sessions


def test_a_file_that_is_dropped_on_the_loop_itself_is_stored(fs: FileSystem) -> None:
    """The collector runs anywhere, also while the loop does; nothing waits for itself."""
    fs.listdir()
    files = [fs.open("/f", "wb")]
    files[0].write(b"hello")

    async def drop() -> None:
        with pytest.warns(ResourceWarning, match="unclosed file"):
            files.clear()

    process.driver().run(drop)
    assert fs.read_file("/f") == b"hello"


def test_what_a_dropped_file_could_not_store_is_reported_with_its_name(
    cluster: FakeCluster, fs: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    for daemon in cluster.storage.values():
        daemon.update_fault = lambda item: EmberError(Code.NO_SPACE, "full")
    reports: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: reports.append(what.exc_value))
    with pytest.warns(ResourceWarning):
        fs.open("/f", "wb").write(b"x")
    assert fs.exists("/f")
    (error,) = reports
    assert isinstance(error, OSError) and error.errno == EmberError(Code.NO_SPACE, "").errno and error.filename == "/f"
    assert not cluster.metadata.sessions


def test_a_file_system_that_is_closed_stores_dropped_files_first(cluster: FakeCluster) -> None:
    fs = fs_client.connect(cluster.address)
    with pytest.warns(ResourceWarning):
        fs.open("/f", "wb").write(b"x")
    fs.close()
    with fs_client.connect(cluster.address) as other:
        assert other.read_file("/f") == b"x"


def test_a_file_for_reading_may_be_dropped(fs: FileSystem) -> None:
    fs.write_file("/f", b"hello")
    assert fs.open("/f").read() == b"hello"
    gc.collect()


def test_an_open_file_does_not_pickle_but_its_reference_does(fs: FileSystem) -> None:
    fs.write_file("/f", b"hello")
    with fs.open("/f", buffering=0) as file:
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(file)
        assert pickle.loads(pickle.dumps(file.ref)) == file.ref


def test_a_file_system_is_closed_once(fs: FileSystem) -> None:
    fs.close()
    fs.close()
    with pytest.raises(ValueError, match="closed"):
        fs.stat("/")
    assert repr(fs).endswith(" closed>")


def test_library_writers_and_readers(fs: FileSystem) -> None:
    """Programs that take file objects take ours."""
    import json
    import tarfile
    import zipfile

    with fs.open("/a.json", "w") as file:
        json.dump({"a": [1, 2]}, file)
    with fs.open("/a.json", "r") as file:
        assert json.load(file) == {"a": [1, 2]}
    with fs.open("/a.pickle", "wb") as file:
        pickle.dump(list(range(100_000)), file)
    with fs.open("/a.pickle") as file:
        assert pickle.load(file) == list(range(100_000))
    with fs.open("/a.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", b"y" * 100_000)
    with fs.open("/a.zip") as file, zipfile.ZipFile(file) as archive:
        assert archive.read("x") == b"y" * 100_000
    with fs.open("/a.tar", "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("z")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    with fs.open("/a.tar") as file, tarfile.open(fileobj=file) as tar:
        member = tar.extractfile("z")
        assert member is not None and member.read() == b"abc"
