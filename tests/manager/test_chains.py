"""The chain state machine: its rules one by one, then every history of small chains."""

from collections.abc import Iterator, Mapping
from itertools import product

import pytest

from fs_common.records.routing import Chain, ChainTarget, LocalState, PublicState
from fs_meta.manager.chains import Report, advance

S, L, Y, W, O = (
    PublicState.SERVING,
    PublicState.LASTSRV,
    PublicState.SYNCING,
    PublicState.WAITING,
    PublicState.OFFLINE,
)
UP, ON, OFF = LocalState.UPTODATE, LocalState.ONLINE, LocalState.OFFLINE
LETTERS = {"S": S, "L": L, "Y": Y, "W": W, "O": O}
SAYS = {"u": UP, "o": ON, "x": OFF}
VERSION = 7


def chain(states: str) -> Chain:
    """Targets 1, 2, ... on nodes of the same number."""
    targets = [ChainTarget(number, number, LETTERS[letter]) for number, letter in enumerate(states, 1)]
    return Chain(1, VERSION, targets)


def reports(says: str, version: int = VERSION) -> dict[int, Report]:
    """By target; "-" says nothing."""
    return {number: Report(SAYS[letter], version) for number, letter in enumerate(says, 1) if letter != "-"}


def written(result: Chain) -> str:
    """ "S1 O2": the states and targets in chain order."""
    names = {state: letter for letter, state in LETTERS.items()}
    return " ".join(f"{names[target.state]}{target.target}" for target in result.targets)


@pytest.mark.parametrize(
    ("states", "says", "expected"),
    [
        # SERVING
        ("SSS", "uuu", "S1 S2 S3"),
        ("SSS", "ooo", "S1 S2 S3"),
        ("SSS", "xuu", "S2 S3 O1"),
        ("SSS", "u-u", "S1 S3 O2"),
        ("SSS", "xxu", "S3 O1 O2"),
        ("SSS", "xxx", "L1 O2 O3"),
        ("S", "x", "L1"),
        # LASTSRV
        ("LOO", "uxx", "S1 O2 O3"),
        ("LOO", "oxx", "S1 O2 O3"),
        ("LOO", "xxx", "L1 O2 O3"),
        ("LO", "xu", "L1 W2"),
        ("LO", "xo", "L1 W2"),
        ("LO", "uo", "S1 Y2"),
        ("SL", "uu", "S1 O2"),  # no history makes this chain; the rule is total all the same
        # SYNCING
        ("SY", "uu", "S1 S2"),
        ("SY", "uo", "S1 Y2"),
        ("SY", "ux", "S1 O2"),
        ("SY", "xo", "L1 W2"),
        ("SY", "xx", "L1 O2"),
        ("SY", "xu", "S2 O1"),
        ("SYW", "uuo", "S1 S2 Y3"),
        ("SYW", "uxo", "S1 Y3 O2"),
        # WAITING and OFFLINE
        ("SO", "uo", "S1 Y2"),
        ("SO", "uu", "S1 W2"),
        ("SO", "ux", "S1 O2"),
        ("SW", "uo", "S1 Y2"),
        ("SW", "uu", "S1 W2"),
        ("SW", "u-", "S1 O2"),
        ("SWO", "uoo", "S1 Y2 W3"),
        ("SYO", "uoo", "S1 Y2 W3"),
        ("WO", "oo", "W1 W2"),
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
    old = {1: Report(UP, VERSION), 2: Report(UP, version)}
    assert written(advance(chain("SY"), old)) == "S1 Y2"
    assert written(advance(chain("SO"), old)) == "S1 Y2"


# --- every history ------------------------------------------------------------------------------------------------
#
# A model of what the targets hold. `complete` is the set of targets that have every acknowledged write. After each
# pass of the state machine a write is acknowledged if any target serves: it reaches the serving and the syncing
# targets and no other. A syncing target with a serving one before it may finish its sync, is complete from then on,
# and says UPTODATE. A target that is not syncing may say anything it can believe: UPTODATE only when it is complete,
# or when it is waiting or offline and wrong about it (it served the chain once and has missed what followed).

State = tuple[tuple[tuple[int, PublicState], ...], frozenset[int]]


def passes(state: State) -> Iterator[tuple[Chain, Mapping[int, Report], Chain, frozenset[int]]]:
    """Each thing that can happen next: the chain, what is reported, the chain after it, who is complete after it."""
    targets, complete = state
    before = Chain(1, VERSION, [ChainTarget(target, target, public) for target, public in targets])
    serves = any(public is S for _, public in targets)
    for says in product((UP, ON, OFF), repeat=len(targets)):
        synced = set()
        for (target, public), said in zip(targets, says, strict=True):
            if said is UP and public is Y:
                if not serves and target not in complete:
                    break  # nobody to sync from
                synced.add(target)
        else:
            given = {target: Report(said, VERSION) for (target, _), said in zip(targets, says, strict=True)}
            after = advance(before, given)
            holds = complete | synced
            if any(target.state is S for target in after.targets):
                holds &= {target.target for target in after.targets if target.state in (S, Y)}
            yield before, given, after, frozenset(holds)


def key(after: Chain, complete: frozenset[int]) -> State:
    return tuple((target.target, target.state) for target in after.targets), complete


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_every_history_keeps_the_invariants(replicas: int) -> None:
    everyone = frozenset(range(1, replicas + 1))
    first: State = tuple((target, S) for target in sorted(everyone)), everyone
    seen = {first}
    frontier = [first]
    order = [S, L, Y, W, O]
    while frontier:
        state = frontier.pop()
        for before, given, after, complete in passes(state):
            story = (written(before), {t: r.state.name for t, r in given.items()}, written(after), complete)
            was = {target.target: target.state for target in before.targets}
            now = {target.target: target.state for target in after.targets}
            assert was.keys() == now.keys(), story
            ranks = [order.index(target.state) for target in after.targets]
            assert ranks == sorted(ranks), story
            assert after.version == before.version + (after.targets != before.targets), story
            assert list(now.values()).count(Y) <= 1, story
            assert list(now.values()).count(L) <= 1, story
            serving = {target for target, public in now.items() if public is S}
            last = {target for target, public in now.items() if public is L}
            assert not (serving and last), story
            assert serving <= complete, ("serves without every write", story)
            assert last <= complete, ("the last server lacks a write", story)
            assert serving or last, ("nobody can ever serve again", story)
            if Y in now.values():
                assert serving, ("nobody to sync from", story)
            for target in was:
                if was[target] in (W, O):
                    assert now[target] is not S, story
                if was[target] is Y and now[target] is S:
                    assert given[target].state is UP, story
                if now[target] is L and was[target] is S:
                    died = [t.target for t in before.targets if t.state is S and given[t.target].state is OFF]
                    assert died[0] == target, ("the first that died", story)
                if was[target] is S and given[target].state is not OFF:
                    assert now[target] is S, story
            successor = key(after, complete)
            if successor not in seen:
                seen.add(successor)
                frontier.append(successor)
    assert len(seen) >= {1: 2, 2: 10, 3: 50, 4: 300}[replicas], "the model moves"


def test_all_that_died_come_back_one_sync_at_a_time() -> None:
    """From the death of all to all serving, when everybody reports what is true."""
    current = advance(chain("SSS"), reports("xxx"))
    path = [written(current)]
    for _ in range(10):
        says = {
            target.target: Report(UP if target.state in (S, L, Y) else ON, current.version)
            for target in current.targets
        }
        after = advance(current, says)
        if after is current:
            break
        current = after
        path.append(written(current))
    assert path == ["L1 O2 O3", "S1 Y2 W3", "S1 S2 Y3", "S1 S2 S3"]
    assert current.version == VERSION + 4
