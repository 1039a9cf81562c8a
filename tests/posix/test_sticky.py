"""The sticky bit of a directory: names are removed by the file's owner, the directory's owner and root alone."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.calls import RENAME_EXCHANGE, renameat2
from tests.posix.files import exists, make, refused
from tests.posix.people import ALICE, BOB, CAROL, as_user, needs_root


@pytest.fixture
def shared(directory: Path) -> Path:
    """A directory of Carol's, open to all, sticky, with a file and a directory of Alice's in it."""
    needs_root()
    path = directory / "shared"
    path.mkdir()
    os.chown(path, CAROL, CAROL)
    path.chmod(0o1777)
    make(path / "file", mode=0o666)
    (path / "sub").mkdir()
    (path / "sub").chmod(0o777)
    for name in ("file", "sub"):
        os.chown(path / name, ALICE, ALICE)
    (directory / "open").mkdir()
    (directory / "open").chmod(0o777)
    return path


REMOVALS: dict[str, Callable[[Path], None]] = {
    "unlink": lambda shared: os.unlink(shared / "file"),
    "rmdir": lambda shared: os.rmdir(shared / "sub"),
    "rename-within": lambda shared: os.rename(shared / "file", shared / "new"),
    "rename-out": lambda shared: os.rename(shared / "file", shared.parent / "open" / "new"),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_refused_to_others(shared: Path, removal: str) -> None:
    with refused(errno.EPERM, errno.EACCES):
        as_user(REMOVALS[removal], shared, uid=BOB)
    assert exists(shared / "file")
    assert exists(shared / "sub")


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("who", [ALICE, CAROL, 0])
def test_allowed_to_owners_and_root(shared: Path, removal: str, who: int) -> None:
    as_user(REMOVALS[removal], shared, uid=who)


def test_replacing_is_removing(shared: Path) -> None:
    def replace() -> None:
        make(shared / "bobs")
        os.rename(shared / "bobs", shared / "file")

    with refused(errno.EPERM, errno.EACCES):
        as_user(replace, uid=BOB)
    assert os.stat(shared / "file").st_uid == ALICE


def test_exchanging_is_removing(shared: Path) -> None:
    def exchange() -> None:
        make(shared / "bobs")
        renameat2(shared / "bobs", shared / "file", RENAME_EXCHANGE)

    with refused(errno.EPERM, errno.EACCES):
        as_user(exchange, uid=BOB)


def test_adding_is_free_to_all(shared: Path) -> None:
    def add() -> None:
        make(shared / "bobs")
        os.link(shared / "bobs", shared / "second")
        os.mkdir(shared / "dir")
        os.rename(shared / "second", shared / "third")
        os.unlink(shared / "bobs")

    as_user(add, uid=BOB)


def test_contents_are_a_matter_of_the_files_mode(shared: Path) -> None:
    as_user(os.truncate, shared / "file", 10, uid=BOB)
    assert (shared / "file").stat().st_size == 10


def test_inside_a_subdirectory_it_does_not_count(shared: Path) -> None:
    make(shared / "sub" / "f")
    as_user(os.unlink, shared / "sub" / "f", uid=BOB)


def test_without_the_bit(shared: Path) -> None:
    shared.chmod(0o777)
    as_user(os.unlink, shared / "file", uid=BOB)
