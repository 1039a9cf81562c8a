"""What `emberfs status` makes of what the nodes say."""

import re

import pytest

from fs_client.cli.status import _print, _space_words
from fs_client.cli.took_long import put_slow
from fs_common.cluster_words import state_of, what_is_missing
from fs_common.records.routing import Chain, ChainTarget, NodeInfo, NodeState, PublicState, Routing
from fs_common.records.storage import SpaceInfoReply, TargetSpace, TargetTrouble

SERVING = PublicState.SERVING
CHAIN = Chain(1, 1, [ChainTarget(101, 1, SERVING), ChainTarget(201, 2, SERVING)])
ROUTING = Routing(1, "c", [NodeInfo(n, "h", 9, NodeState.UP) for n in (1, 2)], [CHAIN], [], 2)
FINE = SpaceInfoReply(100, 50, [TargetSpace(101, 1, 100, 7, 1)])
LOST = "the store of target 201 is lost (its directory is empty): put its disk back; it is not made anew"


def test_all_is_well() -> None:
    value = state_of(ROUTING, [FINE, FINE])
    assert value["healthy"] and value["troubles"] == [] and value["chains"][0]["state"] == "serving"


def test_a_target_that_does_not_serve_is_named_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    value = state_of(ROUTING, [FINE, SpaceInfoReply(100, 50, [], [TargetTrouble(201, LOST)])])
    assert not value["healthy"]
    assert value["troubles"] == [{"target": 201, "node": 2, "reason": LOST}]
    assert value["chains"][0]["state"] == "degraded"
    assert [target["state"] for target in value["chains"][0]["targets"]] == ["serving", "not serving"]
    assert what_is_missing(value) == ["target 201 does not serve", "chain 1 is degraded"]
    more = {
        "cluster": "c",
        "address": "h:1",
        "replicas": 2,
        "capacity_bytes": 2,
        "free_bytes": 1,
        "files": 1,
        "stored_bytes": 0,
    }
    more |= {"healing": [], "helps": [], "resting": False, "slow_operations": [], "certificates": []}
    more |= {"manager_silent": "", "configurations": []}
    _print(value | more | {"client_release": "1", "routing_version": 1})
    shown = capsys.readouterr().out
    assert "degraded" in shown and LOST in shown and "201 (not serving)" in shown


def test_what_should_be_looked_at_is_said_and_degrades_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    low = TargetTrouble(201, "target 201 is low on space")
    value = state_of(ROUTING, [FINE, SpaceInfoReply(100, 50, [], [], [low])])
    assert value["healthy"] and value["warnings"] == [{"target": 201, "node": 2, "reason": low.reason}]
    more = {
        "cluster": "c",
        "address": "h:1",
        "replicas": 2,
        "capacity_bytes": 2,
        "free_bytes": 1,
        "files": 1,
        "stored_bytes": 0,
    }
    more |= {"healing": [], "helps": [], "resting": False, "slow_operations": [], "certificates": []}
    more |= {"manager_silent": "", "configurations": []}
    _print(value | more | {"client_release": "1", "routing_version": 1})
    assert low.reason in capsys.readouterr().out


def test_a_chain_nobody_serves_is_offline() -> None:
    troubles = [TargetTrouble(101, "a"), TargetTrouble(201, "b")]
    value = state_of(ROUTING, [SpaceInfoReply(1, 1, [], troubles[:1]), SpaceInfoReply(1, 1, [], troubles[1:])])
    assert value["chains"][0]["state"] == "offline" and not value["healthy"]


def test_a_node_that_is_not_up_degrades_its_chains() -> None:
    nodes = [ROUTING.nodes[0], NodeInfo(2, "h", 9, NodeState.FAILED)]
    routing = Routing(1, "c", nodes, [CHAIN], [], 2)
    value = state_of(routing, [FINE, None])
    assert not value["healthy"] and value["chains"][0]["state"] == "degraded"


def test_a_node_that_is_not_used_and_one_that_is_drained_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [*ROUTING.nodes, NodeInfo(3, "h", 9, NodeState.UP), NodeInfo(4, "h", 9, NodeState.UP, drained=True)]
    value = state_of(Routing(1, "c", nodes, [CHAIN], [], 2), [FINE] * 4)
    assert value["healthy"] and [node["targets"] for node in value["nodes"]] == [1, 1, 0, 0]
    more = {
        "cluster": "c",
        "address": "h:1",
        "replicas": 2,
        "capacity_bytes": 2,
        "free_bytes": 1,
        "files": 1,
        "stored_bytes": 0,
    }
    more |= {"healing": [], "helps": [], "resting": False, "slow_operations": [], "certificates": []}
    more |= {"manager_silent": "", "configurations": []}
    _print(value | more | {"client_release": "1", "routing_version": 1})
    shown = capsys.readouterr().out
    assert shown.count("not used yet: `emberfs rebalance`") == 1 and shown.count("drained: it can be stopped") == 1


def test_a_target_that_joins_makes_no_chain_degraded() -> None:
    joined = Chain(1, 2, [*CHAIN.targets, ChainTarget(301, 3, PublicState.SYNCING)])
    nodes = [*ROUTING.nodes, NodeInfo(3, "h", 9, NodeState.UP)]
    assert state_of(Routing(1, "c", nodes, [joined], [], 2), [FINE] * 3)["healthy"]


def test_what_is_done_about_chains_is_shown_with_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    value = state_of(ROUTING, [FINE, FINE])
    more = {
        "cluster": "c",
        "address": "h:1",
        "replicas": 2,
        "capacity_bytes": 2,
        "free_bytes": 1,
        "files": 1,
        "stored_bytes": 0,
    }
    more |= {"client_release": "1", "routing_version": 1, "resting": True, "certificates": []}
    more |= {"manager_silent": "", "configurations": []}
    more |= {"slow_operations": []}
    many = [{"chain": number, "what": [f"words {number}."]} for number in range(1, 23)]
    _print(value | more | {"healing": many, "helps": ["bring back node 2: it has failed"]})
    shown = capsys.readouterr().out
    assert "words 20." in shown and "words 21." not in shown and "and 2 more chains" in shown
    assert "the cluster rests" in shown and "to do: bring back node 2" in shown


def test_what_the_manager_does_not_say_and_who_is_not_at_its_configuration_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = {
        "cluster": "c",
        "address": "h:1",
        "replicas": 2,
        "capacity_bytes": 2,
        "free_bytes": 1,
        "files": 1,
        "stored_bytes": 0,
    }
    more |= {"client_release": "1", "routing_version": 1, "resting": False, "certificates": []}
    more |= {"healing": [], "helps": [], "slow_operations": [], "manager_silent": "install emberfs[server]"}
    configurations = [{"node": node, "status": "dirty", "version": 3} for node in range(1, 13)]
    _print(state_of(ROUTING, [FINE] * 2) | more | {"configurations": configurations})
    shown = capsys.readouterr().out
    assert "what is done about chains is not known: install emberfs[server]" in shown
    assert "node 10 (dirty) and others: emberfs config status" in shown and "node 11" not in shown


def test_certificates_that_end_soon_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    more = {
        "cluster": "c",
        "address": "h:1",
        "replicas": 2,
        "capacity_bytes": 2,
        "free_bytes": 1,
        "files": 1,
        "stored_bytes": 0,
    }
    more |= {
        "healing": [],
        "helps": [],
        "resting": False,
        "slow_operations": [],
        "client_release": "1",
        "routing_version": 1,
        "manager_silent": "",
        "configurations": [],
    }
    certificates = [{"address": "h:9", "days_left": 3.2}, {"address": "h:10", "days_left": 300.0}]
    _print(state_of(ROUTING, [FINE] * 2) | more | {"certificates": certificates})
    shown = capsys.readouterr().out
    assert "emberfs certs rotate" in shown and "h:10 " not in shown
    assert re.search(r"h:9 +3 days left", shown)


def test_what_took_long_lately_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    one = {"server": "node 2", "operation": "update_chunks", "trace": "0001f2a3", "ended_s": 990.0, "took_ms": 1234.5}
    one |= {"about": "inode 7 chunk 0 chain 1", "times_ms": {"disk": 1200.0}, "peer": "client 127.0.0.1:1", "error": ""}
    put_slow([one, one | {"ended_s": 10.0, "trace": "00000001"}], now_s=1000.0)
    text = capsys.readouterr().out
    assert "node 2     10 s ago  update_chunks took 1,234 ms: inode 7 chunk 0 chain 1; disk 1200 ms" in text
    assert "trace 0001f2a3" in text and "00000001" not in text
    put_slow([one] * 9, now_s=1000.0)
    assert "and 4 more: emberfs status --json" in capsys.readouterr().out
    put_slow([], now_s=1000.0)
    assert capsys.readouterr().out == ""


def test_what_others_have_on_the_disks_is_told_apart() -> None:
    gib = 1 << 30
    value = {"capacity_bytes": 84 * gib, "free_bytes": 20 * gib, "stored_bytes": 0, "nodes": [{"answers": True}]}
    assert _space_words(value) == (
        "20 GiB free of 84 GiB; 0 B hold files, the other 64 GiB on the disks are not of this cluster's files"
    )
    value |= {"stored_bytes": 4 * gib, "nodes": [{"answers": True}, {"answers": False}]}
    assert "; at least 4.0 GiB hold files, the other 60 GiB on" in _space_words(value)
