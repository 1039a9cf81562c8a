"""What a mount remembers is bounded: what goes first, what stays, and what the kernel is asked for."""

import itertools
import json
import os
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client.fuse import forgetting
from fs_client.fuse.forgetting import (
    INODES_EACH,
    NAME_BYTES,
    NODE_BYTES,
    ROUNDS_LEFT_OUT_MAX,
    SLACK,
    Bound,
)
from fs_client.fuse.nodes import FOREVER, Nodes
from fs_common.records.following import Promised
from fs_common.records.meta import Attributes, DirectoryEntry, FileType
from tests.fuse.mounting import needs_mount
from tests.mount.conftest import Mounted, wait_until

ROOT = 1
NOW = 100.0
EACH = NODE_BYTES + NAME_BYTES


def entry(inode: int, type_: FileType = FileType.FILE) -> DirectoryEntry:
    return DirectoryEntry(b"%08d" % inode, inode, type_, Attributes(inode, type_, 0o644, 0, 0, 1, 0, 0, 0, 0))


def listed(nodes: Nodes, directory: int, inodes: range, *, looked_up: bool = True, promised: int = 0) -> None:
    """A whole directory was listed; the kernel knows all of it."""
    page = [entry(inode) for inode in inodes]
    nodes.adopt_page(directory, b"", page, False, nodes.stamp(), NOW, promised)
    nodes.node(directory).lookups += 1
    for inode in inodes:
        nodes.by_inode[inode].lookups += looked_up


def nodes() -> Nodes:
    return Nodes(ROOT, attribute_s=1.0, name_s=1.0, absent_s=1.0)


class Kernel:
    """In the place of the channel."""

    def __init__(self, prunes: bool) -> None:
        self.prunes = prunes
        self.pruned: list[list[int]] = []
        self.names: list[tuple[int, bytes]] = []
        self.busy = False

    def told(self) -> bool:
        return not self.busy

    def notify_prune(self, inodes: list[int]) -> bool:
        self.pruned.append(list(inodes))
        return True

    def notify_inval_entry(self, directory: int, name: bytes) -> bool:
        self.names.append((directory, name))
        return True

    def asked(self) -> list[int]:
        """What was pruned since this was asked before."""
        inodes = [inode for some in self.pruned for inode in some]
        self.pruned.clear()
        return inodes


class World:
    def __init__(self, room: int, *, prunes: bool = True) -> None:
        """`room` for so many inodes with a name each."""
        self.nodes = nodes()
        self.kernel = Kernel(prunes)
        self.policy = SimpleNamespace(known_bytes=room * EACH)
        mount: Any = SimpleNamespace(now=lambda: NOW, nodes=self.nodes, channel=self.kernel, policy=self.policy)
        self.bound = Bound(mount)

    def forget(self, inodes: list[int]) -> None:
        for inode in inodes:
            self.nodes.forget(inode, self.nodes.by_inode[inode].lookups, NOW)


def test_within_the_bound_nobody_is_asked() -> None:
    world = World(1000)
    listed(world.nodes, ROOT, range(10, 900))
    world.bound.look()
    assert world.kernel.asked() == []
    assert len(world.nodes.by_inode) == 891


def test_over_it_the_kernel_is_asked_for_what_came_first() -> None:
    world = World(1000)
    for first in range(1000, 3000, 100):
        listed(world.nodes, first, range(first + 1, first + 100))
        world.nodes.by_inode[first].expires = FOREVER
    world.bound.look()
    assert all(len(some) <= INODES_EACH for some in world.kernel.pruned)
    asked = world.kernel.asked()
    assert asked == sorted(asked) and len(set(asked)) == len(asked)
    left = len(world.nodes.by_inode) - len(asked)
    assert left <= 1000 - 1000 // SLACK + 20, "as many as there is room for, and some room is made"
    assert left > 700, "and not many more"

    world.forget(asked)
    world.bound.look()
    assert forgetting.known_bytes(world.nodes) <= world.policy.known_bytes


def test_what_the_kernel_asks_for_again_goes_last() -> None:
    known = nodes()
    listed(known, ROOT, range(10, 20))
    for inode in (10, 12):
        known.by_inode[inode].lookups += 1
    assert forgetting.least_used(known, 4) == [11, 13, 14, 15]
    assert forgetting.least_used(known, 6) == [16, 17, 18, 19, 10, 11], "once round without being asked for"


def test_what_is_in_use_is_not_asked_for() -> None:
    known = nodes()
    listed(known, ROOT, range(10, 16))
    known.by_inode[10].file = object()  # type: ignore[assignment]
    known.by_inode[11].removed = True
    known.by_inode[12].expires = FOREVER
    known.by_inode[13].lookups = 0
    assert forgetting.least_used(known, 100) == [14, 15]


def test_nodes_that_the_kernel_gave_up_go_and_far_over_the_bound_those_fetched_ahead() -> None:
    known = nodes()
    listed(known, ROOT, range(10, 20), looked_up=False)
    listed(known, ROOT, range(20, 30))
    for inode in range(20, 25):
        known.forget(inode, 1, NOW)
    forgetting.drop_loose(known, 100, NOW)
    assert sorted(known.by_inode) == [ROOT, *range(10, 20), *range(25, 30)]
    forgetting.drop_loose(known, 7, FOREVER)
    assert sorted(known.by_inode) == [ROOT, *range(17, 20), *range(25, 30)]


def test_names_without_nodes_go_directory_by_directory() -> None:
    known = nodes()
    listed(known, 2, range(10, 15), promised=int(Promised.NAMES))
    listed(known, 3, range(20, 25))
    listed(known, 2, range(10, 15), promised=int(Promised.NAMES))
    known.believed_until = FOREVER
    assert known.certainly_absent(2, b"nothing", NOW)
    assert {inode for _, _, inode in forgetting.drop_names(known, 3)} == set(range(20, 25)), "listed longer ago"
    assert known.certainly_absent(2, b"nothing", NOW)
    assert {inode for _, _, inode in forgetting.drop_names(known, 1)} == set(range(10, 15))
    assert not known.certainly_absent(2, b"nothing", NOW), "what is not known is no proof"
    assert known.find(2, b"%08d" % 10, NOW) is None
    assert known.names_about == 0


def test_a_listing_without_look_ups_leaves_no_more_than_the_bound() -> None:
    """`ls -f`: the kernel takes names alone."""
    world = World(20_000)
    for first in range(100, 50_100, 1000):
        page = [entry(inode) for inode in range(first, first + 1000)]
        world.nodes.adopt_page(ROOT, page[0].name if first > 100 else b"", page, True, world.nodes.stamp(), NOW)
        world.bound.look()
        assert forgetting.known_bytes(world.nodes) <= world.policy.known_bytes * 5 // 4
    assert world.kernel.asked() == []


def test_control_names_stay() -> None:
    known = nodes()
    known.names(ROOT).entries[b".emberfs"] = (2**63, FOREVER)
    known.names(ROOT).complete_until = FOREVER
    forgetting.drop_names(known, 100)
    assert known.names(ROOT).entries == {b".emberfs": (2**63, FOREVER)}
    assert known.names(ROOT).complete_until == FOREVER


def test_the_kernel_is_not_asked_again_before_it_has_taken_it() -> None:
    world = World(100)
    listed(world.nodes, ROOT, range(10, 1000))
    world.kernel.busy = True
    world.bound.look()
    assert world.kernel.asked() == []
    world.kernel.busy = False
    world.bound.look()
    assert world.kernel.asked()


def test_what_programs_have_in_use_is_asked_for_less_and_less_often() -> None:
    world = World(100)
    listed(world.nodes, ROOT, range(10, 1000))
    asked_in = []
    for turn in range(10 * ROUNDS_LEFT_OUT_MAX):
        world.bound.look()
        if world.kernel.asked():
            asked_in.append(turn)
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked_in)]
    assert pauses == sorted(pauses)
    assert pauses[:4] == [1, 2, 4, 8] and pauses[-1] == ROUNDS_LEFT_OUT_MAX + 1

    world.forget(list(range(10, 1000)))
    world.bound.look()
    world.bound.look()
    listed(world.nodes, ROOT, range(2000, 3000))
    world.bound.look()
    assert world.kernel.asked(), "it begins anew"


def test_a_kernel_without_prune_is_told_that_names_of_files_are_wrong() -> None:
    world = World(100, prunes=False)
    listed(world.nodes, 2, range(10, 300))
    for inode in (11, 12):
        world.nodes.by_inode[inode].file = object()  # type: ignore[assignment]
    world.nodes.by_inode[13].attributes = entry(13, FileType.DIRECTORY).attributes
    world.bound.look()
    told = {int(name) for directory, name in world.kernel.names if directory == 2}
    assert told == set(range(10, 300)) - {11, 12, 13}
    assert not world.kernel.pruned


def test_names_that_such_a_kernel_loses_first_are_told_then() -> None:
    world = World(1000, prunes=False)
    listed(world.nodes, 2, range(10, 300))
    world.nodes.adopt_page(
        3,
        b"",
        [DirectoryEntry(b"%08d" % n, n, FileType.FILE) for n in range(5000, 9000)],
        False,
        world.nodes.stamp(),
        NOW,
    )
    world.kernel.busy = True
    world.bound.look()
    assert {int(name) for directory, name in world.kernel.names if directory == 2} == set(range(10, 300))


@pytest.mark.system
@needs_mount
def test_a_mount_forgets_what_it_listed(cluster: Any, mount: Any) -> None:
    """And what is in use stays: an open file, a directory that somebody is in, and what is looked at again."""
    count, directories = 1500, 4
    writer: Mounted = mount(cluster, "writer")
    top = writer.path / "many"
    for place in range(directories):
        (top / f"d{place}").mkdir(parents=True)
        first = top / f"d{place}" / "first"
        first.write_bytes(b"contents")
        for number in range(count):
            (top / f"d{place}" / f"f{number}").touch()
    small: Mounted = mount(cluster, "small", "known=1M")
    top = small.path / "many"

    def known() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((small.path / ".emberfs" / "stats").read_text())
        return found

    inside = os.open(top / "d0", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open(top / "d0" / "first", "rb") as file:
            for place in range(directories):
                with os.scandir(top / f"d{place}") as entries:
                    assert sum(found.stat(follow_symlinks=False).st_nlink for found in entries) == count + 1
            wait_until(lambda: known()["known_bytes"] <= 1 << 20, "no more is known than may be")
            assert known()["nodes"] < count, "of four times as many"
            assert file.read() == b"contents"
            assert os.readlink(f"/proc/self/fd/{inside}") == str(top / "d0")
            assert len(os.listdir(inside)) == count + 1
    finally:
        os.close(inside)
    for place in range(directories):
        assert (top / f"d{place}" / "first").read_bytes() == b"contents"
        assert (top / f"d{place}" / f"f{count - 1}").stat().st_size == 0
