"""What operators are shown of chains. Pure."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fs_common.records.chains import ChainView, Standing, TargetView
from fs_common.records.routing import Chain, PublicState
from fs_meta.manager.membership import Member
from fs_meta.manager.standings import Seen

PAGE_MAX = 500
"""Entries of a page, at most, and how many are looked at for one."""


class Page(NamedTuple):
    """Where a page of a list lies that is ordered by ids."""

    first: int
    end: int
    next: int
    """What the following page comes after; 0: this is the last one."""


def page_of(ids: Sequence[int], after: int, limit: int) -> Page:
    """The page of at most `limit` (0: as many as a page may have) that comes after the id `after`."""
    first = bisect_right(ids, after)
    end = min(first + min(limit or PAGE_MAX, PAGE_MAX), len(ids))
    return Page(first, end, ids[end - 1] if end < len(ids) else 0)


class ChainIds(Sequence[int]):
    """The ids of chains that are ordered by them, without a list of them all."""

    def __init__(self, chains: Sequence[Chain]) -> None:
        self._chains = chains

    def __len__(self) -> int:
        return len(self._chains)

    def __getitem__(self, place: Any) -> Any:
        return self._chains[place].chain


def view_of(chain: Chain, seen: Seen, members: Mapping[int, Member]) -> ChainView:
    targets = []
    for member in chain.targets:
        stand = seen.stands[member.target]
        node = members.get(member.node)
        said = node.targets.get(member.target) if node is not None else None
        targets.append(
            TargetView(
                member.target,
                member.node,
                member.state,
                stand.standing,
                stand.reason,
                said.used_bytes if said is not None else 0,
                said.sync if said is not None else None,
            )
        )
    return ChainView(chain.chain, chain.version, targets)


def is_well(chain: Chain, seen: Seen) -> bool:
    """Every target serves, and is able."""
    return all(
        member.state is PublicState.SERVING and seen.stands[member.target].standing is Standing.ABLE
        for member in chain.targets
    )


def is_degraded(target: TargetView) -> bool:
    """It does not serve, or is not able."""
    return target.state is not PublicState.SERVING or target.standing is not Standing.ABLE
