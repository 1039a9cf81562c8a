"""Which chains have to be looked at, and what becomes of them. Pure: all of it is memory of one manager.

A chain is looked at when something is new that one of its targets depends on: a report, a verdict, the state of its
node. One of which something is held is looked at again and again, because time changes it too. Everything is looked at
once when a server becomes the manager, and when a rest ends; while the cluster rests, nothing is.

Called by: the manager, which commits and publishes the result (`docs/concurrency/manager.md`).
"""

from collections.abc import Iterable, Mapping

from fs_common.records.routing import Chain, Routing
from fs_meta.manager.chains import advance
from fs_meta.manager.membership import Member, Membership, TargetReport
from fs_meta.manager.resting import Resting
from fs_meta.manager.standings import Standings
from fs_meta.manager.stores import Judged


class ChainWatch:
    def __init__(self, standings: Standings, resting: Resting | None = None) -> None:
        self.standings = standings
        self.resting = resting
        """None: the cluster does not rest."""
        self._touched: set[int] = set()
        """Chain ids: to be looked at."""
        self._waiting: set[int] = set()
        """Chain ids: looked at, and something is held."""
        self._chains: dict[int, Chain] = {}
        self._places: dict[int, int] = {}
        """Chain id to its index in the routing."""
        self._chain_of: dict[int, int] = {}
        """Target id to chain id."""
        self._on_node: dict[int, set[int]] = {}
        """Node to the ids of the chains that have a target there."""

    def chain(self, chain: int) -> Chain | None:
        """The one with this id."""
        return self._chains.get(chain)

    def count_on(self, node: int) -> int:
        """How many have a target there."""
        return len(self._on_node.get(node, ()))

    def on_node(self, node: int) -> list[Chain]:
        """Those that have a target there, by id."""
        return [self._chains[chain] for chain in sorted(self._on_node.get(node, ()))]

    def follow(self, routing: Routing) -> None:
        """The chains are these now."""
        if len(routing.chains) < len(self._chains):
            self._chains, self._places, self._chain_of, self._on_node = {}, {}, {}, {}
        for place, chain in enumerate(routing.chains):
            known = self._chains.get(chain.chain)
            if known is chain and self._places[chain.chain] == place:
                continue
            self._places[chain.chain] = place
            self._chains[chain.chain] = chain
            if known is None or set(_targets(known)) != set(_targets(chain)):
                for target, node in _targets(known) if known is not None else ():
                    if self._chain_of.get(target) == chain.chain:
                        del self._chain_of[target]
                        self._on_node[node].discard(chain.chain)
                for target, node in _targets(chain):
                    self._chain_of[target] = chain.chain
                    self._on_node.setdefault(node, set()).add(chain.chain)
                self._touched.add(chain.chain)

    def heard(
        self,
        member: Member,
        before: tuple[Mapping[int, TargetReport], Mapping[int, Judged]] | None,
    ) -> bool:
        """A heartbeat was taken, and judged. `before`: what the same process had said; None: nothing, or it was not up.
        Whether there are chains to be looked at."""
        here = self._on_node.get(member.identity.node, set())
        if before is None:
            self._touched |= here
        else:
            reports, judged = before
            for target in {*reports, *member.targets}:
                if _said(target, reports, judged) != _said(target, member.targets, member.judged):
                    self.touch_target(target)
        self._touched |= here & self._waiting
        return bool(self._touched)

    def touch_target(self, target: int) -> None:
        chain = self._chain_of.get(target)
        if chain is not None:
            self._touched.add(chain)

    def touch_node(self, node: int) -> None:
        self._touched |= self._on_node.get(node, set())

    def touch(self, chains: Iterable[int]) -> None:
        self._touched.update(chains)

    def touch_all(self) -> None:
        self._touched.update(self._chains)

    def look(
        self, chains: list[Chain], membership: Membership, now_ms: int, *, waiting: bool = True
    ) -> tuple[list[Chain], set[int]]:
        """The chains that follow; the same list when none changes. With the ids of those that were looked at: if what
        follows cannot be stored, they are to be touched again.

        `waiting`: also at all that wait for time. Not for each heartbeat: when a manager begins, everything waits for
        everybody's first one."""
        if self.resting is not None:
            return chains, set()
        looked, self._touched = self._touched | self._waiting if waiting else self._touched, set()
        after = chains
        for chain_id in sorted(looked):
            place = self._places.get(chain_id)
            if place is None or place >= len(chains) or chains[place].chain != chain_id:
                continue
            chain = chains[place]
            seen = self.standings.see(chain, membership, now_ms)
            (self._waiting.add if seen.waits else self._waiting.discard)(chain_id)
            changed = advance(chain, seen.reports)
            if changed is not chain:
                if after is chains:
                    after = list(chains)
                after[place] = changed
        return after, looked


def _targets(chain: Chain) -> list[tuple[int, int]]:
    return [(member.target, member.node) for member in chain.targets]


def _said(target: int, reports: Mapping[int, TargetReport], judged: Mapping[int, Judged]) -> object:
    """What its chain depends on."""
    report, verdict = reports.get(target), judged.get(target)
    return report and report.report, verdict and verdict.verdict
