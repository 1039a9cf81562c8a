"""What the daemon believes, for how long, and in which order answers and changes count."""

import sys
from types import SimpleNamespace

from fs_client.fuse.following import Following
from fs_client.fuse.nodes import FOREVER, Nodes
from fs_common import methods
from fs_common.records.following import Promised
from fs_common.records.meta import Attributes, DirectoryEntry, FileType

ROOT = 1


def attributes(inode: int, length: int = 0, links: int = 1, type_: FileType = FileType.FILE) -> Attributes:
    return Attributes(inode, type_, 0o644, 0, 0, links, length, 0, 0, 0)


def page(*names: bytes, first_inode: int = 10) -> list[DirectoryEntry]:
    return [
        DirectoryEntry(name, first_inode + place, FileType.FILE, attributes(first_inode + place))
        for place, name in enumerate(names)
    ]


def nodes() -> Nodes:
    return Nodes(ROOT, attribute_s=1.0, name_s=1.0, absent_s=1.0)


def unchanging() -> Nodes:
    return Nodes(ROOT, attribute_s=1.0, name_s=1.0, absent_s=1.0, listings_exclude=True)


def test_an_answer_is_believed_for_its_time() -> None:
    known = nodes()
    node = known.adopt(attributes(7, 5), known.stamp(), now=100.0)
    assert node.attributes is not None and node.attributes.length == 5
    assert node.expires == 101.0


def test_an_answer_older_than_a_change_here_is_not_adopted() -> None:
    known = nodes()
    known.adopt(attributes(7, 5), known.stamp(), now=100.0)
    before = known.stamp()
    known.change(7)
    assert known.node(7).expires < 100.0
    known.adopt(attributes(7, 6), before, now=100.1)
    assert known.node(7).expires < 100.0
    known.adopt(attributes(7, 8), known.stamp(), now=100.2)
    assert known.node(7).attributes == attributes(7, 8)
    assert known.node(7).expires == 101.2


def test_the_answer_to_a_change_is_newer_than_all_that_are_on_their_way() -> None:
    known = nodes()
    on_its_way = known.stamp()
    known.learn(attributes(7, 9), now=100.0)
    known.adopt(attributes(7, 1), on_its_way, now=100.5)
    assert known.node(7).attributes == attributes(7, 9)


def test_a_dropped_node_does_not_come_back_older() -> None:
    known = nodes()
    on_its_way = known.stamp()
    known.learn(attributes(7, 9), now=100.0)
    known.node(7).lookups = 1
    known.forget(7, 1, now=102.0)
    known.sweep(now=103.0)
    assert 7 not in known.by_inode
    assert known.adopt(attributes(7, 1), on_its_way, now=104.0).expires < 104.0


def test_nodes_stay_while_the_kernel_refers_to_them() -> None:
    known = nodes()
    node = known.adopt(attributes(7), known.stamp(), now=100.0)
    node.lookups = 2
    known.forget(7, 1, now=100.0)
    known.sweep(now=200.0)
    assert 7 in known.by_inode
    known.forget(7, 1, now=200.0)
    known.sweep(now=201.0)
    assert 7 not in known.by_inode


def test_what_a_listing_lacks_is_asked_for() -> None:
    """Another machine may have made it since, and told the program that looks."""
    known = nodes()
    known.adopt_page(ROOT, b"", page(b"a", b"c"), False, known.stamp(), now=100.0)
    assert known.find(ROOT, b"a", 100.5) == (10, 101.0)
    assert known.find(ROOT, b"b", 100.5) is None
    known.adopt_page(ROOT, b"c", page(b"d", b"f"), True, known.stamp(), now=100.0)
    assert known.find(ROOT, b"e", 100.5) is None


def test_a_page_of_what_does_not_change_answers_absence_too() -> None:
    known = unchanging()
    known.adopt_page(ROOT, b"", page(b"a", b"c"), False, known.stamp(), now=100.0)
    assert known.find(ROOT, b"a", 100.5) == (10, 101.0)
    assert known.find(ROOT, b"b", 100.5) == (0, 101.0)
    assert known.find(ROOT, b"b", 101.5) is None


def test_part_of_a_directory_answers_only_for_that_part() -> None:
    known = unchanging()
    known.adopt_page(ROOT, b"c", page(b"d", b"f"), True, known.stamp(), now=100.0)
    assert known.find(ROOT, b"e", 100.5) == (0, 101.0)
    assert known.find(ROOT, b"c", 100.5) is None, "the page begins behind it"
    assert known.find(ROOT, b"g", 100.5) is None, "more follows"
    known.adopt_page(ROOT, b"f", page(b"h"), False, known.stamp(), now=100.0)
    assert known.find(ROOT, b"zz", 100.5) == (0, 101.0)


def test_a_page_that_a_change_overtook_says_nothing_about_names() -> None:
    known = nodes()
    before = known.stamp()
    known.change(ROOT)
    known.put_name(ROOT, b"new", 42, 100.0)
    known.adopt_page(ROOT, b"", page(b"a"), False, before, now=100.1)
    assert known.find(ROOT, b"new", 100.2) == (42, 101.0)
    assert known.find(ROOT, b"other", 100.2) is None


def test_of_two_changes_at_once_neither_answer_is_believed() -> None:
    """The service may have made them in either order, whatever the order of the answers."""
    known = nodes()
    closing = known.change(7)
    setting = known.change(7)
    assert known.learn(attributes(7, 1), 100.0, setting).expires == 101.0, "it began last and nothing came between"
    assert known.learn(attributes(7, 2), 100.1, closing).expires < 100.1
    closing = known.change(7)
    setting = known.change(7)
    assert known.learn(attributes(7, 2), 100.2, closing).expires < 100.2
    assert known.learn(attributes(7, 1), 100.3, setting).expires < 100.3
    alone = known.change(7)
    assert known.learn(attributes(7, 1), 100.4, alone).expires == 101.4


def test_a_dropped_name_is_asked_for() -> None:
    known = unchanging()
    known.adopt_page(ROOT, b"", page(b"a"), False, known.stamp(), now=100.0)
    known.drop_name(ROOT, b"a")
    assert known.find(ROOT, b"a", 100.6) is None and known.find(ROOT, b"y", 100.6) is None


def test_a_name_that_shows_again_revives_a_removed_inode() -> None:
    known = nodes()
    node = known.learn(attributes(7), now=100.0)
    node.removed, node.expires = True, FOREVER
    known.adopt(attributes(7, links=1), known.stamp(), now=100.0)
    assert not node.removed


def test_what_was_removed_is_forgotten_with_its_last_reference() -> None:
    """Its attributes are believed for ever, as nobody can change them; not longer than somebody can ask."""
    known = nodes()
    for inode, type_ in ((7, FileType.FILE), (8, FileType.DIRECTORY)):
        node = known.learn(attributes(inode, type_=type_), now=100.0)
        node.lookups = 1
        known.promise_names(inode, known.stamp())
        node.removed, node.expires = True, FOREVER
    known.sweep(now=100.5)
    assert known.by_inode.keys() == {ROOT, 7, 8}
    known.forget(7, 1, now=101.0)
    known.forget(8, 1, now=101.0)
    known.sweep(now=101.0)
    assert known.by_inode.keys() == {ROOT}


def test_an_inode_that_was_only_changed_is_forgotten() -> None:
    """One that is removed without the kernel's having looked it up, say. Answers from before stay old."""
    known = nodes()
    before = known.stamp()
    known.change(7)
    known.node(8).removed = True
    known.sweep(now=100.0)
    assert known.by_inode.keys() == {ROOT}
    assert not known.fresh(known.adopt(attributes(7), before, 100.0), 100.0)


def test_names_that_do_not_exist_are_forgotten_when_they_are_not_asked_for() -> None:
    known = leased()
    known.promise_names(ROOT, known.stamp())
    for name in (b"a", b"b", b"c"):
        known.put_name(ROOT, name, 0, 100.0)
    known.put_name(ROOT, b"c", 7, 100.5)
    known.sweep(now=100.9)
    assert known.find(ROOT, b"a", 100.9) == (0, 101.0)
    assert known.find(ROOT, b"b", 101.5) == (0, 102.5), "promised: believed anew"
    known.sweep(now=102.0)
    assert known.names(ROOT).entries == {b"b": (0, 102.5), b"c": (7, 101.5)}
    known.sweep(now=103.0)
    assert known.names(ROOT).entries.keys() == {b"c"}


def test_a_directory_stays_believed_through_changes_of_its_names_here() -> None:
    known = nodes()
    directory = attributes(50, type_=FileType.DIRECTORY, links=2)
    known.adopt(directory, known.stamp(), now=100.0)
    before = known.stamp()
    known.change_names(50)
    known.touched(50, 7, 100.2, known.stamp())
    node = known.node(50)
    assert node.expires == 101.0, "as long as before, and no longer"
    assert node.attributes is not None
    assert (node.attributes.mtime_ns, node.attributes.ctime_ns) == (7, 7)
    known.adopt(directory, before, now=100.5)
    assert node.attributes.mtime_ns == 7, "what was asked before the change is older"
    known.adopt_page(50, b"", page(b"a"), False, before, now=100.5)
    assert known.find(50, b"b", 100.6) is None


def directory(links: int) -> Attributes:
    return attributes(50, type_=FileType.DIRECTORY, links=links)


def links_of(known: Nodes) -> int:
    found = known.node(50).attributes
    assert found is not None
    return found.links


def began(known: Nodes) -> int:
    """This mount begins to change names of the directory."""
    known.change_names(50)
    return known.stamp()


def test_no_number_of_links_is_derived_from_one_that_may_be_old() -> None:
    """Others may have made and removed subdirectories since."""
    known = nodes()
    known.adopt(directory(links=2), known.stamp(), now=100.0)
    known.touched(50, 7, 100.1, began(known), links=-1)
    assert links_of(known) == 2 and not known.fresh(known.node(50), 100.1), "nothing was promised"
    known = leased()
    known.adopt(directory(links=4), known.stamp(), 100.0, SURE)
    known.told([50], [])
    known.touched(50, 7, 100.1, began(known), links=-1)
    assert links_of(known) == 4 and not known.fresh(known.node(50), 100.1)
    known.adopt(directory(links=4), known.stamp(), 100.0, SURE)
    known.change(50)
    known.touched(50, 7, 100.1, began(known), links=-1)
    assert links_of(known) == 4 and not known.fresh(known.node(50), 100.1), "a change of its own has made it old"


def test_subdirectories_that_are_made_and_removed_side_by_side_are_counted_once_each() -> None:
    known = leased()
    known.adopt(directory(links=2), known.stamp(), 100.0, SURE)
    first, second = began(known), began(known)
    known.touched(50, 7, 100.1, second, links=1, exact=True)
    known.touched(50, 7, 100.2, first, links=1, exact=True)
    assert links_of(known) == 4
    known.touched(50, 7, 100.3, began(known), links=-1)
    assert links_of(known) == 3 and known.fresh(known.node(50), 100.3)


def test_a_directory_is_promised_on_while_only_this_mount_makes_subdirectories() -> None:
    known = leased()
    known.adopt(directory(links=2), known.stamp(), 100.0, SURE)
    known.touched(50, 7, 100.1, began(known), links=1, exact=True)
    assert links_of(known) == 3 and known.fresh(known.node(50), 109.0)
    known.touched(50, 7, 109.0, began(known), links=-1)
    assert not known.certain(known.node(50), 109.1), "the time is not the service's"


def test_a_change_that_an_answer_may_have_is_not_counted_on_top_of_it() -> None:
    """The service looks behind the change, and that answer comes first."""
    known = leased()
    known.adopt(directory(links=2), known.stamp(), 100.0, SURE)
    sent = began(known)
    known.adopt(directory(links=3), known.stamp(), 100.1, SURE)
    known.touched(50, 7, 100.2, sent, links=1)
    assert links_of(known) == 3 and not known.fresh(known.node(50), 100.3)


# Promises: ATTRIBUTES and NAMES of an answer

SURE = Promised.ATTRIBUTES | Promised.NAMES


def leased(until: float = 110.0) -> Nodes:
    known = nodes()
    known.believed_until = until
    return known


def test_promised_attributes_are_believed_until_told() -> None:
    known = leased()
    node = known.adopt(attributes(7, 5), known.stamp(), 100.0, SURE)
    assert known.fresh(node, 105.0) and node.expires == 106.0, "the kernel is told the same bounded time as ever"
    known.told([7], [])
    assert not known.fresh(node, 105.1)


def test_promises_end_with_the_lease_and_come_back_with_it() -> None:
    known = leased(until=104.0)
    node = known.adopt(attributes(7, 5), known.stamp(), 100.0, SURE)
    assert known.fresh(node, 103.9) and node.expires == 104.0, "no longer than the lease"
    assert not known.fresh(node, 104.5)
    known.believed_until = 120.0
    assert known.fresh(node, 110.0), "nobody has been told otherwise meanwhile"
    known.lost()
    known.believed_until = 130.0
    assert not known.fresh(node, 120.0)


def test_a_promise_that_crosses_news_or_a_loss_is_none() -> None:
    known = leased()
    before = known.stamp()
    known.told([7], [])
    assert not known.fresh(known.adopt(attributes(7, 5), before, 100.0, SURE), 100.1)
    before = known.stamp()
    known.lost()
    known.believed_until = 110.0
    node = known.adopt(attributes(8, 5), before, 100.0, SURE)
    assert known.fresh(node, 100.5) and not known.fresh(node, 101.5), "believed like any answer"
    known.adopt_page(ROOT, b"", page(b"a"), False, before, 100.0, SURE)
    assert known.find(ROOT, b"b", 100.5) is None


def test_an_own_change_without_promise_ends_the_one_before() -> None:
    known = leased()
    known.adopt(attributes(7, 5), known.stamp(), 100.0, SURE)
    node = known.learn(attributes(7, 6), 100.0, known.change(7))
    assert known.fresh(node, 100.5) and not known.fresh(node, 101.5)
    node = known.learn(attributes(7, 7), 102.0, known.change(7), promised=SURE)
    assert known.fresh(node, 109.0)


def test_a_change_whose_outcome_is_not_known_ends_all_promises() -> None:
    known = leased()
    node = known.adopt(attributes(7, 5), known.stamp(), 100.0, SURE)
    following = Following(SimpleNamespace(nodes=known, now=lambda: 100.0))  # type: ignore[arg-type]
    following.unsure(methods.LOOKUP)
    assert known.certain(node, 100.0)
    following.unsure(methods.SET_ATTR)
    assert not known.certain(node, 100.0)


def test_an_own_change_that_another_crossed_is_not_promised() -> None:
    known = leased()
    first = known.change(7)
    known.change(7)
    assert not known.fresh(known.learn(attributes(7, 6), 100.0, first, promised=SURE), 100.1)


def test_what_this_mount_has_made_is_promised_unless_news_crossed_it() -> None:
    known = leased()
    before = known.stamp()
    assert known.fresh(known.learn(attributes(7), 100.0, promised=SURE, new_since=before), 109.0)
    known.told([8], [])
    assert not known.fresh(known.learn(attributes(8), 100.0, promised=SURE, new_since=before), 109.0)


def test_promised_names_are_believed_and_a_whole_listing_says_what_is_not_there() -> None:
    known = leased()
    known.adopt_page(ROOT, b"", page(b"a", b"c"), True, known.stamp(), 100.0, SURE)
    assert known.find(ROOT, b"a", 105.0) == (10, 106.0)
    assert known.find(ROOT, b"b", 105.0) is None, "more follows"
    known.adopt_page(ROOT, b"c", page(b"d"), False, known.stamp(), 105.0, SURE)
    assert known.find(ROOT, b"b", 107.0) == (0, 108.0)
    assert known.certainly_absent(ROOT, b"b", 107.0) and not known.certainly_absent(ROOT, b"a", 107.0)
    known.put_name(ROOT, b"b", 42, 107.0)
    known.put_name(ROOT, b"a", 0, 107.0)
    assert known.find(ROOT, b"b", 109.0) == (42, 110.0) and known.find(ROOT, b"a", 109.0) == (0, 110.0)
    known.told([], [ROOT])
    assert known.find(ROOT, b"b", 109.0) is None and known.find(ROOT, b"zz", 109.0) is None


def test_a_directory_is_listed_from_memory_while_that_is_certain() -> None:
    known = leased()
    assert known.listing(ROOT, 100.0) is None
    known.adopt_page(ROOT, b"", page(b"a", b"c"), False, known.stamp(), 100.0, SURE)
    known.learn(attributes(42), 101.0)
    known.put_name(ROOT, b"b", 42, 101.0)
    known.put_name(ROOT, b"a", 0, 101.0)
    listed = known.listing(ROOT, 109.0)
    assert listed is not None and [(entry.name, entry.inode) for entry in listed] == [(b"b", 42), (b"c", 11)]
    assert known.listing(ROOT, 111.0) is None, "the lease is over"
    known.put_name(ROOT, b"d", 77, 101.0)
    assert known.listing(ROOT, 109.0) is None, "of this one nothing is known"
    known.told([], [ROOT])
    assert known.listing(ROOT, 109.0) is None


def test_a_listing_with_a_gap_or_across_a_change_is_not_whole() -> None:
    known = leased()
    known.adopt_page(ROOT, b"", page(b"a"), True, known.stamp(), 100.0, SURE)
    known.adopt_page(ROOT, b"m", page(b"n"), False, known.stamp(), 100.0, SURE)
    assert known.find(ROOT, b"f", 105.0) is None
    known.adopt_page(ROOT, b"", page(b"a"), True, known.stamp(), 100.0, SURE)
    before = known.stamp()
    known.change_names(ROOT)
    known.adopt_page(ROOT, b"a", page(b"n"), False, before, 100.0, SURE)
    assert known.find(ROOT, b"f", 105.0) is None


def test_names_from_before_the_promise_are_not_covered_by_it() -> None:
    known = leased()
    known.put_name(ROOT, b"old", 9, 100.0)
    known.promise_names(ROOT, known.stamp())
    assert known.find(ROOT, b"old", 100.1) is None


def test_a_new_directory_has_no_names() -> None:
    known = leased()
    known.promise_names(50, known.stamp(), empty=True)
    assert known.find(50, b"any", 105.0) == (0, 106.0)
    known.drop_name(50, b"what it is now nobody knows")
    assert known.find(50, b"any", 105.0) is None


def test_a_change_of_who_knows_what_ends_all_promises_of_attributes() -> None:
    known = leased()
    node = known.adopt(attributes(7, 5), known.stamp(), 100.0, SURE)
    known.adopt_page(ROOT, b"", page(b"a"), False, known.stamp(), 100.0, SURE)
    known.doubt()
    assert not known.fresh(node, 105.0)
    assert known.find(ROOT, b"a", 105.0) is not None, "names are another matter"
    assert known.fresh(known.adopt(attributes(7, 5), known.stamp(), 105.0, SURE), 109.0)


def test_tables_shrink_and_keep_what_is_in_them() -> None:
    known = nodes()
    directory = known.learn(attributes(2, type_=FileType.DIRECTORY), now=100.0)
    directory.lookups = 1
    for number in range(5000):
        known.learn(attributes(10 + number), now=100.0)
        known.put_name(2, b"%d" % number, 10 + number, 100.0)
    assert directory.directory is not None
    names, by_inode = directory.directory.entries, known.by_inode
    large = sys.getsizeof(names), sys.getsizeof(by_inode)
    for number in range(4990):
        known.drop_name(2, b"%d" % number)
    known.sweep(now=200.0)
    left = dict(names), dict(by_inode)
    known.compact()
    assert (names, by_inode) == left and known.by_inode is by_inode
    assert sys.getsizeof(names) * 10 < large[0] and sys.getsizeof(by_inode) * 10 < large[1]
