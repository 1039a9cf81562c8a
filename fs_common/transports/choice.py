"""What is configured of the transport for payload: TCP, RDMA, or whatever there is. Pure; knows no verbs.

`auto` uses RDMA where both sides can, and TCP everywhere else, without a word. `rdma` says why it cannot. RDMA is not
encrypted: with TLS, `auto` is TCP, and `rdma` is refused.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

AUTO: Final = "auto"
TCP: Final = "tcp"
RDMA: Final = "rdma"
TRANSPORTS: Final = (AUTO, TCP, RDMA)


class TransportChoice(NamedTuple):
    transport: str = TCP
    rdma_devices: tuple[str, ...] = ()
    """NAME or NAME:PORT. Empty: all there are."""
    rdma_subnets: tuple[str, ...] = ()
    """ADDRESS/BITS. Empty: all."""

    @property
    def may_be_rdma(self) -> bool:
        return self.transport != TCP


ONLY_TCP = TransportChoice()
WHAT_THERE_IS = TransportChoice(AUTO)


def transport_choice(
    transport: str,
    rdma_devices: str | Iterable[str] | None = None,
    rdma_subnets: str | Iterable[str] | None = None,
    *,
    tls: bool = False,
) -> TransportChoice:
    """Checked. Devices and subnets: several, or one text with commas or plus signs between. Raises ValueError."""
    if transport not in TRANSPORTS:
        raise ValueError(f"transport {transport!r} is none of {', '.join(TRANSPORTS)}")
    choice = TransportChoice(transport, words(rdma_devices), words(rdma_subnets))
    if choice.rdma_devices or choice.rdma_subnets:
        from fs_common.transports.rdma.devices import wanted

        wanted(choice.rdma_devices, choice.rdma_subnets)
    if tls and transport == RDMA:
        raise ValueError("transport 'rdma' does not go with TLS: RDMA is not encrypted; use 'auto', or leave TLS out")
    return choice._replace(transport=TCP) if tls else choice


def words(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Of a text with commas or plus signs between (a mount's options have commas of their own), or as they are."""
    if given is None:
        return ()
    if isinstance(given, str):
        given = given.replace("+", ",").split(",")
    return tuple(word.strip() for word in given if word.strip())
