"""rename: what replaces what, atomicity, directories, refusals."""

import errno
import os
from pathlib import Path

import pytest

from tests.posix.files import exists, make, names, opened, pattern, read_all, refused
from tests.posix.people import ALICE, BOB, actor, as_user, needs_root
from tests.posix.subject import Subject


def build(directory: Path, name: str, kind: str) -> Path:
    """One of `file`, `empty` (directory), `full` (directory), `symlink`, `dangling`, `fifo`."""
    path = directory / name
    match kind:
        case "file":
            make(path, f"content of {name}".encode())
        case "empty":
            path.mkdir()
        case "full":
            path.mkdir()
            make(path / "inside", f"inside of {name}".encode())
        case "symlink":
            make(directory / f"target-of-{name}")
            path.symlink_to(f"target-of-{name}")
        case "dangling":
            path.symlink_to("nowhere")
        case "fifo":
            os.mkfifo(path)
    return path


KINDS = ("file", "empty", "full", "symlink", "dangling", "fifo")


@pytest.mark.parametrize("kind", KINDS)
def test_to_a_free_name(directory: Path, kind: str) -> None:
    path = build(directory, "old", kind)
    before = os.lstat(path)
    path.rename(directory / "new")
    after = os.lstat(directory / "new")
    assert (before.st_ino, before.st_mode, before.st_size) == (after.st_ino, after.st_mode, after.st_size)
    assert not exists(path)
    if kind == "full":
        assert (directory / "new" / "inside").read_bytes() == b"inside of old"


@pytest.mark.parametrize("kind", KINDS)
def test_to_another_directory(directory: Path, kind: str) -> None:
    path = build(directory, "old", kind)
    (directory / "a" / "b").mkdir(parents=True)
    inode = os.lstat(path).st_ino
    path.rename(directory / "a" / "b" / "new")
    assert os.lstat(directory / "a" / "b" / "new").st_ino == inode
    assert not exists(path)
    assert os.listdir(directory / "a" / "b") == ["new"]


def expected_errno(old: str, new: str) -> int | None:
    directories = ("empty", "full")
    if old in directories and new not in directories:
        return errno.ENOTDIR
    if old not in directories and new in directories:
        return errno.EISDIR
    if new == "full":
        return errno.ENOTEMPTY
    return None


@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", KINDS)
def test_over_what_is_there(directory: Path, old: str, new: str) -> None:
    source, target = build(directory, "old", old), build(directory, "new", new)
    inode, replaced = os.lstat(source).st_ino, os.lstat(target).st_ino
    number = expected_errno(old, new)
    if number is None:
        os.rename(source, target)
        assert os.lstat(target).st_ino == inode
        assert not exists(source)
    else:
        with refused(number, *((errno.EEXIST,) if number == errno.ENOTEMPTY else ())):
            os.rename(source, target)
        assert (os.lstat(source).st_ino, os.lstat(target).st_ino) == (inode, replaced)


@pytest.mark.parametrize("kind", KINDS)
def test_to_itself(directory: Path, kind: str) -> None:
    path = build(directory, "x", kind)
    inode = os.lstat(path).st_ino
    os.rename(path, path)
    assert os.lstat(path).st_ino == inode


def test_between_two_names_of_one_file(directory: Path) -> None:
    """Does nothing: both names stay."""
    make(directory / "a", b"abc")
    os.link(directory / "a", directory / "b")
    os.rename(directory / "a", directory / "b")
    assert names(directory) == {"a", "b"}
    assert (directory / "a").stat().st_nlink == 2


def test_replaced_file_lives_on_for_who_has_it_open(directory: Path) -> None:
    make(directory / "new", pattern(100_000))
    with opened(directory / "new", os.O_RDWR) as descriptor:
        make(directory / "old", b"other").rename(directory / "new")
        assert read_all(descriptor) == pattern(100_000)
        assert os.fstat(descriptor).st_nlink == 0
        os.pwrite(descriptor, b"X", 0)
    assert (directory / "new").read_bytes() == b"other"


def test_renamed_file_is_the_same_for_who_has_it_open(directory: Path) -> None:
    with opened(make(directory / "a", b"abc"), os.O_RDWR) as descriptor:
        (directory / "a").rename(directory / "b")
        os.pwrite(descriptor, b"X", 1)
        make(directory / "a", b"another")
        assert read_all(descriptor) == b"aXc"
    assert (directory / "b").read_bytes() == b"aXc"


def test_unsynced_bytes_move_along(directory: Path) -> None:
    """Written, closed, renamed: what editors and git do."""
    for number in range(20):
        make(directory / "new", pattern(5000 + number, number))
        (directory / "new").rename(directory / "current")
        assert (directory / "current").read_bytes() == pattern(5000 + number, number)


def test_symlinks_are_not_followed(directory: Path) -> None:
    build(directory, "a", "file")
    build(directory, "link", "symlink")
    os.rename(directory / "a", directory / "link")
    assert not (directory / "link").is_symlink()
    assert (directory / "target-of-link").read_bytes() != (directory / "link").read_bytes()


def test_directory_into_itself(directory: Path) -> None:
    (directory / "a" / "b" / "c").mkdir(parents=True)
    for target in ("a/x", "a/b/x", "a/b/c/x", "a/b/c/"):
        with refused(errno.EINVAL):
            os.rename(directory / "a", f"{directory}/{target}")
    assert (directory / "a" / "b" / "c").is_dir()


def test_directory_over_its_ancestor(directory: Path) -> None:
    (directory / "a" / "b").mkdir(parents=True)
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(directory / "a" / "b", directory / "a")


def test_dot_names(directory: Path) -> None:
    (directory / "a" / "b").mkdir(parents=True)
    for source, target in (("a/.", "x"), ("a/b/..", "x"), ("a/b", "a/."), ("a/b", "x/..")):
        with refused(errno.EBUSY, errno.EINVAL, errno.ENOENT):
            os.rename(f"{directory}/{source}", f"{directory}/{target}")


def test_missing(directory: Path) -> None:
    make(directory / "f")
    with refused(errno.ENOENT):
        os.rename(directory / "missing", directory / "x")
    with refused(errno.ENOENT):
        os.rename(directory / "missing", directory / "f")
    with refused(errno.ENOENT):
        os.rename(directory / "f", directory / "missing" / "x")
    with refused(errno.ENOTDIR):
        os.rename(directory / "f" / "x", directory / "y")
    with refused(errno.ENOTDIR):
        os.rename(directory / "f", directory / "f" / "y")
    with refused(errno.ENOENT):
        os.rename("", directory / "y")
    assert names(directory) == {"f"}


def test_trailing_slashes(directory: Path) -> None:
    make(directory / "f")
    (directory / "d").mkdir()
    with refused(errno.ENOTDIR):
        os.rename(f"{directory}/f/", directory / "x")
    with refused(errno.ENOTDIR):
        os.rename(directory / "f", f"{directory}/x/")
    os.rename(f"{directory}/d/", f"{directory}/e/")
    assert names(directory) == {"e", "f"}


def test_dot_dot_follows_a_moved_directory(directory: Path) -> None:
    (directory / "a" / "moved").mkdir(parents=True)
    (directory / "b").mkdir()
    with opened(directory / "a" / "moved", os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        (directory / "a" / "moved").rename(directory / "b" / "moved")
        assert os.stat("..", dir_fd=descriptor).st_ino == (directory / "b").stat().st_ino
    assert os.stat(f"{directory}/b/moved/..").st_ino == (directory / "b").stat().st_ino


def test_working_directory_moves_along(directory: Path) -> None:
    (directory / "a").mkdir()

    def run() -> str:
        os.chdir(directory / "a")
        os.rename(directory / "a", directory / "b")
        make(Path("made"))
        return os.getcwd()

    assert as_user(run, uid=0) == str(directory / "b")
    assert exists(directory / "b" / "made")


def test_to_another_file_system(subject: Subject) -> None:
    make(subject.path / "f")
    with refused(errno.EXDEV):
        os.rename(subject.path / "f", subject.elsewhere())


def test_relative_to_descriptors(directory: Path) -> None:
    (directory / "a").mkdir()
    (directory / "b").mkdir()
    make(directory / "a" / "f", b"abc")
    with opened(directory / "a", os.O_PATH) as a, opened(directory / "b", os.O_PATH) as b:
        os.rename("f", "g", src_dir_fd=a, dst_dir_fd=b)
    assert (directory / "b" / "g").read_bytes() == b"abc"


def test_needs_permission_in_both_directories(directory: Path) -> None:
    for name, mode in (("open", 0o777), ("also-open", 0o777), ("closed", 0o755)):
        (directory / name).mkdir()
        (directory / name).chmod(mode)
    make(directory / "open" / "f", mode=0)
    make(directory / "closed" / "f")
    with refused(errno.EACCES):
        as_user(os.rename, directory / "open" / "f", directory / "closed" / "g")
    with refused(errno.EACCES):
        as_user(os.rename, directory / "closed" / "f", directory / "open" / "g")
    as_user(os.rename, directory / "open" / "f", directory / "also-open" / "g")
    assert names(directory / "also-open") == {"g"}


def test_directory_that_is_not_writable_moves_within_its_parent_only(directory: Path) -> None:
    """Its `..` changes when it goes to another parent, so that needs write permission of the directory itself."""
    needs_root()
    for name in ("a", "b"):
        (directory / name).mkdir()
        os.chown(directory / name, ALICE, ALICE)
    (directory / "a" / "d").mkdir(0o755)  # root's
    as_user(os.rename, directory / "a" / "d", directory / "a" / "e", uid=ALICE)
    with refused(errno.EACCES):
        as_user(os.rename, directory / "a" / "e", directory / "b" / "e", uid=ALICE)
    os.chown(directory / "a" / "e", ALICE, ALICE)
    as_user(os.rename, directory / "a" / "e", directory / "b" / "e", uid=ALICE)


def test_unreadable_file_moves(directory: Path) -> None:
    directory.chmod(0o777)
    make(directory / "f", mode=0)
    as_user(os.rename, directory / "f", directory / "g", uid=BOB)
    assert names(directory) == {"g"}


def _replace_for_ever(directory: Path, count: int) -> None:
    for number in range(count):
        make(directory / f"new-{number % 2}", b"%08d" % number * 100)
        os.rename(directory / f"new-{number % 2}", directory / "current")


def test_name_is_never_missing_while_it_is_replaced(directory: Path) -> None:
    """The atomicity that everybody relies on: at any moment there is one whole file, old or new."""
    make(directory / "current", b"%08d" % 0 * 100)
    with actor() as other:
        other.start(_replace_for_ever, directory, 300)
        last = 0
        while not other.finished():
            with opened(directory / "current") as descriptor:
                data = os.read(descriptor, 1000)
            assert len(data) == 800
            assert data == data[:8] * 100
            assert int(data[:8]) >= last
            last = int(data[:8])
        other.result()
    assert (directory / "current").read_bytes()[:8] == b"00000299"


def test_many_in_a_row(directory: Path) -> None:
    path = make(directory / "0", b"abc")
    for number in range(1, 200):
        path = path.rename(directory / str(number))
    assert names(directory) == {"199"}
    assert path.read_bytes() == b"abc"
