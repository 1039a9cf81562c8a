"""How targets stand, as the manager sees it: what they say, whom nobody has heard, and since when. Pure.

`docs/concurrency/chains.md` says what the state machine makes of it. Three rules are of this module:

* A node that this manager has not heard is held for `failure_ms` from the manager's beginning, whatever was stored of
  it: that it looked dead to the manager before says nothing of now.
* A target whose store is not open is held. While another one of its chain is able, that ends `opening_ms` after both
  are so, and it counts as dead.
* A survivor is able only if it was heard since the standing of each survivor that is not is known: what it said before
  is no reason to go on without the others.

One for each time that a server becomes the manager. Times are ms of the manager's clock.
"""

from collections.abc import Mapping
from typing import NamedTuple

from fs_common.records.chains import Standing
from fs_common.records.routing import Chain, LocalState, NodeState, PublicState, StoreVerdict
from fs_meta.manager.chains import HELD, Report, standing, survivors
from fs_meta.manager.membership import Member, Membership


class Stand(NamedTuple):
    """One target."""

    report: Report | None
    """What the state machine is told; None: dead."""
    reason: str
    """One line: why it is not able; "" for one that is."""

    @property
    def standing(self) -> Standing:
        return standing(self.report)


class Seen(NamedTuple):
    """One chain."""

    stands: dict[int, Stand]
    """By target id."""
    waits: bool
    """Something is held: it looks otherwise after a while, or with the next heartbeats."""

    @property
    def reports(self) -> dict[int, Report]:
        return {target: stand.report for target, stand in self.stands.items() if stand.report is not None}


class _Since(NamedTuple):
    standing: Standing
    ms: int
    beat: int
    """How many heartbeats had been taken."""


class Standings:
    def __init__(self, began_ms: int, failure_ms: int, opening_ms: int) -> None:
        self._began_ms = began_ms
        self._failure_ms = failure_ms
        self._opening_ms = opening_ms
        self._since: dict[int, _Since] = {}
        """By target id: how it stood when it was looked at last, and since when."""

    def see(self, chain: Chain, membership: Membership, now_ms: int) -> Seen:
        """All targets of a chain. To be called whenever what is known of one of them has changed."""
        stands = {}
        all_able = True
        for member in chain.targets:
            stand = self._stand(member.target, membership.members.get(member.node), member.node, now_ms)
            stands[member.target] = stand
            now = stand.standing
            all_able = all_able and now is Standing.ABLE
            since = self._since.get(member.target)
            if since is None or since.standing is not now:
                self._since[member.target] = _Since(now, now_ms, membership.beats)
        if all_able:
            return Seen(stands, False)  # as nearly all of a hundred thousand are: nothing is held, and nobody doubted
        self._give_up_waiting(chain, membership, stands, now_ms)
        self._doubt(chain, membership.members, stands)
        return Seen(stands, any(stand.standing is Standing.HELD for stand in stands.values()))

    def _stand(self, target: int, member: Member | None, node: int, now_ms: int) -> Stand:
        if member is None:
            return Stand(None, f"node {node} is not known")
        if not member.beat:
            if now_ms - self._began_ms < self._failure_ms:
                return Stand(HELD, f"node {node} has not come yet since the manager began")
            return Stand(None, f"node {node} does not run")
        if member.state is NodeState.FAILED:
            return Stand(None, f"node {node} has failed")
        if member.state is NodeState.LEFT:
            return Stand(None, f"node {node} has been stopped")
        said, judged = member.targets.get(target), member.judged.get(target)
        verdict = judged.verdict if judged is not None else None
        reason = judged.reason if judged is not None else ""
        if verdict is StoreVerdict.FORMAT:
            return Stand(HELD, "its store is being made")
        if said is None:
            return Stand(HELD, f"node {node} has not opened its store yet")
        if said.report.state is LocalState.OFFLINE or verdict is StoreVerdict.FOREIGN:
            return Stand(None, said.trouble or reason or "it says that it is offline")
        if said.report.state is LocalState.OPENING:
            return Stand(HELD, said.trouble or "its store is being opened")
        if verdict is not StoreVerdict.SERVE:
            return Stand(HELD, reason or "it has not said which store it has")
        if not said.report.whole:
            return Stand(said.report, said.trouble or "its store may have lost something that it had acknowledged")
        return Stand(said.report, "")

    def _give_up_waiting(self, chain: Chain, membership: Membership, stands: dict[int, Stand], now_ms: int) -> None:
        able_ms = [
            self._since[member.target].ms
            for member in chain.targets
            if member.state in (PublicState.SERVING, PublicState.LASTSRV)
            and stands[member.target].standing is Standing.ABLE
        ]
        for member in chain.targets:
            target, stand = member.target, stands[member.target]
            node = membership.members.get(member.node)
            if stand.standing is not Standing.HELD or node is None or not node.beat or not able_ms:
                continue
            if now_ms - max(self._since[target].ms, min(able_ms)) >= self._opening_ms:
                stands[target] = Stand(None, f"{stand.reason}: its chain goes on without it")

    def _doubt(self, chain: Chain, members: Mapping[int, Member], stands: dict[int, Stand]) -> None:
        """Hold those that were able when the others were not known to be what they are."""
        left = survivors(chain, Seen(stands, False).reports)
        known = 0
        for member in left:
            stand = stands[member.target].standing
            stays = stand is Standing.HELD and member.state is PublicState.SERVING
            if stand is not Standing.ABLE and not stays:
                known = max(known, self._since[member.target].beat)
        for member in left:
            if stands[member.target].standing is Standing.ABLE and members[member.node].beat <= known:
                stands[member.target] = Stand(HELD, f"node {member.node} is asked whether it is still there")
