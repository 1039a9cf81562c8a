"""Names and attributes, with the behaviour of `os`."""

import errno
import os
import pathlib
import stat
import time

import pytest

from fs_client import FileSystem, aio
from fs_common.errors import Code, EmberError
from fs_common.layout import Durability, Layout
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.support import run


def test_files_directories_and_links(fs: FileSystem) -> None:
    fs.mkdir("/a")
    fs.makedirs("a/b/c")
    fs.write_file("/a/f", b"hello")
    fs.symlink("f", "/a/l")
    fs.link("/a/f", "/a/h")
    assert fs.listdir("/a") == ["b", "f", "h", "l"]
    assert fs.readlink("/a/l") == "f"
    assert fs.stat("/a/l").st_size == 5 and fs.lstat("/a/l").st_size == 1
    assert fs.stat("/a/h").st_nlink == 2 and fs.stat("/a/h").st_ino == fs.stat("/a/f").inode
    assert (fs.isdir("/a"), fs.isfile("/a"), fs.isfile("/a/f"), fs.islink("/a/l")) == (True, False, True, True)
    fs.unlink("/a/h")
    fs.rmdir("/a/b/c")
    fs.rename("/a/f", "/a/b/g")
    assert fs.exists("/a/b/g") and not fs.exists("/a/f") and not fs.exists("/a/l") and fs.lexists("/a/l")
    fs.rmtree("/a")
    assert fs.listdir() == []


def test_a_stat_result_has_what_os_stat_has(fs: FileSystem) -> None:
    before = time.time_ns()
    fs.write_file("/f", b"x" * 1000)
    result = fs.stat("/f")
    assert stat.S_ISREG(result.st_mode) and stat.S_ISDIR(fs.stat("/").st_mode)
    assert result.st_size == 1000 and result.st_blocks == 2 and result.st_blksize == CHUNK
    assert before <= result.st_mtime_ns <= time.time_ns() and abs(result.st_mtime - before / 1e9) < 100
    assert result[stat.ST_SIZE] == 1000 and len(tuple(result)) == 10
    assert result.layout is not None and result.layout.chunk_size == CHUNK
    assert result.ref.length == 1000
    with pytest.raises(OSError, match="directory"):
        _ = fs.stat("/").ref


@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.PurePosixPath])
def test_paths_are_str_bytes_or_path_like(fs: FileSystem, kind: type) -> None:
    fs.mkdir(kind("/d"))
    fs.write_file(kind("/d/ü"), b"1")
    names = fs.listdir(kind("/d"))
    assert names == ([os.fsencode("ü")] if kind is os.fsencode else ["ü"])
    assert fs.stat(kind("/d/ü")).st_size == 1


def test_names_that_are_not_text_survive(fs: FileSystem) -> None:
    fs.write_file(b"/\xff", b"1")
    (name,) = fs.listdir("/")
    assert fs.read_file("/" + name) == b"1"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda fs: fs.stat("/no"), FileNotFoundError),
        (lambda fs: fs.open("/no"), FileNotFoundError),
        (lambda fs: fs.listdir("/f"), NotADirectoryError),
        (lambda fs: fs.stat("/f/x"), NotADirectoryError),
        (lambda fs: fs.mkdir("/d"), FileExistsError),
        (lambda fs: fs.makedirs("/d"), FileExistsError),
        (lambda fs: fs.unlink("/d"), IsADirectoryError),
        (lambda fs: fs.open("/d", "wb"), IsADirectoryError),
        (lambda fs: fs.open("/d"), IsADirectoryError),
        (lambda fs: fs.ref("/d"), IsADirectoryError),
        (lambda fs: fs.truncate("/d", 0), IsADirectoryError),
        (lambda fs: fs.open("/f", "xb"), FileExistsError),
        (lambda fs: fs.stat(""), FileNotFoundError),
    ],
)
def test_errors_are_those_of_os(fs: FileSystem, call: object, expected: type[OSError]) -> None:
    fs.mkdir("/d")
    fs.write_file("/f", b"")
    with pytest.raises(expected) as caught:
        call(fs)  # type: ignore[operator]
    assert caught.value.errno and caught.value.filename in ("/no", "/f", "/f/x", "/d", "")


def test_an_error_of_rename_names_both_paths(fs: FileSystem) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        fs.rename("/no", "/there")
    assert (caught.value.filename, caught.value.filename2) == ("/no", "/there")


def test_a_path_with_a_null_byte_is_a_value_error(fs: FileSystem) -> None:
    with pytest.raises(ValueError, match="null byte"):
        fs.stat("/a\0b")


def test_exists_is_false_only_for_what_is_not_there(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.write_file("/f", b"")
    assert not fs.exists("/no") and not fs.exists("/f/x") and not fs.exists("/" + "n" * 256) and not fs.exists("")
    cluster.metadata.fault = lambda method: EmberError(Code.ACCESS_DENIED, "no")
    with pytest.raises(PermissionError):
        fs.exists("/f")


def test_makedirs_is_one_call_and_may_meet_what_exists(cluster: FakeCluster, fs: FileSystem) -> None:
    fs.makedirs("/a/b", exist_ok=True)
    cluster.metadata.calls.clear()
    fs.makedirs("/a/b/c/d", exist_ok=True)
    assert [name for name, _ in cluster.metadata.calls] == ["mkdir"]
    assert fs.isdir("/a/b/c/d")


def test_rename_without_replacing_and_exchange(fs: FileSystem) -> None:
    fs.write_file("/a", b"1")
    fs.write_file("/b", b"22")
    with pytest.raises(FileExistsError):
        fs.rename("/a", "/b", no_replace=True)
    fs.rename("/a", "/b", exchange=True)
    assert fs.read_file("/a") == b"22" and fs.read_file("/b") == b"1"
    fs.replace("/a", "/b")
    assert fs.listdir("/") == ["b"] and fs.read_file("/b") == b"22"
    with pytest.raises(ValueError, match="exclude"):
        fs.rename("/a", "/b", exchange=True, no_replace=True)


def test_modes_owners_times(fs: FileSystem) -> None:
    fs.write_file("/f", b"")
    fs.chmod("/f", 0o100640)
    fs.chown("/f", 5, -1)
    fs.utime("/f", ns=(1, 2))
    result = fs.stat("/f")
    assert (result.st_mode & 0o7777, result.st_uid, result.st_gid) == (0o640, 5, os.getegid() * 0)
    assert (result.st_atime_ns, result.st_mtime_ns) == (1, 2)
    fs.utime("/f", (1.5, 2.5))
    assert fs.stat("/f").st_mtime == 2.5
    before = time.time_ns()
    fs.utime("/f")
    assert fs.stat("/f").st_mtime_ns >= before
    with pytest.raises(ValueError, match="utime"):
        fs.utime("/f", (1, 2), ns=(1, 2))


def test_links_are_followed_unless_told_otherwise(fs: FileSystem) -> None:
    fs.write_file("/f", b"")
    fs.symlink("/f", "/l")
    fs.chmod("/l", 0o600, follow_symlinks=False)
    assert fs.stat("/f").st_mode & 0o777 != 0o600 and fs.lstat("/l").st_mode & 0o777 == 0o600
    fs.chmod("/l", 0o600)
    assert fs.stat("/f").st_mode & 0o777 == 0o600


def test_the_umask_is_obeyed(cluster: FakeCluster) -> None:
    old = os.umask(0o027)
    try:
        import fs_client

        with fs_client.connect(cluster.address) as fs:
            fs.mkdir("/d")
            fs.write_file("/f", b"")
            fs.create_many("/", ["g"])
            assert fs.stat("/d").st_mode & 0o777 == 0o750
            assert fs.stat("/f").st_mode & 0o777 == fs.stat("/g").st_mode & 0o777 == 0o640
    finally:
        os.umask(old)


def test_layouts_are_inherited_and_checked(fs: FileSystem) -> None:
    fs.mkdir("/d")
    fs.set_layout("/d", chunk_size=2 * CHUNK, durability=Durability.DISK)
    assert fs.get_layout("/d").stripe == 3
    fs.write_file("/d/f", b"")
    layout = fs.get_layout("/d/f")
    assert (layout.chunk_size, layout.durability) == (2 * CHUNK, Durability.DISK)
    with pytest.raises(OSError, match="power of two") as caught:
        fs.set_layout("/d", chunk_size=100_000)
    assert caught.value.errno == errno.EINVAL
    fs.write_file("/d/g", b"", layout=Layout(chunk_size=CHUNK, stripe=1))
    assert fs.get_layout("/d/g").stripe == 1


def test_space_and_usage(fs: FileSystem) -> None:
    fs.makedirs("/d/e")
    fs.write_file("/d/f", b"12345")
    fs.symlink("x", "/d/e/l")
    usage = fs.usage("/d")
    assert (usage.files, usage.directories, usage.symlinks, usage.total_bytes) == (1, 1, 1, 5)
    space = fs.statvfs()
    assert space.f_blocks * space.f_frsize == 1 << 40 and space.f_bavail * space.f_frsize == 1 << 39
    assert space.f_namemax == 255


def test_scandir_fetches_pages_as_they_are_needed(cluster: FakeCluster, fs: FileSystem) -> None:
    cluster.metadata.page_size = 10
    fs.create_many("/", [f"{number:03}" for number in range(35)])
    cluster.metadata.calls.clear()
    with fs.scandir("/", attributes=True) as entries:
        first = next(entries)
        assert (first.name, first.path, first.is_file(), first.is_dir()) == ("000", "/000", True, False)
        assert first.attributes is not None and first.attributes.inode == first.inode()
        pages = [name for name, _ in cluster.metadata.calls if name == "readdir"]
        assert len(pages) == 1
        assert [entry.name for entry in entries] == [f"{number:03}" for number in range(1, 35)]
    assert next(entries, None) is None
    assert [entry.attributes for entry in fs.scandir("/")] == [None] * 35
    assert fs.listdir("/") == [f"{number:03}" for number in range(35)]


def test_walk_is_that_of_os(fs: FileSystem, tmp_path: pathlib.Path) -> None:
    for make in (fs.makedirs, lambda path: os.makedirs(f"{tmp_path}{path}")):
        make("/t/a/b")
        make("/t/c")
    for name in ("/t/f", "/t/a/g", "/t/a/b/h"):
        fs.write_file(name, b"")
        (tmp_path / name[1:]).touch()
    fs.symlink("/t/a", "/t/c/link")
    (tmp_path / "t/c/link").symlink_to(tmp_path / "t/a")

    def normal(walked: object) -> list[object]:
        return [
            (os.fspath(top).removeprefix(str(tmp_path)), sorted(below), sorted(files))
            for top, below, files in walked  # type: ignore[attr-defined]
        ]

    for topdown in (True, False):
        for follow in (True, False):
            ours = normal(fs.walk("/t", topdown, followlinks=follow))
            theirs = normal(os.walk(tmp_path / "t", topdown, followlinks=follow))
            assert sorted(ours) == sorted(theirs)  # type: ignore[type-var]

    seen = []
    for top, below, _ in fs.walk("/t"):
        seen.append(top)
        below[:] = [name for name in below if name != "a"]
    assert seen == ["/t", "/t/c"]


def test_walk_reports_errors_to_its_caller(fs: FileSystem) -> None:
    errors: list[OSError] = []
    assert list(fs.walk("/no")) == []
    assert list(fs.walk("/no", onerror=errors.append)) == [] and isinstance(errors[0], FileNotFoundError)


def test_many_names_at_once(fs: FileSystem) -> None:
    fs.mkdir("/d")
    made = fs.create_many("/d", ["a", "b"])
    assert [result.st_size for result in made] == [0, 0]
    found = fs.stat_many("/d", ["b", "no", "a"])
    assert [None if result is None else result.inode for result in found] == [made[1].inode, None, made[0].inode]
    with pytest.raises(FileExistsError) as caught:
        fs.create_many("/d", ["c", "b", "e"])
    assert caught.value.filename == "/d/b" and fs.listdir("/d") == ["a", "b", "c", "e"]
    again = fs.create_many("/d", ["a", "z"], exist_ok=True)
    assert again[0].inode == made[0].inode and fs.exists("/d/z")
    assert fs.stat_many("/d", []) == []


def test_every_mutating_call_has_an_id_of_its_own(cluster: FakeCluster, fs: FileSystem) -> None:
    for number in range(5):
        fs.mkdir(f"/{number}")
    ids = [request.request for name, request in cluster.metadata.calls if name == "mkdir"]
    assert len(set(ids)) == 5 and all(len(number) == 16 for number in ids)


def test_the_async_face_has_the_same_names() -> None:
    def names(face: type) -> set[str]:
        return {name for name in dir(face) if not name.startswith("_")}

    missing = names(FileSystem) - names(aio.AsyncFileSystem) - {"closed", "options"}
    assert not missing


def test_the_async_face(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as fs:
            await fs.makedirs("/a/b")
            await fs.write_file("/a/f", b"123")
            assert [entry.name async for entry in fs.scandir("/a")] == ["b", "f"]
            walked = [top async for top, _, _ in fs.walk("/", topdown=False)]
            assert walked == ["/a/b", "/a", "/"]
            with pytest.raises(FileNotFoundError):
                await fs.stat("/no")
            assert repr(fs) == f"<AsyncFileSystem {cluster.address}>"
        assert repr(fs).endswith(" closed>")

    run(main())
