"""The chain state machine: one pure function from (chain, what its targets say) to the chain that follows.

The rules, and why they lose nothing, are the tables of `docs/concurrency/chains.md`. Words of this module:

* A target *stands* as one of four (`Standing`): able (alive and whole), lacking (alive, and its store may have lost
  something that it acknowledged), held (nobody knows yet), dead.
* The *survivors* are the targets that are SERVING, or, while nobody serves, LASTSRV; and with the former the SYNCING
  one that is whole and up to date with this very version of the chain: it has what the others have.

Invariants of every chain this makes, given that targets say the truth:

* A SERVING target that is whole has every acknowledged update, and so has a LASTSRV one.
* SERVING and LASTSRV do not exist side by side, and one of them exists. At most one target is SYNCING, and only while
  somebody serves who is whole, or of whom nobody knows yet.
* WAITING and OFFLINE never become SERVING without SYNCING in between.
* A second pass with the same reports changes nothing. A pass that changes anything makes the version one larger.

Called by: the manager, in the transaction that publishes the result (`docs/concurrency/manager.md`).
"""

from collections.abc import Mapping
from typing import NamedTuple

from fs_common.checks import check
from fs_common.records.chains import Standing
from fs_common.records.routing import Chain, ChainTarget, LocalState, PublicState

_ORDER = {
    PublicState.SERVING: 0,
    PublicState.LASTSRV: 1,
    PublicState.SYNCING: 2,
    PublicState.WAITING: 3,
    PublicState.OFFLINE: 4,
}


class Report(NamedTuple):
    """What a target says of itself."""

    state: LocalState
    chain_version: int
    """Of the chain as the target knew it when it said so."""
    whole: bool = True
    """Its store has everything that it ever acknowledged."""


HELD = Report(LocalState.OPENING, 0)
"""Of a target of which nobody knows yet how it stands."""


def standing(report: Report | None) -> Standing:
    """How the target of this report stands; None: nothing is heard of it, and will not be."""
    if report is None or report.state is LocalState.OFFLINE:
        return Standing.DEAD
    if report.state is LocalState.OPENING:
        return Standing.HELD
    return Standing.ABLE if report.whole else Standing.LACKING


def survivors(chain: Chain, reports: Mapping[int, Report]) -> list[ChainTarget]:
    """Those that have every acknowledged update, or had it before they lost power, in the order of the chain."""
    serving = [target for target in chain.targets if target.state is PublicState.SERVING]
    if not serving:
        return [target for target in chain.targets if target.state is PublicState.LASTSRV]
    return serving + [
        target for target in chain.targets if target.state is PublicState.SYNCING and _is_synced(chain, target, reports)
    ]


def advance(chain: Chain, reports: Mapping[int, Report]) -> Chain:
    """The chain after one pass; `chain` itself when nothing changes. `reports` is by target id; no entry: dead."""
    stands = {target.target: standing(reports.get(target.target)) for target in chain.targets}
    check(len(stands) == len(chain.targets), "a target is on its chain once", chain)
    left = survivors(chain, reports)
    states = _of_survivors(left, stands)
    filling = {stands[target] for target, state in states.items() if state is PublicState.SERVING}
    fills = Standing.ABLE in filling
    syncs = False
    # The one that is being filled up stays it: its turn is before that of others.
    for target in sorted(chain.targets, key=lambda target: target.state is not PublicState.SYNCING):
        if target.target in states:
            continue
        stays = target.state is PublicState.SYNCING
        match stands[target.target]:
            case Standing.DEAD:
                after = PublicState.OFFLINE
            case Standing.HELD if not stays:
                # One that served is nobody that could be asked for more than the others have.
                after = PublicState.WAITING if target.state is PublicState.WAITING else PublicState.OFFLINE
            case Standing.ABLE | Standing.LACKING | Standing.HELD:
                # What survivors that are not whole make of each other may be less than the syncing one has: it begins
                # anew, under another version.
                may = fills or (stays and Standing.HELD in filling)
                after = PublicState.SYNCING if may and not syncs else PublicState.WAITING
        syncs = syncs or after is PublicState.SYNCING
        states[target.target] = after
    targets = ordered([ChainTarget(target.target, target.node, states[target.target]) for target in chain.targets])
    if targets == chain.targets:
        return chain
    return Chain(chain.chain, chain.version + 1, targets)


def ordered(targets: list[ChainTarget]) -> list[ChainTarget]:
    """In the order of a chain; equal ones keep theirs."""
    return sorted(targets, key=lambda target: _ORDER[target.state])


def _of_survivors(left: list[ChainTarget], stands: Mapping[int, Standing]) -> dict[int, PublicState]:
    """What becomes of the survivors; those without an entry are none any more."""
    among = {stands[target.target] for target in left}
    if Standing.ABLE in among:
        return {
            target.target: PublicState.SERVING
            for target in left
            if stands[target.target] is Standing.ABLE
            or (stands[target.target] is Standing.HELD and target.state is PublicState.SERVING)
        }
    if Standing.HELD in among:
        return {target.target: target.state for target in left}
    after = PublicState.LASTSRV if Standing.DEAD in among else PublicState.SERVING
    return {target.target: after for target in left}


def _is_synced(chain: Chain, target: ChainTarget, reports: Mapping[int, Report]) -> bool:
    report = reports.get(target.target)
    # Up to date with another version says of this one that the target is alive, and no more.
    return (
        report is not None
        and report.state is LocalState.UPTODATE
        and report.whole
        and report.chain_version == chain.version
    )
