"""What programs know from `os`, `os.path`, `shutil`, `glob` and `pathlib`, beside those on a local directory."""

import glob
import os
import pathlib
import shutil
import stat
from collections.abc import Callable
from typing import Any

import pytest

import fs_client
from fs_client import FileSystem, aio
from fs_common.errors import Code, EmberError
from fs_common.methods import Method
from tests.client.fake_cluster import CHUNK, FakeCluster
from tests.support import run

TREE = ["a.txt", "b.bin", ".hidden", "d/a.txt", "d/e/deep.txt", "d/.h/x.txt", "d/[odd]/q?.txt", "empty/"]


@pytest.fixture
def local(tmp_path: pathlib.Path) -> str:
    """A directory with `TREE` and links, beside the same at /t of the cluster."""
    for name in TREE:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_text(name)
    os.symlink("d", tmp_path / "link")
    os.symlink("nowhere", tmp_path / "dangling")
    return str(tmp_path)


@pytest.fixture
def tree(fs: FileSystem) -> str:
    for name in TREE:
        fs.makedirs(os.path.dirname(f"/t/{name}"), exist_ok=True)
        if not name.endswith("/"):
            fs.write_text(f"/t/{name}", name)
    fs.symlink("d", "/t/link")
    fs.symlink("nowhere", "/t/dangling")
    return "/t"


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except OSError as error:
        return type(error).__name__, error.errno


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        ".*",
        "*.txt",
        "?.txt",
        "[ab].*",
        "[!a].*",
        "*/",
        "*/*.txt",
        "*/e/deep.txt",
        "d/*/deep.txt",
        "d/[[]odd]/*",
        "**",
        "**/",
        "**/*.txt",
        "d/**",
        "d/**/",
        "d/**/deep.txt",
        "**/e/*",
        "link/*",
        "dangling",
        "dangling/*",
        "nothing*",
        "a.txt",
        "a.txt/",
        "a.txt/*",
        "d",
        "d/",
        "gone*/**",
        "",
    ],
)
def test_glob_finds_what_glob_finds(fs: FileSystem, tree: str, local: str, pattern: str) -> None:
    for recursive in (False, True):
        for hidden in (False, True):
            how = {"recursive": recursive, "include_hidden": hidden}
            expected = sorted(glob.glob(pattern, root_dir=local, **how))
            assert sorted(fs.glob(pattern, root_dir=tree, **how)) == expected
            whole = sorted(path.removeprefix(local) for path in glob.glob(f"{local}/{pattern}", **how))
            assert sorted(path.removeprefix(tree) for path in fs.glob(f"{tree}/{pattern}", **how)) == whole


def test_glob_of_bytes_and_paths(fs: FileSystem, tree: str) -> None:
    assert fs.glob(b"/t/*.bin") == [b"/t/b.bin"] and fs.glob(pathlib.PurePosixPath("/t/*.bin")) == ["/t/b.bin"]
    assert next(fs.iglob("/t/*.bin")) == "/t/b.bin" and fs.glob("/*") == ["/t"] and fs.glob("*") == ["t"]


def test_glob_asks_as_seldom_as_it_can(cluster: FakeCluster, fs: FileSystem, tree: str) -> None:
    fs.makedirs("/many")
    for number in range(20):
        fs.mkdir(f"/many/{number}")
    cluster.metadata.calls.clear()
    assert fs.glob("/many/*/missing.txt") == []
    names = [name for name, _ in cluster.metadata.calls]
    assert names.count("readdir") == 1 and names.count("batch_stat") == 1


def test_a_cluster_that_does_not_answer_is_no_empty_match(cluster: FakeCluster, fs: FileSystem, tree: str) -> None:
    def fail(method: Method) -> EmberError | None:
        return EmberError(Code.DISK_FAILED, "gone") if method.name == "readdir" else None

    cluster.metadata.fault = fail
    with fs_client.connect(cluster.address, timeout_s=0.5) as hurried, pytest.raises(OSError, match="gone"):
        hurried.glob("/t/*")


def test_copies_are_those_of_shutil(fs: FileSystem, tree: str, local: str) -> None:
    def facts(module: Any, look: Any, read: Any, base: str) -> list[Any]:
        def relative(call: Callable[[], Any]) -> Any:
            result = outcome(call)
            return result.removeprefix(base) if isinstance(result, str) else result

        ignored = shutil.ignore_patterns("*.txt", ".h")
        found = [
            relative(lambda: module.copyfile(f"{base}/a.txt", f"{base}/new")),
            read(f"{base}/new"),
            relative(lambda: module.copyfile(f"{base}/d/e/deep.txt", f"{base}/new")),
            read(f"{base}/new"),
            relative(lambda: module.copyfile(f"{base}/a.txt", f"{base}/empty")),
            relative(lambda: module.copy(f"{base}/a.txt", f"{base}/empty")),
            relative(lambda: module.copy2(f"{base}/a.txt", f"{base}/empty/other")),
            relative(lambda: module.copyfile(f"{base}/missing", f"{base}/x")),
            relative(lambda: module.copyfile(f"{base}/a.txt", f"{base}/none/x")),
            relative(lambda: module.copyfile(f"{base}/a.txt", f"{base}/a.txt")),
            read(f"{base}/a.txt"),
            relative(lambda: module.copyfile(f"{base}/link", f"{base}/link2", follow_symlinks=False)),
            relative(lambda: module.copytree(f"{base}/d", f"{base}/tree", symlinks=True)),
            read(f"{base}/tree/e/deep.txt"),
            relative(lambda: module.copytree(f"{base}/d", f"{base}/tree")),
            relative(lambda: module.copytree(f"{base}/d", f"{base}/tree", dirs_exist_ok=True)),
            relative(lambda: module.copytree(f"{base}/d", f"{base}/some", ignore=ignored)),
            relative(lambda: module.copytree(f"{base}/missing", f"{base}/x")),
            relative(lambda: module.move(f"{base}/new", f"{base}/empty")),
            relative(lambda: module.move(f"{base}/a.txt", f"{base}/empty/new")),
            relative(lambda: module.move(f"{base}/b.bin", f"{base}/c.bin")),
            relative(lambda: module.move(f"{base}/missing", f"{base}/empty")),
        ]
        return found

    def listed(walk: Any, base: str) -> list[Any]:
        return sorted((top.removeprefix(base), sorted(dirs), sorted(files)) for top, dirs, files in walk)

    expected = facts(shutil, os.stat, lambda path: pathlib.Path(path).read_text(), local)
    assert facts(fs, fs.stat, fs.read_text, tree) == expected
    assert listed(fs.walk(tree), tree) == listed(os.walk(local), local)
    assert fs.readlink("/t/link2") == "d"


def test_moving_to_what_is_there_already_says_so(fs: FileSystem, tree: str) -> None:
    fs.write_text("/t/empty/a.txt", "kept")
    with pytest.raises(shutil.Error, match=r"'/t/empty/a.txt' already exists"):
        fs.move("/t/a.txt", "/t/empty")
    assert fs.read_text("/t/empty/a.txt") == "kept"


def test_what_copies_keep(fs: FileSystem) -> None:
    fs.write_file("/f", b"1")
    fs.chmod("/f", 0o604)
    fs.utime("/f", ns=(5, 6))
    fs.setxattr("/f", "user.a", b"value")
    for copy, keeps_times in ((fs.copy, False), (fs.copy2, True)):
        copy("/f", "/g")
        found = fs.stat("/g")
        assert stat.S_IMODE(found.st_mode) == 0o604 and (found.st_mtime_ns == 6) == keeps_times
        assert fs.listxattr("/g") == (["user.a"] if keeps_times else [])
        fs.unlink("/g")
    fs.mkdir("/d")
    fs.rename("/f", "/d/f")
    fs.chmod("/d", 0o701)
    fs.utime("/d", ns=(7, 8))
    fs.copytree("/d", "/e")
    assert stat.S_IMODE(fs.stat("/e").st_mode) == 0o701 and fs.stat("/e").st_mtime_ns == 8
    assert fs.stat("/e/f").st_mtime_ns == 6 and fs.getxattr("/e/f", "user.a") == b"value"


def test_a_large_copy_with_holes(cluster: FakeCluster, fs: FileSystem) -> None:
    pieces = {0: b"first", 7 * CHUNK + 5: os.urandom(2 * CHUNK), 40 * CHUNK: b"x"}
    with fs.open("/f", "wb") as file:
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)
        file.truncate(60 * CHUNK)
    fs.copyfile("/f", "/g")
    assert fs.getsize("/g") == 60 * CHUNK and fs.read_file("/g") == fs.read_file("/f")
    with fs.open("/g") as file:
        assert file.seek(CHUNK, os.SEEK_DATA) == 7 * CHUNK


def test_copytree_goes_on_and_says_all_that_failed(fs: FileSystem, tree: str) -> None:
    fs.symlink("nowhere", "/t/d/broken")
    with pytest.raises(shutil.Error) as caught:
        fs.copytree("/t", "/u")
    failed = sorted(source for source, _, _ in caught.value.args[0])
    assert failed == ["/t/d/broken", "/t/dangling", "/t/link/broken"]
    assert fs.read_text("/u/d/e/deep.txt") == fs.read_text("/u/link/e/deep.txt") == "d/e/deep.txt"
    fs.copytree("/t", "/v", ignore_dangling_symlinks=True)
    assert not fs.lexists("/v/dangling")


def test_touch_and_times(fs: FileSystem) -> None:
    fs.touch("/f", 0o600)
    assert stat.S_IMODE(fs.stat("/f").st_mode) == 0o600
    fs.utime("/f", ns=(10**9, 2 * 10**9))
    assert (fs.getatime("/f"), fs.getmtime("/f")) == (1.0, 2.0) and fs.getctime("/f") == fs.stat("/f").st_ctime
    fs.touch("/f")
    assert fs.getmtime("/f") > 2.0
    with pytest.raises(FileExistsError):
        fs.touch("/f", exist_ok=False)
    with pytest.raises(FileNotFoundError):
        fs.touch("/none/f")


def test_access(fs: FileSystem) -> None:
    fs.write_file("/f", b"")
    fs.chmod("/f", 0o400)
    assert fs.access("/f", os.F_OK) and fs.access("/f", os.R_OK)
    assert not fs.access("/f", os.W_OK) and not fs.access("/f", os.R_OK | os.X_OK)
    assert not fs.access("/none", os.F_OK) and not fs.access("/f/x", os.F_OK)


def test_extended_attributes(fs: FileSystem) -> None:
    fs.write_file("/f", b"")
    fs.symlink("f", "/l")
    fs.setxattr("/l", "user.a", b"1")
    fs.setxattr("/f", b"user.b", bytearray(b"22"), os.XATTR_CREATE)
    assert fs.listxattr("/f") == ["user.a", "user.b"] and fs.getxattr("/f", "user.b") == b"22"
    with pytest.raises(FileExistsError):
        fs.setxattr("/f", "user.a", b"2", os.XATTR_CREATE)
    fs.removexattr("/f", "user.a")
    for call in (lambda: fs.getxattr("/f", "user.a"), lambda: fs.removexattr("/f", "user.a")):
        with pytest.raises(OSError, match="No data available") as caught:
            call()
        assert caught.value.filename == "/f"
    with pytest.raises(TypeError):
        fs.setxattr("/f", "user.a", "text")


@pytest.mark.parametrize("strict", [False, True])
def test_realpath(fs: FileSystem, tree: str, local: str, strict: bool) -> None:
    os.symlink("self", f"{local}/self")
    fs.symlink("self", "/t/self")
    for base, link in ((local, os.symlink), (tree, fs.symlink)):
        link(f"{base}/d/e", f"{base}/absolute")
        link("../link/e", f"{base}/d/up")
    names = [
        "",
        "a.txt",
        "link",
        "link/a.txt",
        "link/e/../a.txt",
        "d/up/deep.txt",
        "absolute/deep.txt",
        "./d/./e/",
        "//d//e",
    ]
    names += ["none", "none/below", "link/none", "dangling", "a.txt/below", "d/..", "../../.."]
    for name in names:
        expected = outcome(lambda name=name: os.path.realpath(f"{local}/{name}", strict=strict))
        found = outcome(lambda name=name: fs.realpath(f"{tree}/{name}", strict=strict))
        if isinstance(expected, str) and expected.startswith(local):
            expected, found = expected.removeprefix(local), found.removeprefix(tree)
            assert found == expected, name
        elif isinstance(expected, tuple):
            assert found == expected, name
        else:
            assert found == "/", name
    assert fs.realpath(b"/t/link") == b"/t/d" and fs.realpath("t") == "/t"
    if strict:
        with pytest.raises(OSError, match="Too many levels"):
            fs.realpath("/t/self", strict=True)
    else:
        assert fs.realpath("/t/self") == "/t/self"


def test_space_and_sameness(fs: FileSystem) -> None:
    usage = fs.disk_usage("/")
    assert usage.total == usage.used + usage.free and usage.free > 0
    fs.write_file("/f", b"")
    fs.symlink("f", "/l")
    fs.write_file("/g", b"")
    assert fs.samefile("/f", "/l") and not fs.samefile("/f", "/g")


def test_text(fs: FileSystem, tmp_path: pathlib.Path) -> None:
    text = "eins\r\nzwei\nüber"
    path = tmp_path / "f"
    for how in ({"encoding": "utf-8"}, {"encoding": "utf-16"}, {"encoding": "ascii", "errors": "replace"}):
        assert fs.write_text("/f", text, **how) == path.write_text(text, **how) == len(text)
        assert fs.read_file("/f") == path.read_bytes() and fs.read_text("/f", **how) == path.read_text(**how)
    fs.write_text("/f", text, encoding="utf-8", newline="\r\n")
    path.write_text(text, encoding="utf-8", newline="\r\n")
    assert fs.read_file("/f") == path.read_bytes()
    with pytest.raises(TypeError, match="use write_text"):
        fs.write_file("/f", "text")
    with pytest.raises(TypeError, match="write_file takes bytes"):
        fs.write_text("/f", b"bytes")  # type: ignore[arg-type]


def test_open_is_for_text_where_the_arguments_say_so(fs: FileSystem) -> None:
    fs.write_text("/f", "über\r\n", encoding="utf-8", newline="")
    with fs.open("/f", encoding="utf-8") as file:
        assert file.read() == "über\n"
    with fs.open("/f", newline="", encoding="utf-8") as file:
        assert file.read() == "über\r\n"
    with fs.open("/f") as file:
        assert isinstance(file.read(), bytes)
    with pytest.raises(ValueError, match="binary mode doesn't take"):
        fs.open("/f", "rb", encoding="utf-8")


def test_directories_and_removals_of_pathlib(fs: FileSystem) -> None:
    fs.mkdir("/a/b/c", parents=True)
    fs.mkdir("/a/b/c", parents=True, exist_ok=True)
    fs.mkdir("/a", exist_ok=True)
    fs.write_file("/f", b"")
    for call in (
        lambda: fs.mkdir("/a"),
        lambda: fs.mkdir("/a/b", parents=True),
        lambda: fs.mkdir("/f", exist_ok=True),
        lambda: fs.mkdir("/f", exist_ok=True, parents=True),
    ):
        with pytest.raises(FileExistsError):
            call()
    with pytest.raises(FileNotFoundError):
        fs.mkdir("/x/y", exist_ok=True)
    fs.unlink("/f", missing_ok=True)
    fs.unlink("/f", missing_ok=True)
    with pytest.raises(FileNotFoundError):
        fs.unlink("/f")


def test_rmtree_tells_of_errors_as_shutil_does(fs: FileSystem) -> None:
    told: list[Any] = []
    fs.rmtree("/none", onexc=lambda function, path, error: told.append((function, path, type(error))))
    fs.rmtree("/none", onerror=lambda function, path, info: told.append((function, path, info[0])))
    assert told == [(fs.rmtree, "/none", FileNotFoundError)] * 2
    fs.rmtree("/none", True)
    with pytest.raises(FileNotFoundError):
        fs.rmtree("/none")


def test_the_async_face_has_them_too(cluster: FakeCluster, fs: FileSystem, tree: str) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.address) as other:
            assert sorted(await other.glob("/t/*.txt")) == ["/t/a.txt"]
            assert await other.copy("/t/a.txt", "/t/empty") == "/t/empty/a.txt"
            assert await other.read_text("/t/empty/a.txt") == "a.txt"
            await other.copytree("/t/d", "/w")
            await other.move("/w", "/t/empty")
            assert await other.isdir("/t/empty/w/e") and await other.realpath("/t/link") == "/t/d"
            told: list[Any] = []
            await other.rmtree("/none", onexc=lambda *what: told.append(what))
            assert told[0][1] == "/none"

    run(main())


@pytest.mark.parametrize("mode", ["rb", "r+b"])
@pytest.mark.parametrize("buffering", [-1, 0])
def test_pread_leaves_the_position(fs: FileSystem, mode: str, buffering: int) -> None:
    data = os.urandom(3 * CHUNK)
    fs.write_file("/f", data)
    with fs.open("/f", mode, buffering) as file:
        file.seek(7)
        assert file.pread(5, 100) == data[100:105] and file.pread(10 * CHUNK, CHUNK) == data[CHUNK:]
        assert file.pread(5, 4 * CHUNK) == b"" and file.tell() == 7 and file.read(3) == data[7:10]
        with pytest.raises(OSError, match="Invalid argument"):
            file.pread(1, -1)
        if "+" in mode:
            file.write(b"new")
            assert file.pread(5, 9) == data[9:10] + b"new" + data[13:14] and file.tell() == 13
    with fs.open("/f", "wb") as file, pytest.raises((AttributeError, OSError)):
        file.pread(1, 0)


@pytest.mark.parametrize("buffering", [-1, 0])
def test_seek_to_data_and_holes(fs: FileSystem, buffering: int) -> None:
    with fs.open("/f", "w+b", buffering) as file:
        file.seek(5 * CHUNK)
        file.write(b"x" * CHUNK)
        file.seek(9 * CHUNK)
        file.write(b"y")
        assert file.seek(0, os.SEEK_DATA) == 5 * CHUNK and file.read(1) == b"x"
        assert file.seek(5 * CHUNK, os.SEEK_HOLE) == 6 * CHUNK and file.tell() == 6 * CHUNK
        assert file.seek(6 * CHUNK, os.SEEK_DATA) == 9 * CHUNK
        assert file.seek(9 * CHUNK, os.SEEK_HOLE) == 9 * CHUNK + 1, "the end is a hole"
        for offset, whence in ((9 * CHUNK + 1, os.SEEK_DATA), (-1, os.SEEK_DATA), (9 * CHUNK + 1, os.SEEK_HOLE)):
            with pytest.raises(OSError, match="No such device or address"):
                file.seek(offset, whence)
    with fs.open("/f", "rb", buffering) as file:
        assert file.seek(1, os.SEEK_DATA) == 5 * CHUNK and file.read(2) == b"xx"
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 9)
