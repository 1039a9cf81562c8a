"""An operator gives up the dead survivors of a chain that serves nothing, so that what is alive serves. Pure.

It is refused while anybody may still have every acknowledged update, or can be asked: a chain is lost only by the word
of a person who was told what that costs.
"""

from fs_common.errors import Code, EmberError
from fs_common.records.chains import RotateChainReply, Standing
from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_meta.manager.chains import ordered, survivors
from fs_meta.manager.standings import Seen


def rotated(chain: Chain, seen: Seen, target: int = 0) -> RotateChainReply:
    """The chain that follows. `target`: who serves where no survivor is alive; 0: the first that is alive.

    Raises INVALID: it is not needed, or cannot be.
    """
    left = survivors(chain, seen.reports)
    by_standing: dict[Standing, list[int]] = {standing: [] for standing in Standing}
    for member in left:
        by_standing[seen.stands[member.target].standing].append(member.target)
    name = f"chain {chain.chain}"
    if by_standing[Standing.ABLE] or any(member.state is PublicState.SERVING for member in left):
        raise EmberError(Code.INVALID, f"{name} needs no rotation: it serves, or will in a moment")
    for held in by_standing[Standing.HELD]:
        raise EmberError(
            Code.INVALID, f"{name} needs no rotation yet: wait for target {held}: {seen.stands[held].reason}"
        )
    given_up, lacking = by_standing[Standing.DEAD], by_standing[Standing.LACKING]
    if not given_up:
        raise EmberError(Code.INVALID, f"{name} needs no rotation: its last replicas are alive and make it whole")
    if lacking:
        if target and target not in lacking:
            raise EmberError(
                Code.INVALID, f"target {target} is no last replica of {name} that is alive: those are {_names(lacking)}"
            )
        serve = lacking
        loses = (
            f"what was written last and was not synced may be lost: {_names(lacking)} may have lost it when the power"
            f" went, and only {_names(given_up)} may still have it"
        )
    else:
        alive = [
            member.target
            for member in chain.targets
            if seen.stands[member.target].standing in (Standing.ABLE, Standing.LACKING)
        ]
        if target and target not in alive:
            raise EmberError(Code.INVALID, f"target {target} is not alive on {name}: start its node")
        if not alive:
            raise EmberError(Code.INVALID, f"no target of {name} is alive: start the nodes of at least one")
        serve = [target or alive[0]]
        loses = (
            f"all that was written since {_names(serve)} left the chain is lost, whole chunks may be missing, and"
            f" chunks of one file may be of different times: only {_names(given_up)} had all of it"
        )
    states = {member.target: member.state for member in chain.targets}
    states |= dict.fromkeys(given_up, PublicState.OFFLINE) | dict.fromkeys(serve, PublicState.SERVING)
    targets = [ChainTarget(member.target, member.node, states[member.target]) for member in chain.targets]
    return RotateChainReply(Chain(chain.chain, chain.version + 1, ordered(targets)), given_up, loses)


def _names(targets: list[int]) -> str:
    return f"target{'s' if len(targets) > 1 else ''} {' and '.join(str(target) for target in targets)}"
