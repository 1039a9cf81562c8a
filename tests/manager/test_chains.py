"""The chain state machine: its rules one by one, then every history of small chains."""

from collections.abc import Iterator
from functools import cache
from itertools import combinations, product
from typing import NamedTuple

import pytest

from fs_common.records.chains import Standing
from fs_common.records.routing import Chain, ChainTarget, LocalState, PublicState
from fs_meta.manager.chains import HELD, Report, advance, standing, survivors

S, L, Y, W, O = (
    PublicState.SERVING,
    PublicState.LASTSRV,
    PublicState.SYNCING,
    PublicState.WAITING,
    PublicState.OFFLINE,
)
LETTERS = {"S": S, "L": L, "Y": Y, "W": W, "O": O}
NAMES = {state: letter for letter, state in LETTERS.items()}
VERSION = 7
SAYS = {
    "u": Report(LocalState.UPTODATE, VERSION),
    "o": Report(LocalState.ONLINE, VERSION),
    "v": Report(LocalState.UPTODATE, VERSION - 1),
    "l": Report(LocalState.ONLINE, VERSION, whole=False),
    "h": HELD,
    "x": Report(LocalState.OFFLINE, VERSION),
}


def chain(states: str) -> Chain:
    """Targets 1, 2, ... on nodes of the same number."""
    targets = [ChainTarget(number, number, LETTERS[letter]) for number, letter in enumerate(states, 1)]
    return Chain(1, VERSION, targets)


def reports(says: str) -> dict[int, Report]:
    """By target: up to date, online, up to date before, lacking something, held, offline; "-" says nothing."""
    return {number: SAYS[letter] for number, letter in enumerate(says, 1) if letter != "-"}


def written(result: Chain) -> str:
    """ "S1 O2": the states and targets in chain order."""
    return " ".join(f"{NAMES[target.state]}{target.target}" for target in result.targets)


@pytest.mark.parametrize(
    ("states", "says", "expected"),
    [
        # some survivor is able
        ("SSS", "uuu", "S1 S2 S3"),
        ("SSS", "ooo", "S1 S2 S3"),
        ("SSS", "xuu", "S2 S3 O1"),
        ("SSS", "u-u", "S1 S3 O2"),
        ("SSS", "xxu", "S3 O1 O2"),
        ("SSS", "huu", "S1 S2 S3"),
        ("SSS", "hxu", "S1 S3 O2"),
        ("SSS", "luu", "S2 S3 Y1"),
        ("SSS", "llu", "S3 Y1 W2"),
        ("SSS", "lxh", "S1 S2 S3"),
        ("SSS", "lxu", "S3 Y1 O2"),
        ("LLL", "oxx", "S1 O2 O3"),
        ("LLL", "xlo", "S3 Y2 O1"),
        ("LLL", "hho", "S3 O1 O2"),
        ("LOO", "uxx", "S1 O2 O3"),
        ("LO", "uo", "S1 Y2"),
        # none is able, some are held
        ("SSS", "hhh", "S1 S2 S3"),
        ("SSS", "lhx", "S1 S2 S3"),
        ("LLL", "xhx", "L1 L2 L3"),
        ("LLO", "lho", "L1 L2 W3"),
        ("SY", "ho", "S1 Y2"),
        # none is able, all are alive: they mend
        ("SSS", "lll", "S1 S2 S3"),
        ("LLO", "llx", "S1 S2 O3"),
        ("LLO", "llo", "S1 S2 W3"),
        ("SO", "lo", "S1 W2"),
        ("SY", "lo", "S1 W2"),
        ("SSY", "lho", "S1 S2 Y3"),
        ("SSO", "lho", "S1 S2 W3"),
        # none is able, some are dead
        ("SSS", "xxx", "L1 L2 L3"),
        ("SSS", "lxl", "L1 L2 L3"),
        ("LLL", "lxl", "L1 L2 L3"),
        ("S", "x", "L1"),
        ("LO", "xu", "L1 W2"),
        ("LO", "xo", "L1 W2"),
        # SYNCING
        ("SY", "uu", "S1 S2"),
        ("SY", "uo", "S1 Y2"),
        ("SY", "ul", "S1 Y2"),
        ("SY", "uh", "S1 Y2"),
        ("SY", "ux", "S1 O2"),
        ("SY", "xo", "L1 W2"),
        ("SY", "xh", "L1 W2"),
        ("SY", "xx", "L1 O2"),
        ("SY", "xu", "S2 O1"),
        ("SY", "lu", "S2 Y1"),
        ("SY", "hu", "S1 S2"),
        ("SYW", "uuo", "S1 S2 Y3"),
        ("SYW", "uxo", "S1 Y3 O2"),
        ("SSY", "luo", "S2 Y3 W1"),
        # WAITING and OFFLINE
        ("SO", "uo", "S1 Y2"),
        ("SO", "uu", "S1 Y2"),
        ("SO", "ul", "S1 Y2"),
        ("SO", "uh", "S1 O2"),
        ("SO", "ux", "S1 O2"),
        ("SW", "uo", "S1 Y2"),
        ("SW", "uh", "S1 W2"),
        ("SW", "u-", "S1 O2"),
        ("SWO", "uoo", "S1 Y2 W3"),
        ("SYO", "uoo", "S1 Y2 W3"),
        ("LOO", "xoh", "L1 W2 O3"),
        # order
        ("SYWO", "xuox", "S2 Y3 O1 O4"),
    ],
)
def test_rules(states: str, says: str, expected: str) -> None:
    before = chain(states)
    after = advance(before, reports(says))
    assert written(after) == expected
    assert after.version == (VERSION if after.targets == before.targets else VERSION + 1)
    assert [target.node for target in after.targets] == [target.target for target in after.targets]
    assert after.chain == before.chain


def test_nothing_changes_nothing() -> None:
    before = chain("SSYO")
    assert advance(before, reports("uuox")) is before


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_up_to_date_with_another_version_of_the_chain_is_only_alive(version: int) -> None:
    other = Report(LocalState.UPTODATE, version)
    assert written(advance(chain("SY"), {1: SAYS["u"], 2: other})) == "S1 Y2"
    assert written(advance(chain("SY"), {1: SAYS["x"], 2: other})) == "L1 W2"


def test_how_a_target_stands() -> None:
    stands = {letter: standing(report) for letter, report in SAYS.items()}
    assert stands == {
        "u": Standing.ABLE,
        "o": Standing.ABLE,
        "v": Standing.ABLE,
        "l": Standing.LACKING,
        "h": Standing.HELD,
        "x": Standing.DEAD,
    }
    assert standing(None) is Standing.DEAD


def test_a_replica_that_is_up_to_date_is_among_the_survivors() -> None:
    names = [target.target for target in survivors(chain("SYW"), reports("xuu"))]
    assert names == [1, 2]
    assert [target.target for target in survivors(chain("LLW"), reports("xxu"))] == [1, 2]


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_a_second_pass_changes_nothing(replicas: int) -> None:
    for letters in product("SLYWO", repeat=replicas):
        if not possible([LETTERS[letter] for letter in letters]):
            continue
        before = chain("".join(letters))
        for says in product("uolhx", repeat=replicas):
            after = advance(before, reports("".join(says)))
            assert after is before or after.version == VERSION + 1
            assert advance(after, reports("".join(says))) is after, (letters, says)


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_nobody_who_lacks_something_serves_beside_one_who_is_able(replicas: int) -> None:
    """It waits for that: it does not mend while another is whole."""
    for letters in product("SLYWO", repeat=replicas):
        if not possible([LETTERS[letter] for letter in letters]):
            continue
        for says in product("ulhx", repeat=replicas):
            said = reports("".join(says))
            after = advance(chain("".join(letters)), said)
            stands = {standing(said.get(one.target)) for one in after.targets if one.state is S}
            assert not {Standing.ABLE, Standing.LACKING} <= stands, (letters, says)


# --- every history ------------------------------------------------------------------------------------------------
#
# A model of a chain and of one update on it. The update may be acknowledged while the chain has a serving target, all
# that serve are up and whole, and so is the one that syncs, if there is one; all of them have it then. A target dies
# with its store as it is, or loses power: its store is not whole then, and may have lost the update. If no survivor has
# the update any more, it is lost as far as was promised, and the model forgets it. A target that is down may be seen as
# dead, or held, or as what it said last. The last of them only while nobody leaves the survivors for it: the manager
# takes those for able that it has heard since it knows how the others stand (`standings`). One that is up may be up to
# date without having said so.


class One(NamedTuple):
    """One target; a state of the model is a tuple of them in chain order."""

    public: PublicState
    up: bool
    whole: bool
    has: bool
    """The update."""
    synced: bool
    """Up to date with the present version of the chain."""


class State(NamedTuple):
    acked: bool
    """The update was acknowledged, and some survivor has it."""
    targets: tuple[One, ...]

    def __str__(self) -> str:
        marks = [
            NAMES[one.public] + ("" if one.up else "-") + ("" if one.whole else "?") + ("*" if one.has else "")
            for one in self.targets
        ]
        return " ".join(marks) + (" acked" if self.acked else "")


SURVIVES = (S, L)


def possible(states: "list[PublicState] | tuple[PublicState, ...]") -> bool:
    """Whether a chain may look so."""
    ranks = [list(PublicState).index(state) for state in states]
    serves = S in states
    return ranks == sorted(ranks) and (serves != (L in states)) and states.count(Y) <= (1 if serves else 0)


@cache
def passed(states: tuple[PublicState, ...], says: str) -> tuple[tuple[int, PublicState], ...]:
    """The chain after one pass: index before, and state after."""
    before = Chain(1, VERSION, [ChainTarget(number, number, state) for number, state in enumerate(states, 1)])
    after = advance(before, reports(says))
    assert after.version == VERSION + (after.targets != before.targets)
    return tuple((target.target - 1, target.state) for target in after.targets)


def views(one: One) -> str:
    """What the manager may take a target for."""
    if one.up:
        return ("uv" if one.synced else "v") if one.whole else "l"
    return "xhs"


def passes(state: State) -> Iterator[tuple[str, State]]:
    states = tuple(one.public for one in state.targets)
    for seen in product(*(views(one) for one in state.targets)):
        if "s" in seen and any(
            letter in "xl" or (letter == "h" and one.public is L)
            for letter, one in zip(seen, state.targets, strict=True)
            if one.public in SURVIVES
        ):
            continue
        said = "".join(
            ("u" if one.synced else "v") if letter == "s" else letter
            for letter, one in zip(seen, state.targets, strict=True)
        )
        result = passed(states, said)
        changed = result != tuple(enumerate(states))
        for index, after in result:
            before = states[index]
            if after is S:
                assert before in SURVIVES or (before is Y and said[index] == "u"), (str(state), said)
        targets = tuple(
            state.targets[index]._replace(public=after, synced=state.targets[index].synced and not changed)
            for index, after in result
        )
        yield f"pass {said}", State(state.acked, targets)


def events(state: State) -> Iterator[tuple[str, State]]:
    """What can happen beside a pass."""
    targets = state.targets

    def having(index: int, one: One) -> tuple[One, ...]:
        return (*targets[:index], one, *targets[index + 1 :])

    serving = [one for one in targets if one.public is S]
    syncing = [one for one in targets if one.public is Y]
    if not state.acked and serving and all(one.up and one.whole for one in serving) and all(one.up for one in syncing):
        acked = tuple(one._replace(has=True) if one.public in (S, Y) else one for one in targets)
        yield "acknowledged", State(True, acked)
    for index, one in enumerate(targets):
        if one.up:
            yield f"kill {index}", State(state.acked, having(index, one._replace(up=False)))
            for has in {one.has, False}:
                after = having(index, one._replace(up=False, whole=False, has=has, synced=False))
                kept = state.acked and any(other.has for other in after if other.public in SURVIVES)
                if state.acked and not kept:
                    after = tuple(other._replace(has=False) for other in after)
                yield f"cut {index}", State(kept, after)
        else:
            yield f"start {index}", State(state.acked, having(index, one._replace(up=True)))
        if one.public is Y and one.up and serving[-1].up and serving[-1].whole:
            full = one._replace(whole=True, has=serving[-1].has, synced=True)
            yield f"fill {index}", State(state.acked, having(index, full))
    if serving and all(one.up and not one.whole for one in serving):
        # Whoever is as fast as the first is whole as well; the others are filled up.
        has = any(one.has for one in serving)
        for many in range(1, len(serving) + 1):
            for mended in combinations(range(len(serving)), many):
                after = tuple(
                    one._replace(whole=True, has=has) if index in mended else one for index, one in enumerate(targets)
                )
                yield f"mend {mended}", State(state.acked, after)


def check_state(state: State, story: object) -> None:
    publics = [one.public for one in state.targets]
    assert possible(publics), story
    if not state.acked:
        return
    left = [one for one in state.targets if one.public in SURVIVES]
    assert any(one.has for one in left), ("the update is lost", story)
    for one in left:
        assert one.has or not one.whole, ("one that may serve lacks the update", story)


def healed(state: State) -> State:
    """What becomes of it when faults stop, everybody says what is true, and what can be done is done."""
    return _healed(State(state.acked, tuple(one._replace(up=True) for one in state.targets)))


@cache
def _healed(state: State) -> State:
    for _ in range(8 * len(state.targets)):
        done = [after for what, after in events(state) if what.startswith(("mend", "fill")) and after != state]
        said = "".join(views(one)[0] for one in state.targets)
        state = done[0] if done else next(after for what, after in passes(state) if what == f"pass {said}")
    return state


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_every_history_keeps_the_invariants(replicas: int) -> None:
    first = State(False, (One(S, True, True, False, False),) * replicas)
    seen = {first}
    frontier = [first]
    everyone = [S] * replicas
    while frontier:
        state = frontier.pop()
        for source in (events, passes):
            for what, after in source(state):
                if after not in seen:
                    check_state(after, (str(state), what, str(after)))
                    seen.add(after)
                    frontier.append(after)
    for state in seen:
        end = healed(state)
        assert [one.public for one in end.targets] == everyone, ("never serves again", str(state), str(end))
        assert all(one.whole and one.has >= state.acked for one in end.targets), (str(state), str(end))
    assert len(seen) >= {1: 10, 2: 200, 3: 4_000}[replicas], "the model moves"


def test_all_that_died_come_back_one_sync_at_a_time() -> None:
    """From the death of all to all serving, when everybody reports what is true."""
    current = advance(chain("SSS"), reports("xxx"))
    path = [written(current)]
    come = {2: Report(LocalState.ONLINE, VERSION)}
    for _ in range(10):
        says = {
            target.target: Report(LocalState.UPTODATE, current.version)
            if target.state is Y
            else Report(LocalState.ONLINE, current.version)
            for target in current.targets
        }
        after = advance(current, come if len(path) == 1 else says)
        if after is current:
            break
        current = after
        path.append(written(current))
    assert path == ["L1 L2 L3", "S2 O1 O3", "S2 Y1 W3", "S2 S1 Y3", "S2 S1 S3"]
    assert current.version == VERSION + 5
