"""What operators are shown of chains. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from fs_common.records.chains import ChainView, Standing, TargetView
from fs_common.records.routing import Chain, PublicState
from fs_meta.manager.membership import Member
from fs_meta.manager.standings import Seen


class View(NamedTuple):
    chain: ChainView
    degraded: bool
    """Some target does not serve, or is not able."""


def view_of(chain: Chain, seen: Seen, members: Mapping[int, Member]) -> View:
    targets = []
    degraded = False
    for member in chain.targets:
        stand = seen.stands[member.target]
        node = members.get(member.node)
        said = node.targets.get(member.target) if node is not None else None
        degraded = degraded or member.state is not PublicState.SERVING or stand.standing is not Standing.ABLE
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
    return View(ChainView(chain.chain, chain.version, targets), degraded)
