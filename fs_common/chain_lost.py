"""What to say when nobody serves a chain: which nodes to bring back."""

from fs_common.errors import Code, EmberError
from fs_common.records.routing import PublicState, Routing


def chain_lost(routing: Routing, chain_id: int) -> EmberError:
    """CHAIN_LOST for a chain of which this routing has no serving replica. Whichever of those that served it last is
    back first serves it again."""
    places = {node.node: f" ({node.host}:{node.port})" for node in routing.nodes}
    last = [
        f"node {target.node}{places.get(target.node, '')}"
        for chain in routing.chains
        if chain.chain == chain_id
        for target in chain.targets
        if target.state is PublicState.LASTSRV
    ]
    if not last:
        advice = "none of its replicas has everything; see `emberfs chains`"
    elif len(last) == 1:
        advice = f"bring {last[0]} back, which was the last to serve it"
    else:
        advice = f"bring one of those back that served it last: {', '.join(last)}"
    return EmberError(Code.CHAIN_LOST, f"chain {chain_id} has no serving replica: {advice}")
