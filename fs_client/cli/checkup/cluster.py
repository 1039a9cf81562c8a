"""Looks at a cluster from this machine: names and ports, who answers, tokens, certificates, releases, clocks, chains.

Asks what any client may ask; what needs more rights than its token has is left out with a note.
"""

import asyncio
import dataclasses
import errno
import ipaddress
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

from fs_client.cli.checkup.finding import Finding, note, ok, problem, warning
from fs_client.options import Address, Options, client_tls
from fs_common.errors import Code, EmberError
from fs_common.methods import GET_CONTROL, GET_PASS, SCRUB, SPACE_INFO
from fs_common.records.control import GetControl, GetControlReply
from fs_common.records.routing import NodeInfo, NodeState
from fs_common.records.scrubbing import Scrub, ScrubReply
from fs_common.records.session import Empty, GivenPass
from fs_common.records.storage import SpaceInfo, SpaceInfoReply
from fs_common.transports.choice import RDMA

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

CONNECT_S = 3.0
BEGIN_S = 10.0
CALL_S = 5.0
CLOCKS_APART_S = 2.0
"""From here on files made by different machines look older or newer than they are."""
DAYS_LEFT = 21
"""A certificate that ends sooner is one that somebody has to look after."""
NAMED_MAX = 10
"""Of a kind, so many findings are told one by one."""
_REFUSED = frozenset((Code.UNAUTHENTICATED, Code.PASS_REFUSED, Code.ACCESS_DENIED))


class _Reached(NamedTuple):
    address: Address
    trouble: str
    """Empty: a connection was made."""
    do: str


async def look(options: Options) -> AsyncIterator[Finding]:
    """Everything about the cluster at these addresses; it ends early where nobody answers."""
    reached = await asyncio.gather(*(_reach(address, "metadata server") for address in options.addresses))
    for one in reached:
        if one.trouble:
            yield problem("metadata server", f"{one.address}: {one.trouble}", one.do)
    if all(one.trouble for one in reached):
        return
    from fs_client import aio

    patient = dataclasses.replace(options, timeout_s=BEGIN_S)
    try:
        fs = await aio.connect_with(patient)
    except (OSError, EmberError) as error:
        yield _not_let_in(options, error)
        return
    async with fs:
        routing = fs.routing.routing
        yield ok("metadata server", f"{fs.options.cluster} answers, cluster {routing.cluster}")
        for part in (
            _who_is_let_in,
            _certificates,
            _control_plane,
            _nodes,
            _clocks,
            _transports,
            _chains,
            _configuration,
        ):
            async for finding in part(fs):
                yield finding


async def _reach(address: Address, what: str) -> _Reached:
    try:
        await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return _Reached(
            address,
            f"the name {address.host!r} is not known: {error.strerror}",
            "use the right name, or enter it in DNS or /etc/hosts",
        )
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError:
        return _Reached(
            address,
            f"no answer within {CONNECT_S:g} s",
            "is the machine on? does a firewall drop what goes to that port?",
        )
    except ConnectionRefusedError:
        return _Reached(
            address,
            "nothing listens there",
            f"start the {what} (its log says why it ended), or use its right port",
        )
    except OSError as error:
        return _Reached(address, error.strerror or str(error), "look at routes and firewalls between here and there")
    writer.close()
    return _Reached(address, "", "")


def _not_let_in(options: Options, error: Exception) -> Finding:
    text = error.message if isinstance(error, EmberError) else (getattr(error, "strerror", None) or str(error))
    cause = error.__cause__ if error.__cause__ is not None else error
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM) or (isinstance(cause, EmberError) and cause.code in _REFUSED):
        do = (
            "ask who administers the cluster for another token"
            if options.read_token()
            else "give a token: --token-file, EMBERFS_TOKEN_FILE or EMBERFS_TOKEN"
        )
        return problem("token", text, do)
    if isinstance(cause, EmberError) and cause.code is Code.UNKNOWN_METHOD:
        return problem("metadata server", f"{options.cluster} is a storage daemon", "give a metadata server's address")
    if "TLS" in text or "certificate" in text:
        return problem(
            "tls",
            text,
            "EMBERFS_TLS_CA has to name the file with this cluster's authority (`emberfs certs show` tells whose)",
        )
    return problem("metadata server", text, "its log says why; `emberfs doctor` on its machine sees more")


async def _who_is_let_in(fs: "AsyncFileSystem") -> AsyncIterator[Finding]:
    given: GivenPass = await fs.metadata.call(GET_PASS, Empty())
    beyond = [address for address in fs.options.addresses if not _is_loopback(address.host)]
    if given.given_pass:
        yield ok("security", "on, and this client's token is accepted")
        if beyond and not fs.options.tls_ca:
            yield warning(
                "tls",
                "tokens and data go over the network as they are: whoever reads along has them",
                "`emberfs certs init`, and tls_dir in each daemon's configuration (docs/SECURITY.md)",
            )
    elif beyond:
        yield warning(
            "security",
            f"off, and the cluster listens at {beyond[0]}: whoever reaches it may do everything",
            'security = "on" in the metadata server\'s configuration, and tokens for clients and daemons',
        )
    else:
        yield ok("security", "off, on loopback: whoever is on this machine may do everything")


async def _certificates(fs: "AsyncFileSystem") -> AsyncIterator[Finding]:
    tls = client_tls(fs.options.tls_ca)
    if tls is None:
        return
    ends: dict[str, float] = {}
    for address in [*fs.options.addresses, *(Address(node.host, node.port) for node in fs.routing.routing.nodes)]:
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(
                    address.host, address.port, ssl=tls.client_context(), server_hostname=""
                )
        except (OSError, TimeoutError):
            continue  # told where it is not reached
        shown: dict[str, Any] = writer.get_extra_info("peercert") or {}
        writer.close()
        if "notAfter" in shown:
            ends[str(address)] = ssl.cert_time_to_seconds(shown["notAfter"])
    soon = {name: at for name, at in ends.items() if at - time.time() < DAYS_LEFT * 86_400}
    for name, at in sorted(soon.items())[:NAMED_MAX]:
        days = max(int((at - time.time()) / 86_400), 0)
        yield warning("certificate", f"that of {name} ends in {days} days", "`emberfs certs rotate` makes new ones")
    if ends and not soon:
        days = int((min(ends.values()) - time.time()) / 86_400)
        yield ok("certificate", f"{len(ends)} daemons show one of this cluster; the first ends in {days} days")


async def _control_plane(fs: "AsyncFileSystem") -> AsyncIterator[Finding]:
    managers = 0
    for address in fs.options.addresses:
        try:
            reply: GetControlReply = await fs.pool.call(address, GET_CONTROL, GetControl(), timeout=CALL_S)
        except EmberError:
            continue  # told where it is not reached
        managers += reply.manager
        reached = await _reach(Address(address.host, reply.port), "metadata server")
        if reached.trouble:
            yield warning(
                "control plane",
                f"{reached.address}: {reached.trouble}; commands that administer need it, and storage daemons do",
                "let this machine and the storage daemons connect to that port",
            )
    if not managers:
        yield problem(
            "manager",
            "no metadata server of those is the cluster manager: no chain changes, and no daemon keeps its lease",
            "one of the others is it: name all of them in the cluster's address; or its log says why it ended",
        )


async def _nodes(fs: "AsyncFileSystem") -> AsyncIterator[Finding]:
    from fs_common.release import RELEASE

    nodes = fs.routing.routing.nodes
    here = all(_is_loopback(address.host) for address in fs.options.addresses)
    up = [node for node in nodes if node.state is NodeState.UP]
    reached = await asyncio.gather(*(_reach(Address(node.host, node.port), "storage daemon") for node in up))
    for node, one in [(node, one) for node, one in zip(up, reached, strict=True) if one.trouble][:NAMED_MAX]:
        if _is_loopback(node.host) and not here:
            yield problem(
                "node",
                f"node {node.node} tells others to reach it at {one.address}, which is each machine itself",
                "set `host` in its configuration to an address that others reach",
            )
        else:
            yield problem(
                "node", f"node {node.node} is up, and not reached from here: {one.address}: {one.trouble}", one.do
            )
    for node in [node for node in nodes if node.state is not NodeState.UP][:NAMED_MAX]:
        yield problem(
            "node",
            f"node {node.node} ({node.host}:{node.port}) is {node.state.name.lower()}",
            "start its daemon again; its log says why it ended. `emberfs targets replace` if its disk is lost",
        )
    if up and not any(one.trouble for one in reached) and len(up) == len(nodes):
        yield ok("node", f"{len(up)} storage nodes are up, and reached from here")
    if not nodes:
        yield problem("node", "no storage daemon has joined yet", "start as many as `storage_nodes` says")
    releases = Counter(node.release for node in up if node.release)
    releases[RELEASE] += 0
    if len(releases) > 1:
        told = ", ".join(
            f"{release} ({count} nodes)" if count else f"{release} (here)" for release, count in releases.items()
        )
        yield note("release", f"not all have the same: {told}", "finish the upgrade")


async def _transports(fs: "AsyncFileSystem") -> AsyncIterator[Finding]:
    """Where this machine could RDMA: to which nodes it does. They are connected with, by what was asked before."""
    if not fs.transport.offers:
        return
    found = fs.pool.transports()
    nodes = [node for node in fs.routing.routing.nodes if (node.host, node.port) in found]
    slow = [node for node in nodes if found[node.host, node.port] != RDMA]
    if nodes and not slow:
        yield ok("rdma", f"data of {len(nodes)} storage nodes goes by RDMA from here")
    for node in slow[:NAMED_MAX]:
        address = f"{node.host}:{node.port}"
        yield note(
            "rdma",
            f"data of node {node.node} goes over TCP: {fs.transport.reasons.get(address, 'nobody has tried RDMA yet')}",
            "`emberfs doctor --here` on its machine; `transport` and `rdma_subnets` in its configuration",
        )


async def _clocks(fs: "AsyncFileSystem") -> AsyncIterator[Finding]:
    """The times of files come from clients' clocks, and logs from everybody's."""

    async def apart(node: NodeInfo) -> float | None:
        began = time.time()
        try:
            reply: ScrubReply = await fs.pool.call((node.host, node.port), SCRUB, Scrub(), timeout=CALL_S)
        except EmberError:
            return None
        ended = time.time()
        # Its clock was read somewhere between.
        return max(reply.now_s - ended, began - reply.now_s, 0.0)

    up = [node for node in fs.routing.routing.nodes if node.state is NodeState.UP]
    found = await asyncio.gather(*(apart(node) for node in up))
    wrong = [(node, gap) for node, gap in zip(up, found, strict=True) if gap is not None and gap > CLOCKS_APART_S]
    for node, gap in wrong[:NAMED_MAX]:
        yield warning(
            "clock",
            f"that of node {node.node} and this one are {gap:.0f} s apart; nothing is lost by it, times are wrong",
            "run an NTP client on both",
        )


async def _chains(fs: "AsyncFileSystem") -> AsyncIterator[Finding]:
    from fs_common.cluster_words import state_of

    async def space(node: NodeInfo) -> SpaceInfoReply | None:
        try:
            found: SpaceInfoReply = await fs.pool.call((node.host, node.port), SPACE_INFO, SpaceInfo(), timeout=CALL_S)
        except EmberError:
            return None
        return found

    routing = fs.routing.routing
    state = state_of(routing, await asyncio.gather(*(space(node) for node in routing.nodes)))
    counts = Counter(chain["state"] for chain in state["chains"])
    if not state["chains"]:
        yield problem(
            "chains",
            f"there is no chain yet: {len(routing.nodes)} storage nodes have joined",
            "chains are made when as many have joined as `storage_nodes` in the metadata server's configuration says",
        )
    elif counts["serving"] == len(state["chains"]):
        yield ok("chains", f"all {counts['serving']} have all their replicas")
    if counts["degraded"]:
        yield warning(
            "chains",
            f"{counts['degraded']} of {len(state['chains'])} lack a replica: they serve; another loss may stop them",
            "`emberfs chains` says of each what is done about it, and what helps",
        )
    if counts["offline"]:
        yield problem(
            "chains",
            f"{counts['offline']} of {len(state['chains'])} serve nothing: nobody can read what lies on them",
            "bring back the nodes that `emberfs chains` names",
        )
    for trouble in state["troubles"][:NAMED_MAX]:
        yield problem(
            "target",
            f"target {trouble['target']} on node {trouble['node']} does not serve: {trouble['reason']}",
            "if it does not come back by itself: `emberfs targets replace`",
        )
    for told in state["warnings"][:NAMED_MAX]:
        yield warning(
            "disk",
            f"target {told['target']} on node {told['node']}: {told['reason']}",
            "remove files, add nodes (`emberfs rebalance`), or follow what it says",
        )


async def _configuration(fs: "AsyncFileSystem") -> AsyncIterator[Finding]:
    """How nodes stand to the cluster's configuration: of the manager, which not everybody may ask."""
    from fs_client.cli.manager_api import has_grpc, manager_of

    if not has_grpc():
        return
    from fs_client.cli.failure import Failure
    from fs_client.cli.targets import listed_nodes
    from fs_common.records.cluster_config import ConfigStatus

    async with manager_of(fs) as api:
        try:
            listed = await listed_nodes(api)
        except (EmberError, Failure) as error:
            yield note("configuration", f"the manager was not asked: {getattr(error, 'message', error)}")
            return
    for node in [node for node in listed.nodes if node.config.status is ConfigStatus.FAILED][:NAMED_MAX]:
        yield problem(
            "configuration",
            f"node {node.node} cannot use version {node.config.version}: {node.config.reason}",
            "`emberfs config set` what is right, or `emberfs config rollback`",
        )
    waiting = [node.node for node in listed.nodes if node.config.status is ConfigStatus.DIRTY]
    if waiting:
        yield note(
            "configuration",
            f"{len(waiting)} nodes take up some of it at their next start: {', '.join(map(str, waiting[:NAMED_MAX]))}",
            "start them again, one after another",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
