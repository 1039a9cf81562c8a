"""Looking ahead of walks: where a page begins, and how large it is."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client.fuse.look_ahead import PLAIN, SIZE_FIRST, SIZE_MAX, LookAhead, before
from fs_client.fuse.mount import Mount
from fs_client.fuse.policy import Policy
from fs_common import methods
from fs_common.ids import ROOT_INODE
from fs_common.limits import NAME_BYTES_MAX
from fs_common.methods import Method
from fs_common.records import meta
from fs_common.records.meta import Attributes, DirectoryEntry, FileType
from tests.mount.test_files import FileSystem
from tests.support import run


@pytest.mark.parametrize(
    "name", [b"a", b"\x01", b"\xff", b"abc", b"ab\x01", b"x" * 254, b"x" * 255, b"\xff" * 255, b"0" * 253 + b"\x02"]
)
def test_a_page_begins_before_its_name_and_close_to_it(name: bytes) -> None:
    after = before(name)
    assert after < name
    assert len(after) <= NAME_BYTES_MAX
    assert after[: len(name) - 1] == name[:-1], "only names that begin like it lie between"


COUNT = 10_000
NAMES = [b"%08d" % number for number in range(COUNT)]


def inode(name: bytes) -> int:
    return 100 + int(name)


def attributes(name: bytes) -> Attributes:
    return Attributes(inode(name), FileType.FILE, 0o644, 0, 0, 1, 0, 0, 0, 0, None)


class Directory:
    """The metadata service of one directory: notes how many names each call fetches."""

    def __init__(self) -> None:
        self.fetched: list[int] = []

    async def call(self, method: Method, request: Any, **_: Any) -> Any:
        if method is methods.LOOKUP:
            self.fetched.append(1)
            return meta.AttributesReply(attributes(request.name))
        assert method is methods.READDIR
        names = [name for name in NAMES if name > request.after]
        page = [DirectoryEntry(name, inode(name), FileType.FILE, attributes(name)) for name in names[: request.limit]]
        self.fetched.append(request.limit)
        return meta.ReaddirReply(page, len(names) > request.limit)


def fetched(order: list[int]) -> list[int]:
    """What looking these names up, one after another, fetches."""

    async def scenario() -> list[int]:
        fs = FileSystem()
        directory = fs.metadata = Directory()  # type: ignore[assignment]
        mount = Mount(fs, Policy())  # type: ignore[arg-type]
        now = 100.0
        mount.now = lambda: now
        looking = LookAhead(mount)
        request: Any = SimpleNamespace(uid=0, gid=0, pid=1, node=ROOT_INODE, extensions=b"")
        for number in order:
            now += 0.0001
            found = mount.nodes.find(ROOT_INODE, NAMES[number], now)
            if found is None:
                node, _ = await looking.lookup(request, ROOT_INODE, NAMES[number])
                assert node.inode == inode(NAMES[number])
        return directory.fetched

    return run(scenario())


def test_pages_grow_while_a_walk_goes_on() -> None:
    pages = fetched(list(range(3 * SIZE_MAX)))
    assert pages[:3] == [1, 1, SIZE_FIRST], "two names in a row are no walk yet, a third is"
    assert pages == sorted(pages) and pages[-1] == SIZE_MAX
    assert len(pages) < 12, "a page is fetched for every so many names"


def test_who_jumps_about_soon_fetches_names_alone() -> None:
    seed = 1
    order = random.Random(seed).sample(range(COUNT), 400)
    pages = fetched(order)
    assert pages.count(1) > 0.7 * len(order), f"seed {seed}"
    assert sum(pages) < 10 * len(order), f"seed {seed}"


def test_names_backwards_are_no_walk() -> None:
    pages = fetched(list(range(4 * PLAIN, 0, -1)))
    assert max(pages) == SIZE_FIRST
    assert pages.count(SIZE_FIRST) <= 5
