"""Figures of a server of the data plane: its methods, its connections, what is in work.

Called by: `fs_meta.metrics`, `fs_storage.metrics`, on the process's loop.
"""

from collections import Counter

from fs_common.methods import BY_NUMBER
from fs_common.metric_families import (
    CONNECTIONS,
    RPC_BYTES_IN_WORK,
    RPC_CALLS,
    RPC_ERRORS,
    RPC_IN_WORK,
    RPC_LATENCY,
    RPC_RECEIVED,
    RPC_SENT,
    RPC_UNSENT,
)
from fs_common.metrics import Figures, gather_process
from fs_common.rpc import Service
from fs_common.transports.choice import TCP
from fs_common.transports.tcp import Server

ROLES = ("client", "meta", "storage")


def gather_service(figures: Figures, server: Server) -> None:
    service = server.service
    gather_process(
        figures,
        role=service.role,
        cluster=service.cluster,
        node=service.node,
        slow_operations=service.slow_operations,
    )
    for registration in service.registrations.values():
        if registration.calls:
            name = registration.method.name
            figures.add(RPC_CALLS, registration.calls, name)
            figures.add_latency(RPC_LATENCY, registration.latency, name)
            if registration.allocate is not None:
                figures.add(RPC_RECEIVED, registration.received_bytes, name)
            if registration.sent_bytes:
                figures.add(RPC_SENT, registration.sent_bytes, name)
    for (number, code), count in service.error_frames.items():
        method = BY_NUMBER.get(number)
        figures.add(RPC_ERRORS, count, method.name if method is not None else "none", code.name)
    in_work, bytes_in_work, unsent_bytes = server.in_work()
    figures.add(RPC_IN_WORK, in_work)
    figures.add(RPC_BYTES_IN_WORK, bytes_in_work)
    figures.add(RPC_UNSENT, unsent_bytes)
    for (role, transport), count in connections(service).items():
        figures.add(CONNECTIONS, count, role, transport)


def connections(service: Service) -> dict[tuple[str, str], int]:
    """How many there are, by who called and how payload travels."""
    found = Counter(
        (session.hello.role, session.connection.link.transport)
        for session in service.sessions
        if session.connection is not None
    )
    return {(role, transport): found[role, transport] for role in ROLES for transport in (TCP, *service.transports)}
