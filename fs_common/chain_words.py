"""What is wrong with chains, what is being done about it and what helps, in words. Pure.

Used by: the commands and the console, so that both say the same.
"""

from collections.abc import Iterator
from typing import Any

from fs_common.quantities import counted, size_words
from fs_common.records.chains import ChainView, ListChainsReply, Standing, SyncProgress, TargetView
from fs_common.records.routing import PublicState

ALIVE = (Standing.ABLE, Standing.LACKING)


def state_of_chain(chain: ChainView) -> str:
    """In one word: serving, degraded, mending, offline."""
    serving = [target for target in chain.targets if target.state is PublicState.SERVING]
    if not serving:
        return "offline"
    if all(target.standing is Standing.LACKING for target in serving):
        return "mending"
    well = len(serving) == len(chain.targets) and all(target.standing is Standing.ABLE for target in serving)
    return "serving" if well else "degraded"


def what_happens(chain: ChainView) -> list[str]:
    """A line for each thing that is wrong or under way; none: all is well."""
    state = state_of_chain(chain)
    if state == "serving":
        return []
    if state == "offline":
        return [_serves_nothing(chain)]
    lines = []
    if state == "mending":
        lines.append("its replicas may have lost something, and make each other whole; nothing is written before")
    filling = {target.sync.target: target for target in chain.targets if target.sync is not None}
    for target in chain.targets:
        name = f"target {target.target} on node {target.node}"
        match target.state, target.standing:
            case PublicState.SERVING, Standing.HELD | Standing.DEAD:
                lines.append(f"it waits for {name}: {target.reason}")
            case PublicState.SERVING, Standing.LACKING:
                lines.append(f"{name}: {target.reason}")
            case PublicState.SYNCING, _ if target.target in filling:
                source = filling[target.target]
                assert source.sync is not None
                lines.append(f"{name} is filled up by target {source.target}: {progress(source.sync)}")
            case PublicState.SYNCING, Standing.HELD:
                lines.append(f"{name} is to be filled up: {target.reason}")
            case PublicState.SYNCING, _:
                lines.append(f"{name} is filled up")
            case PublicState.WAITING, _:
                lines.append(f"{name} waits for its turn to be filled up")
            case PublicState.OFFLINE, Standing.DEAD | Standing.HELD:
                lines.append(f"{name} is missing: {target.reason}")
            case PublicState.OFFLINE, _:
                lines.append(f"{name} is back, and is filled up next")
            case _:
                pass
    return lines


def progress(sync: SyncProgress) -> str:
    """ "40 of 120 chunks compared, 12.0MiB sent, about 20 s left"."""
    text = f"{sync.chunks_done:,} of {counted(max(sync.chunks_total, sync.chunks_done), 'chunk')} compared"
    if sync.bytes_sent:
        text += f", {size_words(sync.bytes_sent)} sent"
    left_s = seconds_left(sync)
    return text if left_s is None else f"{text}, {_about(left_s)} left"


def seconds_left(sync: SyncProgress) -> float | None:
    """At the pace so far; None: nobody can say yet."""
    left = sync.chunks_total - sync.chunks_done
    if left <= 0:
        return 0.0
    if not sync.chunks_done or sync.began_ms < 1000:
        return None
    return left * sync.began_ms / sync.chunks_done / 1000


def what_helps(reply: ListChainsReply) -> list[str]:
    """What people can do."""
    missing: dict[int, str] = {}
    for chain in reply.chains:
        for target in chain.targets:
            if target.standing is Standing.DEAD:
                missing.setdefault(target.node, target.reason)
    lines = [f"bring back node {node}: {reason}" for node, reason in sorted(missing.items())]
    lost = [str(chain.chain) for chain in reply.chains if _may_rotate(chain)]
    if lost:
        lines.append(
            f"if a node is gone for good: `emberfs chains rotate CHAIN` says what chain {', '.join(lost[:5])}"
            f"{', ...' if len(lost) > 5 else ''} may lose if it serves without it"
        )
    return lines


def as_json(reply: ListChainsReply) -> dict[str, Any]:
    return {
        "routing_version": reply.routing_version,
        "resting": reply.resting,
        "chains": [_chain_json(chain) for chain in reply.chains],
    }


def _chain_json(chain: ChainView) -> dict[str, Any]:
    return {
        "chain": chain.chain,
        "version": chain.version,
        "state": state_of_chain(chain),
        "what": what_happens(chain),
        "targets": [_target_json(target) for target in chain.targets],
    }


def _target_json(target: TargetView) -> dict[str, Any]:
    value: dict[str, Any] = {
        "target": target.target,
        "node": target.node,
        "state": target.state.name.lower(),
        "standing": target.standing.name.lower(),
        "reason": target.reason,
        "used_bytes": target.used_bytes,
    }
    sync = target.sync
    if sync is not None:
        value["fills"] = {
            "target": sync.target,
            "chunks_done": sync.chunks_done,
            "chunks_total": sync.chunks_total,
            "chunks_sent": sync.chunks_sent,
            "bytes_sent": sync.bytes_sent,
            "seconds": sync.began_ms / 1000,
            "seconds_left": seconds_left(sync),
        }
    return value


def _serves_nothing(chain: ChainView) -> str:
    last = list(_last(chain))
    names = "; ".join(
        f"target {target.target} on node {target.node}: {target.reason or 'it is there'}" for target in last
    )
    return f"it serves nothing: it waits for its last replicas, which alone have everything ({names})"


def _last(chain: ChainView) -> Iterator[TargetView]:
    return (target for target in chain.targets if target.state is PublicState.LASTSRV)


def _may_rotate(chain: ChainView) -> bool:
    standings = {target.standing for target in _last(chain)}
    if not standings or Standing.DEAD not in standings or standings & {Standing.ABLE, Standing.HELD}:
        return False
    return any(target.standing in ALIVE for target in chain.targets)


def _about(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
