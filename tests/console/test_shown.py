"""What the console is told of a cluster, and that it is told in the words of the command line."""

import json
from typing import Any

import msgspec

from fs_common.chain_words import as_json
from fs_common.cluster_words import state_of, what_is_missing
from fs_meta.http.history import Piece
from fs_meta.http.shown import events_of, piece_of
from tests.console.played import observation


def test_a_cluster_that_is_well_says_so_in_one_word() -> None:
    events = events_of(observation())
    cluster = events["cluster"]
    assert cluster["health"] == "healthy" and cluster["missing"] == [] and cluster["helps"] == []
    assert cluster["chain_states"] == {"serving": 3} and cluster["nodes_up"] == 3
    assert [node["silent_ms"] for node in events["nodes"]] == [300, 300, 300]
    assert events["nodes"][0]["read_bytes"] == 100_000_000 and events["nodes"][0]["writes"] == 0


def test_what_is_missing_is_said_as_the_command_line_says_it() -> None:
    seen = observation(failed=frozenset((2,)))
    cluster = events_of(seen)["cluster"]
    assert cluster["health"] == "degraded"
    assert cluster["missing"] == what_is_missing(state_of(seen.routing, seen.spaces))
    assert seen.chains is not None
    words = {chain["chain"]: chain["what"] for chain in as_json(seen.chains)["chains"]}
    assert {each["chain"]: each["what"] for each in cluster["healing"]} == words
    assert cluster["helps"] == ["bring back node 2: node 2 has failed"]


def test_a_target_that_is_filled_up_has_its_progress() -> None:
    chains = events_of(observation(syncing=frozenset((3,))))["chains"]
    (target,) = [target for target in chains[1]["targets"] if "fills" in target]
    assert target["node"] == 3 and target["state"] == "syncing"
    assert (target["fills"]["done"], target["fills"]["total"]) == (61, 120)
    assert "61 of 120 chunks compared" in target["fills"]["words"]


def test_a_chain_nobody_serves_makes_the_cluster_offline() -> None:
    events = events_of(observation(nodes=1, chains=1, failed=frozenset((1,)), manages=False))
    assert events["cluster"]["health"] == "offline" and not events["cluster"]["manages"]


def test_before_the_first_chain_a_cluster_starts() -> None:
    cluster = events_of(observation(nodes=2, chains=0))["cluster"]
    assert cluster["health"] == "starting" and cluster["missing"] == ["there is no chain yet"]


def test_a_target_that_does_not_serve_is_a_trouble_with_its_reason() -> None:
    events = events_of(observation(troubles=1))
    assert events["cluster"]["troubles"] == [{"target": 1001, "node": 1, "reason": "its disk has failed"}]
    assert events["cluster"]["health"] == "degraded"


def test_clients_that_follow_are_mounts() -> None:
    clients = events_of(observation(clients=3))["clients"]
    assert [(client["kind"], client["host"], client["for_s"]) for client in clients] == [
        ("mount", "trainer-0.example", 0),
        ("program", "trainer-1.example", 60),
        ("mount", "trainer-2.example", 120),
    ]
    assert all(len(client["client"]) == 8 for client in clients), "the whole id is a secret of the client"


def test_operations_are_those_that_happen_the_busiest_first() -> None:
    operations = events_of(observation())["operations"]
    assert operations == [
        {"operation": "stat", "calls": 120, "errors": 1},
        {"operation": "create", "calls": 3.5, "errors": 0},
    ]


def test_of_a_large_cluster_little_is_said_often() -> None:
    events: dict[str, Any] = events_of(
        observation(nodes=200, chains=2000, failed=frozenset((7,)), clients=900, moves=600)
    )
    sizes = {name: len(msgspec.json.encode(value)) for name, value in events.items() if name != "chains"}
    assert sizes["nodes"] < 80_000 and sizes["cluster"] < 12_000 and sizes["clients"] < 80_000
    assert sum(len(msgspec.json.encode(chain)) for chain in events["chains"].values()) < 500_000
    assert len(events["moves"]) == 500
    assert "used_bytes" not in events["chains"][1]["targets"][0]


def test_samples_are_seconds_before_now_and_gaps_stay_gaps() -> None:
    piece = Piece(5, [90.0, 93.04], {"reads": [None, 1234.567], "used_bytes": [3.0, 2.0]})
    value = piece_of(piece, 100.0)
    assert value["first"] == 5 and value["age_s"] == [10.0, 7.0]
    assert json.dumps(value["series"]) == '{"reads": [null, 1235], "used_bytes": [3, 2]}'
