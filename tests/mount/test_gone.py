"""Which directories are gone for the programs in them, and when that is known."""

from fs_client.fuse.gone import SEEN_MAX, Gone
from fs_client.fuse.nodes import Nodes
from fs_common.records.meta import Attributes, FileType

DIRECTORY, FILE, UNKNOWN = 7, 8, 9


def known() -> tuple[Nodes, Gone]:
    nodes = Nodes(1, 1.0, 1.0, 1.0)
    for inode, type_ in ((DIRECTORY, FileType.DIRECTORY), (FILE, FileType.FILE)):
        nodes.learn(Attributes(inode, type_, 0o755, 0, 0, 2, 0, 0, 0, 0), 0.0)
    return nodes, Gone(nodes)


def test_the_second_answer_to_a_thread_counts_and_then_for_all() -> None:
    nodes, gone = known()
    assert not gone.again(1, DIRECTORY)
    assert not gone.again(2, DIRECTORY), "it may have come by a name, too"
    assert not nodes.node(DIRECTORY).removed
    assert gone.again(1, DIRECTORY)
    assert nodes.node(DIRECTORY).removed
    assert gone.again(3, DIRECTORY)


def test_files_and_what_is_not_known_stay_stale() -> None:
    _, gone = known()
    for inode in (FILE, UNKNOWN):
        assert not any(gone.again(1, inode) for _ in range(3))


def test_what_is_remembered_is_bounded() -> None:
    _, gone = known()
    assert not gone.again(0, DIRECTORY)
    for pid in range(1, SEEN_MAX + 1):
        assert not gone.again(pid, DIRECTORY)
    assert not gone.again(0, DIRECTORY), "forgotten"
    assert gone.again(SEEN_MAX, DIRECTORY)
