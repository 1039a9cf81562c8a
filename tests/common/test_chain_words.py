"""What is said of chains that are not as they should be."""

import pytest

from fs_common.chain_words import as_json, progress, seconds_left, state_of_chain, what_happens, what_helps
from fs_common.records.chains import ChainView, ListChainsReply, Standing, SyncProgress, TargetView
from fs_common.records.routing import PublicState

S, L, Y, W, O = (
    PublicState.SERVING,
    PublicState.LASTSRV,
    PublicState.SYNCING,
    PublicState.WAITING,
    PublicState.OFFLINE,
)
ABLE, LACKING, HELD, DEAD = Standing.ABLE, Standing.LACKING, Standing.HELD, Standing.DEAD


def chain(*targets: tuple[PublicState, Standing, str], sync: SyncProgress | None = None) -> ChainView:
    """Targets 101, 201, ... in this order; the last that serves fills."""
    views = [
        TargetView(100 * n + 1, n, state, standing, reason, 7, None)
        for n, (state, standing, reason) in enumerate(targets, 1)
    ]
    if sync is not None:
        place = max(n for n, view in enumerate(views) if view.state is S)
        old = views[place]
        views[place] = TargetView(old.target, old.node, old.state, old.standing, old.reason, old.used_bytes, sync)
    return ChainView(5, 9, views)


FINE = (S, ABLE, "")
FAILED = (O, DEAD, "node 3 has failed")


def test_a_chain_that_is_well_needs_no_words() -> None:
    assert what_happens(chain(FINE, FINE)) == [] and state_of_chain(chain(FINE, FINE)) == "serving"
    assert what_helps(ListChainsReply(1, [chain(FINE, FINE)], False)) == []


def test_who_is_missing_is_named_with_the_node_to_bring_back() -> None:
    view = chain(FINE, FINE, FAILED)
    assert state_of_chain(view) == "degraded"
    assert what_happens(view) == ["target 301 on node 3 is missing: node 3 has failed"]
    assert what_helps(ListChainsReply(1, [view, view], False)) == ["bring back node 3: node 3 has failed"]


def test_who_is_filled_up_is_shown_with_the_time_that_is_left() -> None:
    view = chain(FINE, FINE, (Y, ABLE, ""), sync=SyncProgress(301, 60, 120, 40, 12 << 20, 10_000))
    assert what_happens(view) == [
        "target 301 on node 3 is filled up by target 201: 60 of 120 chunks compared, 12 MiB sent, about 10 s left"
    ]
    (target,) = [one for one in as_json(ListChainsReply(1, [view], False))["chains"][0]["targets"] if "fills" in one]
    assert target["fills"]["seconds_left"] == 10.0


def test_nobody_can_say_how_long_it_takes_at_the_beginning() -> None:
    assert seconds_left(SyncProgress(1, 0, 10, 0, 0, 5_000)) is None
    assert seconds_left(SyncProgress(1, 12, 10, 0, 0, 5_000)) == 0.0
    assert progress(SyncProgress(1, 0, 10, 0, 0, 100)) == "0 of 10 chunks compared"


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        ([FINE, (W, ABLE, "")], ["target 201 on node 2 waits for its turn to be filled up"]),
        ([FINE, (O, ABLE, "")], ["target 201 on node 2 is back, and is filled up next"]),
        ([FINE, (Y, ABLE, "")], ["target 201 on node 2 is filled up"]),
        ([FINE, (Y, HELD, "it opens")], ["target 201 on node 2 is to be filled up: it opens"]),
        ([FINE, (S, HELD, "it opens")], ["it waits for target 201 on node 2: it opens"]),
    ],
)
def test_each_state_has_its_words(targets: list[tuple[PublicState, Standing, str]], says: list[str]) -> None:
    assert what_happens(chain(*targets)) == says


def test_replicas_that_make_each_other_whole() -> None:
    view = chain((S, LACKING, "it waits"), (S, LACKING, "it lost power"))
    assert state_of_chain(view) == "mending"
    assert "make each other whole" in what_happens(view)[0]
    assert what_happens(view)[1:] == ["target 101 on node 1: it waits", "target 201 on node 2: it lost power"]


def test_a_chain_that_serves_nothing_names_whom_it_waits_for() -> None:
    view = chain((L, LACKING, "it lost power"), (L, DEAD, "node 2 has failed"), FAILED)
    assert state_of_chain(view) == "offline"
    (line,) = what_happens(view)
    assert "it serves nothing" in line and "target 101 on node 1: it lost power" in line
    assert "target 201 on node 2: node 2 has failed" in line and "301" not in line
    helps = what_helps(ListChainsReply(1, [view], False))
    assert helps[:2] == ["bring back node 2: node 2 has failed", "bring back node 3: node 3 has failed"]
    assert "emberfs chains rotate CHAIN" in helps[2] and "chain 5" in helps[2]


def test_nothing_is_given_up_while_it_may_come_by_itself() -> None:
    held = chain((L, HELD, "it opens"), (L, DEAD, "node 2 has failed"), (W, ABLE, ""))
    assert not any("rotate" in line for line in what_helps(ListChainsReply(1, [held], False)))
    nobody = chain((L, DEAD, "node 1 has failed"), (L, DEAD, "node 2 has failed"))
    assert not any("rotate" in line for line in what_helps(ListChainsReply(1, [nobody], False)))
