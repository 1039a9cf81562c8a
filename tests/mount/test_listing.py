"""Open directories: a few pages are held, and places keep their meaning whatever changes."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client.fuse import abi
from fs_client.fuse.abi import Opcode
from fs_client.fuse.handles import DirectoryHandle
from fs_client.fuse.handover import FORMAT, FORMAT_SHORT, capture, restore
from fs_client.fuse.listing import HELD_MAX, Listing
from fs_client.fuse.mount import Mount
from fs_client.fuse.negotiation import Negotiated
from fs_client.fuse.ops.directories import PAGE_MAX, handlers
from fs_client.fuse.policy import Policy
from fs_common import methods
from fs_common.ids import ROOT_INODE
from fs_common.methods import Method
from fs_common.records import meta
from fs_common.records.meta import Attributes, DirectoryEntry, FileType
from tests.mount.test_files import FileSystem
from tests.support import run

NEGOTIATED = Negotiated(45, 0, 4096, 0, 12, 9)


class Service:
    """The metadata service of one directory whose names change."""

    def __init__(self, names: list[bytes]) -> None:
        self.inodes = {name: 100 + number for number, name in enumerate(names)}
        self.asked = 0

    def add(self, name: bytes) -> None:
        self.inodes[name] = 100_000 + len(self.inodes)

    async def call(self, method: Method, request: Any, **_: Any) -> Any:
        assert method is methods.READDIR
        self.asked += 1
        names = sorted(name for name in self.inodes if name > request.after)
        page = [DirectoryEntry(name, self.inodes[name], FileType.FILE, self._of(name)) for name in names]
        return meta.ReaddirReply(page[: request.limit], len(names) > request.limit)

    def _of(self, name: bytes) -> Attributes:
        return Attributes(self.inodes[name], FileType.FILE, 0o644, 0, 0, 1, 0, 0, 0, 0, None)


class Reader:
    """The kernel's side of one open directory."""

    def __init__(self, service: Service, plus: bool = False) -> None:
        self.service = service
        self.plus = plus
        self.mount = self.new_mount()
        self.handle: DirectoryHandle = self.mount.handles.open_directory(ROOT_INODE, meta.User())

    def new_mount(self) -> Mount:
        fs = FileSystem()
        fs.metadata = self.service  # type: ignore[assignment]
        mount = Mount(fs, Policy())  # type: ignore[arg-type]
        self.read_plain = handlers(mount)[Opcode.READDIR]
        self.read_plus = handlers(mount)[Opcode.READDIRPLUS]
        return mount

    async def read(self, cookie: int, size: int = 4096) -> list[tuple[bytes, int]]:
        """(name, cookie behind it)"""
        body = abi.READ_IN.pack(self.handle.number, cookie, size, 0, 0, 0)
        request: Any = SimpleNamespace(body=body, node=ROOT_INODE, uid=0, gid=0, pid=1, extensions=b"")
        result: Any = (self.read_plus if self.plus else self.read_plain)(request)
        if not isinstance(result, bytes):
            result = await result
        entries = []
        head = abi.ENTRY_OUT_SIZE if self.plus else 0
        place = 0
        while place < len(result):
            _, offset, length, _ = abi.DIRENT.unpack_from(result, place + head)
            begin = place + head + abi.DIRENT.size
            entries.append((result[begin : begin + length], offset))
            place = begin + length + (-length & 7)
        return entries

    async def rest(self, cookie: int) -> list[tuple[bytes, int]]:
        found: list[tuple[bytes, int]] = []
        while some := await self.read(cookie):
            found += some
            cookie = some[-1][1]
            assert self.held() <= HELD_MAX * PAGE_MAX
        return found

    def held(self) -> int:
        return sum(len(page.entries or ()) for page in self.handle.listing.pages)

    async def close(self) -> None:
        await self.mount.quiet()


def named(count: int) -> list[bytes]:
    return [b"name-%06d" % number for number in range(0, 2 * count, 2)]


@pytest.mark.parametrize("plus", [False, True])
def test_a_long_listing_has_each_name_once_and_a_few_pages_are_held(plus: bool) -> None:
    async def scenario() -> None:
        names = named(10 * PAGE_MAX)
        reader = Reader(Service(names), plus)
        found = await reader.rest(0)
        assert [name for name, _ in found] == [b".", b"..", *names]
        assert [cookie for _, cookie in found] == list(range(1, len(found) + 1))
        assert reader.service.asked <= 13
        await reader.close()

    run(scenario())


def test_a_place_is_found_again_after_its_page_was_dropped() -> None:
    async def scenario() -> None:
        names = named(8 * PAGE_MAX)
        reader = Reader(Service(names))
        found = await reader.rest(0)
        for place in (5, 4000, 300, len(found) - 1, 2000):
            assert (await reader.read(found[place - 1][1]))[0] == found[place]
        assert await reader.rest(found[100][1]) == found[101:]
        await reader.close()

    run(scenario())


@pytest.mark.parametrize("seed", range(8))
def test_who_comes_back_finds_what_stayed_once_and_in_order(seed: int) -> None:
    """Names come and go between all reads."""
    chance = random.Random(seed)

    async def scenario() -> None:
        names = named(6 * PAGE_MAX)
        service = Service(names)
        reader = Reader(service, plus=bool(seed & 1))
        stays = set(chance.sample(names, len(names) // 2))
        may_go = [name for name in names if name not in stays]
        chance.shuffle(may_go)
        if seed & 2:
            # Whole pages go: there is a wide gap.
            may_go = [name for name in named(6 * PAGE_MAX) if name[:9] in (b"name-0040", b"name-0060", b"name-0000")]
            stays = set(names) - set(may_go)

        def change() -> None:
            for _ in range(chance.randrange(40)):
                if may_go:
                    service.inodes.pop(may_go.pop(), None)
            for _ in range(chance.randrange(4)):
                service.add(b"name-%06d" % (2 * chance.randrange(6 * PAGE_MAX) + 1))

        first: list[tuple[bytes, int]] = []
        cookie = 0
        while some := await reader.read(cookie):
            first += some
            cookie = some[-1][1]
            change()
        listed = [name for name, _ in first]
        assert len(set(listed)) == len(listed)
        assert stays <= set(listed)
        for _ in range(6):
            place = chance.randrange(2, len(first))
            again: list[tuple[bytes, int]] = []
            cookie = first[place - 1][1]
            while some := await reader.read(cookie):
                again += some
                cookie = some[-1][1]
                change()
            at = dict(first)
            assert all(at[name] == cookie for name, cookie in again), "a name is at the place where it was"
            seen = [name for name, _ in again]
            assert [name for name in seen if name in stays] == [name for name in listed[place:] if name in stays]
            assert reader.held() <= HELD_MAX * PAGE_MAX
        await reader.close()

    run(scenario())


def test_what_is_read_and_removed_page_by_page_goes_to_its_end() -> None:
    async def scenario() -> None:
        names = named(3 * PAGE_MAX)
        service = Service(names)
        reader = Reader(service)
        removed = []
        cookie = 0
        while some := await reader.read(cookie):
            for name, _ in some:
                if service.inodes.pop(name, None) is not None:
                    removed.append(name)
            cookie = some[-1][1]
        assert removed == names
        assert [name for name, _ in await reader.rest(0)] == [b".", b".."], "reading from the start is a new listing"
        await reader.close()

    run(scenario())


@pytest.mark.parametrize("count", [10, 6 * PAGE_MAX])
def test_another_daemon_goes_on_where_this_one_was(count: int) -> None:
    async def scenario() -> None:
        names = named(count)
        reader = Reader(Service(names))
        before = await reader.rest(0)
        await reader.close()
        reader.mount.fs.storage.unsynced.captured()
        state = capture(reader.mount, NEGOTIATED)
        assert state.format == (FORMAT if count > PAGE_MAX else FORMAT_SHORT), "older daemons take a short one"
        number = reader.handle.number
        reader.mount = reader.new_mount()
        restore(reader.mount, state)
        reader.handle = reader.mount.handles.directory(number)
        reader.service.inodes.pop(names[3])
        found = await reader.rest(2)
        gone = set() if count < PAGE_MAX else {names[3]}
        assert found == [entry for entry in before[2:] if entry[0] not in gone]
        await reader.close()

    run(scenario())


def test_packed_names_are_small() -> None:
    listing = Listing()
    for first in range(0, 100 * PAGE_MAX, PAGE_MAX):
        names = [b"sample-%08d.jpg" % number for number in range(first, first + PAGE_MAX)]
        listing.add([DirectoryEntry(name, 1, FileType.FILE) for name in names], False)
    assert sum(len(names) for _, names in listing.packed()) < 6 * listing.count
    again = Listing.unpacked(listing.packed(), False)
    assert again.last == listing.last and again.count == listing.count
    assert [page.names() for page in again.pages] == [page.names() for page in listing.pages]
