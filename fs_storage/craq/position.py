"""Where a target stands on its chain. Pure.

Only targets whose public state is SERVING form the chain that updates walk; head first.

Source: DESIGN section 7; `docs/concurrency/storage.md`.
"""

from dataclasses import dataclass

from fs_common.records.routing import Chain, ChainTarget, PublicState


@dataclass(frozen=True, slots=True)
class Position:
    """One serving target's place on one version of its chain."""

    chain: int
    version: int
    target: int
    index: int
    """0 is the head. Also the class of memory its payloads are counted in: a wait always goes to a higher index."""
    predecessor: ChainTarget | None
    """None: this is the head."""
    successor: ChainTarget | None
    """None: this is the tail."""
    tail: ChainTarget
    members: tuple[ChainTarget, ...]
    """All that serve, head first."""

    @property
    def is_head(self) -> bool:
        return self.predecessor is None

    @property
    def is_tail(self) -> bool:
        return self.successor is None


def position_of(chain: Chain, target: int) -> Position | None:
    """The place of `target` on `chain`; None when it does not serve there."""
    serving = [member for member in chain.targets if member.state == PublicState.SERVING]
    for index, member in enumerate(serving):
        if member.target == target:
            return Position(
                chain=chain.chain,
                version=chain.version,
                target=target,
                index=index,
                predecessor=serving[index - 1] if index else None,
                successor=serving[index + 1] if index + 1 < len(serving) else None,
                tail=serving[-1],
                members=tuple(serving),
            )
    return None
