"""Who is in the cluster: pure, with time as an argument."""

import pytest

from fs_common.errors import Code, EmberError
from fs_common.records.routing import LocalState, NodeState
from fs_meta.manager.chains import Report
from fs_meta.manager.membership import Beat, Identity, Membership, TargetReport
from fs_meta.manager.records import Node

LEASE_MS = 8_000
FAILURE_MS = 10_000
ONE = Identity(1, "host-a", 9710, "0.1.0", 111)
BEAT = Beat(1000, 10, {101: TargetReport(Report(LocalState.UPTODATE, 1), 5)}, 0)


def membership() -> Membership:
    return Membership(LEASE_MS, FAILURE_MS)


def up(*identities: Identity, now_ms: int = 0) -> Membership:
    """With a stream each."""
    state = membership()
    for identity in identities:
        state.heartbeat(identity, BEAT, now_ms)
        state.stream_opened(identity)
    return state


def state_of(members: Membership, node: int = 1) -> NodeState:
    return members.members[node].state


def refusal(members: Membership, identity: Identity, now_ms: int = 1) -> EmberError:
    before = members.members.get(identity.node)
    with pytest.raises(EmberError) as refused:
        members.heartbeat(identity, BEAT, now_ms)
    assert members.members.get(identity.node) is before
    return refused.value


def test_the_first_heartbeat_registers() -> None:
    members = up(ONE)
    member = members.members[1]
    assert (member.state, member.identity, member.capacity_bytes, member.used_bytes) == (NodeState.UP, ONE, 1000, 10)
    assert member.targets[101].report == Report(LocalState.UPTODATE, 1)
    info = member.info()
    assert (info.node, info.host, info.port, info.state, info.release) == (1, "host-a", 9710, NodeState.UP, "0.1.0")
    assert member.record() == Node(1, "host-a", 9710, NodeState.UP, 111, 1000, "0.1.0")


def test_silence_fails_a_node_at_the_failure_time_and_not_before() -> None:
    members = up(ONE)
    members.heartbeat(ONE, BEAT, 500)
    assert members.expire(500 + FAILURE_MS - 1) == []
    assert state_of(members) is NodeState.UP
    assert [member.identity for member in members.expire(500 + FAILURE_MS)] == [ONE]
    assert state_of(members) is NodeState.FAILED
    assert members.members[1].targets == {}, "nothing is known of its targets any more"
    assert members.expire(500 + 2 * FAILURE_MS) == []


def test_a_failed_node_that_speaks_again_is_up() -> None:
    members = up(ONE)
    members.expire(FAILURE_MS)
    members.heartbeat(ONE, BEAT, FAILURE_MS + 1)
    assert state_of(members) is NodeState.UP
    assert members.expire(FAILURE_MS + 2) == []


def test_a_heartbeat_that_comes_late_is_no_news() -> None:
    members = up(ONE)
    lacking = BEAT._replace(targets={101: TargetReport(Report(LocalState.ONLINE, 1, False), 5)}, sent_ms=70)
    members.heartbeat(ONE, BEAT._replace(sent_ms=80), 500)
    with pytest.raises(EmberError) as late:
        members.heartbeat(ONE, lacking, 600)
    assert late.value.code is Code.CLOSING
    member = members.members[1]
    assert member.targets == BEAT.targets and member.heard_ms == 500
    restarted = ONE._replace(incarnation=222)
    members.stream_closed(ONE)
    assert members.heartbeat(restarted, lacking, 700).targets == lacking.targets, "another process, another clock"


def test_a_second_process_is_refused_while_the_first_may_be_alive() -> None:
    members = up(ONE)
    for second in (ONE._replace(incarnation=222), ONE._replace(incarnation=222, host="host-b")):
        error = refusal(members, second)
        assert error.code is Code.NODE_TAKEN
        assert "node 1 runs already at host-a:9710" in str(error)
    members.stream_closed(ONE)
    assert refusal(members, ONE._replace(incarnation=222, port=9711)).code is Code.NODE_TAKEN


def test_a_restarted_process_on_the_same_port_takes_over_once_the_stream_is_gone() -> None:
    members = up(ONE)
    members.stream_closed(ONE)
    again = ONE._replace(incarnation=222, release="0.2.0")
    members.heartbeat(again, BEAT, 5)
    assert members.members[1].identity == again
    for _ in range(2):
        assert refusal(members, ONE).code is Code.NODE_TAKEN, "the first one does not come back"
        members.expire(5 + FAILURE_MS)


@pytest.mark.parametrize("gone", ["silence", "refused port", "left"])
def test_a_restarted_process_elsewhere_takes_over_once_the_first_is_gone(gone: str) -> None:
    members = up(ONE)
    moved = Identity(1, "host-b", 1234, "0.1.0", 222)
    match gone:
        case "silence":
            members.expire(FAILURE_MS)
        case "refused port":
            members.stream_closed(ONE)
            assert members.gone(ONE)
        case "left":
            members.leave(ONE)
    members.heartbeat(moved, BEAT, 6)
    assert members.members[1].identity == moved and state_of(members) is NodeState.UP
    members.stream_closed(ONE)  # of the first, noticed late
    members.stream_opened(moved)
    assert members.suspects() == []


def test_only_nodes_without_a_stream_are_suspects() -> None:
    two = Identity(2, "host-b", 9710, "0.1.0", 5)
    members = up(ONE, two)
    assert members.suspects() == []
    members.stream_opened(ONE)  # it reconnects before the old stream is seen to end
    members.stream_closed(ONE)
    assert members.suspects() == []
    members.stream_closed(ONE)
    assert [member.identity for member in members.suspects()] == [ONE]
    members.expire(FAILURE_MS)
    assert members.suspects() == []


def test_a_refused_port_counts_only_for_the_process_that_was_looked_at() -> None:
    members = up(ONE)
    assert not members.gone(ONE), "its stream is there"
    members.stream_closed(ONE)
    again = ONE._replace(incarnation=222)
    members.heartbeat(again, BEAT, 5)
    assert not members.gone(ONE), "a new process has taken over"
    assert state_of(members) is NodeState.UP
    members.stream_opened(again)
    members.stream_closed(again)
    assert members.gone(again) and state_of(members) is NodeState.FAILED
    assert not members.gone(again)


def test_leaving_is_final_for_a_process_and_can_be_said_twice() -> None:
    members = up(ONE)
    members.leave(ONE)
    members.leave(ONE)
    assert state_of(members) is NodeState.LEFT
    assert refusal(members, ONE).code is Code.NODE_UNKNOWN
    assert members.expire(10 * FAILURE_MS) == []
    members.heartbeat(ONE._replace(incarnation=222), BEAT, 5)
    assert state_of(members) is NodeState.UP


def test_goodbyes_of_strangers_are_refused() -> None:
    members = up(ONE)
    for identity, code in ((ONE._replace(node=9), Code.NODE_UNKNOWN), (ONE._replace(incarnation=2), Code.NODE_TAKEN)):
        with pytest.raises(EmberError) as refused:
            members.leave(identity)
        assert refused.value.code is code
    assert state_of(members) is NodeState.UP


def test_a_node_from_the_store_has_a_whole_failure_time() -> None:
    members = membership()
    members.restore(Node(1, "host-a", 9710, NodeState.UP, 111, 7, "0.1.0"), 50_000)
    members.restore(Node(2, "host-b", 9710, NodeState.LEFT, 112, 7, "0.1.0"), 50_000)
    assert members.expire(50_000 + FAILURE_MS - 1) == []
    members.heartbeat(ONE, BEAT, 50_000 + FAILURE_MS - 1)
    assert members.expire(50_000 + FAILURE_MS) == []
    assert [state_of(members, node) for node in (1, 2)] == [NodeState.UP, NodeState.LEFT]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"node": 0}, "node id 0"),
        ({"incarnation": 0}, "incarnation"),
        ({"host": ""}, "host ''"),
        ({"host": "a..b"}, "host 'a..b'"),
        ({"host": "."}, "host '.'"),
        ({"host": "a b"}, "host 'a b'"),
        ({"host": "-a"}, "host '-a'"),
        ({"host": "b\u00fccher"}, "host 'b\u00fccher'"),
        ({"host": "x" * 64}, "neither an address nor a name"),
        ({"host": "x." * 127}, "neither an address nor a name"),
        ({"host": "x" * 100_000}, "neither an address nor a name"),
        ({"host": "1.2.3.4:9710"}, "neither an address nor a name"),
        ({"host": "a\nb"}, "neither an address nor a name"),
        ({"port": 0}, "port 0"),
        ({"port": 65_536}, "port 65536"),
    ],
)
def test_bad_identities_are_refused(change: dict[str, int | str], names: str) -> None:
    error = refusal(membership(), ONE._replace(**change))  # type: ignore[arg-type]
    assert error.code is Code.INVALID and names in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "node-7.rack_3.example.org",
        "node7.example.org.",
        "10.0.0.1",
        "::1",
        "fe80::1%eth0",
        "xn--bcher-kva",
    ],
)
def test_addresses_and_names_are_hosts(host: str) -> None:
    members = membership()
    members.heartbeat(ONE._replace(host=host), BEAT, 0)
    assert members.members[1].identity.host == host
