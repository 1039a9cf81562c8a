"""The chain state machine: one pure function from (chain, what its targets say) to the chain that follows.

One pass goes through the targets in chain order; the rules by public state, where a target is alive when it says
UPTODATE or ONLINE, and dead when it says OFFLINE or nothing:

| was              | becomes                                                                                |
| ---------------- | -------------------------------------------------------------------------------------- |
| SERVING          | alive: SERVING. The first that died: LASTSRV, or OFFLINE when any SERVING is left at     |
|                  | the end of the pass. Others that died: OFFLINE.                                          |
| LASTSRV          | a SERVING exists: OFFLINE. Otherwise alive: SERVING; dead: LASTSRV.                      |
| SYNCING          | UPTODATE: SERVING. ONLINE: SYNCING while a SERVING is before it, WAITING without. OFFLINE |
| WAITING, OFFLINE | ONLINE while a SERVING exists and nobody is SYNCING: SYNCING. Alive otherwise: WAITING.  |
|                  | Dead: OFFLINE.                                                                         |

Then the targets are ordered SERVING, LASTSRV, SYNCING, WAITING, OFFLINE (equal ones keep their order), and any
change makes the version one larger.

Invariants of every chain this makes, given that a target says UPTODATE only when it has every acknowledged write:
a SERVING target has every acknowledged write; at most one target is SYNCING; LASTSRV exists only where SERVING does
not, once, and has every acknowledged write; WAITING and OFFLINE never become SERVING without SYNCING in between.

Consequence, accepted: when all have died only LASTSRV may resume, even if another replica is complete too.

Source: reference 3.7; DESIGN section 5.
"""

from collections.abc import Mapping
from typing import NamedTuple

from fs_common.checks import check
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


def advance(chain: Chain, reports: Mapping[int, Report]) -> Chain:
    """The chain after one pass; `chain` itself when nothing changes. `reports` is by target id; no entry: dead."""
    states: dict[int, PublicState] = {}
    provisional: int | None = None
    serving = syncing = False
    # The order on the chain is the order of the rules: each state sees what became of those before it.
    for target in sorted(chain.targets, key=lambda target: _ORDER[target.state]):
        says = _current(reports.get(target.target), chain.version)
        alive = says is not LocalState.OFFLINE
        match target.state:
            case PublicState.SERVING:
                if alive:
                    after = PublicState.SERVING
                elif provisional is None:
                    provisional = target.target
                    after = PublicState.LASTSRV
                else:
                    after = PublicState.OFFLINE
            case PublicState.LASTSRV if serving:
                after = PublicState.OFFLINE
            case PublicState.LASTSRV:
                after = PublicState.SERVING if alive else PublicState.LASTSRV
            case PublicState.SYNCING:
                if says is LocalState.UPTODATE:
                    after = PublicState.SERVING
                elif alive:
                    after = PublicState.SYNCING if serving else PublicState.WAITING
                else:
                    after = PublicState.OFFLINE
            case PublicState.WAITING | PublicState.OFFLINE:
                if says is LocalState.ONLINE and serving and not syncing:
                    after = PublicState.SYNCING
                else:
                    after = PublicState.WAITING if alive else PublicState.OFFLINE
        serving = serving or after is PublicState.SERVING
        syncing = syncing or after is PublicState.SYNCING
        states[target.target] = after
    if serving and provisional is not None:
        states[provisional] = PublicState.OFFLINE
    check(len(states) == len(chain.targets), "a target is on its chain once", chain)
    targets = sorted(
        (ChainTarget(target.target, target.node, states[target.target]) for target in chain.targets),
        key=lambda target: _ORDER[target.state],
    )
    if targets == chain.targets:
        return chain
    return Chain(chain.chain, chain.version + 1, targets)


def _current(report: Report | None, version: int) -> LocalState:
    """What a report says of the chain as it is now."""
    if report is None:
        return LocalState.OFFLINE
    if report.state is LocalState.UPTODATE and report.chain_version != version:
        return LocalState.ONLINE  # up to date with another chain: alive is all it says of this one
    return report.state
