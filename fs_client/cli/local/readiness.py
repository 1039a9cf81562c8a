"""When is a cluster ready? When its manager knows every daemon and has laid out the chains."""

import asyncio

from fs_client.cli.failure import Failure
from fs_client.options import Address, client_tls
from fs_common.errors import Code, EmberError
from fs_common.methods import GET_ROUTING
from fs_common.peers import PeerPool
from fs_common.records.routing import GetRouting, NodeState, Routing
from fs_common.records.session import Hello

CLIENT_VERSIONS = [1]
_POLL_S = 0.05
"""The data plane has no watch on routing; asking costs the service less than a tenth of a millisecond."""
_CALL_TIMEOUT_S = 2.0


def hello(cluster: str = "", token: str = "") -> Hello:
    """What an administrative command says of itself."""
    import os
    import socket

    return Hello(
        versions=CLIENT_VERSIONS,
        role="client",
        client=os.urandom(16),
        cluster=cluster,
        token=token,
        host=socket.gethostname(),
        pid=os.getpid(),
    )


async def fetch_routing(pool: PeerPool, address: tuple[str, int], timeout_s: float) -> Routing:
    """The routing as the metadata server at `address` knows it. Raises `EmberError`."""
    reply = await pool.call(address, GET_ROUTING, GetRouting(), timeout=timeout_s)
    assert reply.routing is not None, "a client that knows version 0 always gets the routing"
    routing: Routing = reply.routing
    return routing


async def ask_to_rest(control: Address, timeout_s: float, tls_ca: str = "", token: str = "") -> None:
    """Tell the manager whose control plane is `control` that the whole cluster is taken down. Durable on return.
    Raises `EmberError`."""
    from fs_client.cli.manager_api import manager_at

    async with manager_at(control, tls_ca, token) as api:
        await api.order("Rest", timeout_s=timeout_s)


async def wait_until_ready(
    address: tuple[str, int], cluster: str, storage: int, timeout_s: float, tls_ca: str = "", token: str = ""
) -> Routing:
    """Return once all storage daemons are up and there is a chain table. Raises `Failure` after `timeout_s`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    pool = PeerPool(hello(cluster, token), tls=client_tls(tls_ca))
    last = "the metadata service does not answer"
    try:
        while loop.time() < deadline:
            try:
                routing = await fetch_routing(pool, address, _CALL_TIMEOUT_S)
            except EmberError as error:
                if error.code is Code.UNAUTHENTICATED:
                    raise Failure(error.message) from None
                last = str(error)
            else:
                up = sum(node.state == NodeState.UP for node in routing.nodes)
                if up >= storage and any(table.chains for table in routing.tables):
                    return routing
                last = f"{up} of {storage} storage daemons are up, and {len(routing.chains)} chains laid out"
            await asyncio.sleep(_POLL_S)
    finally:
        await pool.close()
    raise Failure(f"the cluster is not ready after {timeout_s:.0f} s: {last}")
