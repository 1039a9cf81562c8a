"""Where a target stands on its chain. Pure.

The targets whose public state is SERVING form the chain that updates walk, head first; a SYNCING one follows them, as
the last to get each update. The *tail* is the last SERVING one: what it has committed is committed. The syncing replica
only takes what it is sent.

Source: `docs/concurrency/chains.md`.
"""

from dataclasses import dataclass

from fs_common.records.routing import Chain, ChainTarget, PublicState


@dataclass(frozen=True, slots=True)
class Position:
    """One target's place on one version of its chain."""

    chain: int
    version: int
    target: int
    index: int
    """0 is the head. Also the class of memory its payloads are counted in: a wait always goes to a higher index."""
    predecessor: ChainTarget | None
    """None: this is the head."""
    successor: ChainTarget | None
    """Who is sent its updates: the next that serves, at the tail the syncing one. None: nobody."""
    tail: ChainTarget
    members: tuple[ChainTarget, ...]
    """All that serve, head first."""
    syncing: bool = False
    """This target is the syncing one: it answers nobody but its predecessor."""

    @property
    def is_head(self) -> bool:
        return self.predecessor is None

    @property
    def is_tail(self) -> bool:
        """What is committed here is committed. The tail may have a successor: the syncing one."""
        return self.tail.target == self.target

    @property
    def is_last(self) -> bool:
        """Updates end here."""
        return self.successor is None

    @property
    def fills(self) -> bool:
        """The successor is the syncing one: this target fills it up."""
        return self.is_tail and self.successor is not None


def position_of(chain: Chain, target: int) -> Position | None:
    """The place of `target` on `chain`; None when it neither serves nor syncs there."""
    serving = [member for member in chain.targets if member.state == PublicState.SERVING]
    syncing = [member for member in chain.targets if member.state == PublicState.SYNCING]
    walk = serving + syncing
    if not serving:
        return None
    for index, member in enumerate(walk):
        if member.target == target:
            return Position(
                chain=chain.chain,
                version=chain.version,
                target=target,
                index=index,
                predecessor=walk[index - 1] if index else None,
                successor=walk[index + 1] if index + 1 < len(walk) else None,
                tail=serving[-1],
                members=tuple(serving),
                syncing=member.state == PublicState.SYNCING,
            )
    return None
