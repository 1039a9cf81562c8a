"""Which device, port and address a connection goes over. Pure: what there is, what is wanted and what failed go in.

A *way* is a port of this machine with one of its addresses (GIDs). Usable is a way whose port is active, whose device
and subnet are wanted, and whose address travels: of InfiniBand, or of RoCE v2 with a routed address (one of a link
alone only where it is asked for by its subnet).

Two ways reach each other if they are of one kind and family, and in one subnet: of those that are configured; where
none is, all of RoCE v2 are taken to be routed to each other, and of InfiniBand those with one subnet prefix. Of
several, the one whose address has most in common with the other's comes first, then the one with the fewest
connections, so that several devices and ports share them.

A way that failed is tried last for a while: at all for `PENALTY_S` where the fault may be its own, and longer with each
failure in a row. Where only one other side could not be reached, it is not tried for that one for as long.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple

from fs_common.transports.rdma.verbs import Device, Gid, GidKind, PortState

PENALTY_S = 5.0
PENALTY_MAX_S = 80.0
LINK_LOCAL = IPv6Network("fe80::/10")

Network = IPv4Network | IPv6Network


class Wanted(NamedTuple):
    """What is configured. Nothing: every device and subnet will do."""

    devices: tuple[tuple[str, int], ...] = ()
    """Names and ports; port 0: all of them."""
    subnets: tuple[Network, ...] = ()


ANYTHING = Wanted()


def wanted(devices: Iterable[str] = (), subnets: Iterable[str] = ()) -> Wanted:
    """`devices`: names, or NAME:PORT; `subnets`: ADDRESS/BITS. Raises ValueError for what is neither."""
    return Wanted(tuple(map(_device, devices)), tuple(map(_subnet, subnets)))


def _device(text: str) -> tuple[str, int]:
    name, colon, port = text.strip().partition(":")
    if not name or "/" in name or (colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 256)):
        raise ValueError(
            f"rdma_devices: {text!r} is no device: write its name (ls /sys/class/infiniband), or NAME:PORT"
        )
    return name, int(port or 0)


def _subnet(text: str) -> Network:
    try:
        return ip_network(text.strip())
    except ValueError as error:
        raise ValueError(f"rdma_subnets: {error}; write ADDRESS/BITS, as 10.1.0.0/16") from None


class Way(NamedTuple):
    """A port of this machine, by one of its addresses."""

    device: str
    port: int
    gid: Gid
    mtu_bytes: int
    lid: int

    def __str__(self) -> str:
        return f"{self.device}:{self.port} ({self.gid.ip})"


class Found(NamedTuple):
    """What `usable` found."""

    ways: list[Way]
    obstacles: list[str]
    """Why each of the others is not used, a line each."""


def usable(devices: Sequence[Device], wanted: Wanted = ANYTHING) -> Found:
    found = Found([], [])
    if not devices:
        found.obstacles.append("this machine has no RDMA device")
    names = {device.name for device in devices}
    found.obstacles.extend(
        f"{name}: there is no such RDMA device; there are: {', '.join(sorted(names)) or 'none'}"
        for name, _ in wanted.devices
        if name not in names
    )
    for device in devices:
        ports = {port for name, port in wanted.devices if name == device.name}
        if wanted.devices and not ports:
            found.obstacles.append(f"{device.name} is not among rdma_devices")
            continue
        for port in device.ports:
            where = f"{device.name}:{port.number}"
            if ports and 0 not in ports and port.number not in ports:
                found.obstacles.append(f"{where} is not among rdma_devices")
            elif port.state is not PortState.ACTIVE:
                found.obstacles.append(f"{where}: its link is {port.state.value}")
            else:
                gids = [gid for gid in port.gids if _travels(gid, wanted.subnets)]
                if not gids:
                    found.obstacles.append(f"{where}: {_no_address(port.gids, wanted.subnets)}")
                found.ways.extend(Way(device.name, port.number, gid, port.mtu_bytes, port.lid) for gid in gids)
        found.obstacles.extend(
            f"{device.name}:{number}: there is no such port"
            for number in sorted(ports - {0, *(port.number for port in device.ports)})
        )
    return found


def _travels(gid: Gid, subnets: tuple[Network, ...]) -> bool:
    if gid.kind is GidKind.ROCE_V1:
        return False
    if subnets:
        return any(_within(gid.ip, subnet) for subnet in subnets)
    return gid.kind is GidKind.INFINIBAND or not _within(gid.ip, LINK_LOCAL)


def _no_address(gids: Sequence[Gid], subnets: tuple[Network, ...]) -> str:
    fit = [gid for gid in gids if gid.kind is not GidKind.ROCE_V1]
    if not fit:
        return "it has no address (GID) of RoCE v2: give its network interface an IP address"
    addresses = ", ".join(str(gid.ip) for gid in fit)
    if subnets:
        return f"none of its addresses ({addresses}) is in rdma_subnets"
    return f"its only addresses ({addresses}) are of its link alone: give its network interface an IP address"


def _within(address: IPv4Address | IPv6Address, network: Network) -> bool:
    return address.version == network.version and address in network


def reach(way: Gid, other: Gid, subnets: tuple[Network, ...] = ()) -> int | None:
    """How many bits both addresses have in common from the front; None: they do not reach each other."""
    if way.kind is not other.kind:
        return None
    here, there = way.ip, other.ip
    if here.version != there.version:
        return None
    if subnets and not any(_within(here, subnet) and _within(there, subnet) for subnet in subnets):
        return None
    width = here.max_prefixlen
    bits = width - (int(here) ^ int(there)).bit_length()
    if way.kind is GidKind.INFINIBAND and bits < 64:
        return None
    return bits


class _Penalty:
    """Of a way that failed."""

    __slots__ = ("failures", "until_s")

    def __init__(self) -> None:
        self.failures = 0
        self.until_s = 0.0

    def add(self, now_s: float) -> None:
        self.until_s = now_s + min(PENALTY_S * 2.0**self.failures, PENALTY_MAX_S)
        self.failures += 1


class Choice:
    """What this process remembers of its ways. `now_s` is of any clock that only goes on."""

    def __init__(self, wanted: Wanted = ANYTHING) -> None:
        self.wanted = wanted
        self._open: dict[tuple[str, int], int] = {}
        """Connections by device and port."""
        self._failed: dict[tuple[str, int], _Penalty] = {}
        self._unreached: dict[tuple[str, int, str], _Penalty] = {}
        """By device, port and the other side's name."""

    def to_server(self, devices: Sequence[Device], server: str, now_s: float) -> list[Way]:
        """Ways for a connection to `server` (its name, the same for all connections to it), the best first: what its
        addresses are is not known yet. One way for each port; those that failed for it lately are left out."""
        best: dict[tuple[str, int], Way] = {}
        for way in usable(devices, self.wanted).ways:
            place = (way.device, way.port)
            if self._punished(self._unreached.get((*place, server)), now_s):
                continue
            # Of the addresses of a port, the first of IPv4: what people give interfaces, and what peers have.
            if place not in best or (best[place].gid.ip.version == 6 and way.gid.ip.version == 4):
                best[place] = way
        return sorted(
            best.values(),
            key=lambda way: (
                self._punished(self._failed.get((way.device, way.port)), now_s),
                self._open.get((way.device, way.port), 0),
                way.device,
                way.port,
            ),
        )

    def to_caller(self, devices: Sequence[Device], caller: Gid, now_s: float) -> Way | None:
        """The way for the connection of a caller whose address is `caller`; None: none reaches it."""
        best: Way | None = None
        best_rank: tuple[bool, int, int, str, int] | None = None
        for way in usable(devices, self.wanted).ways:
            bits = reach(way.gid, caller, self.wanted.subnets)
            if bits is None:
                continue
            place = (way.device, way.port)
            # The same address, and the next one, are no nearer than another of their rack.
            near = min(bits, way.gid.ip.max_prefixlen - 8)
            rank = (self._punished(self._failed.get(place), now_s), -near, self._open.get(place, 0), *place)
            if best_rank is None or rank < best_rank:
                best, best_rank = way, rank
        return best

    def opened(self, way: Way) -> None:
        """A connection goes over it: it is `closed` later."""
        place = (way.device, way.port)
        self._open[place] = self._open.get(place, 0) + 1

    def closed(self, way: Way) -> None:
        place = (way.device, way.port)
        left = self._open.get(place, 0) - 1
        if left > 0:
            self._open[place] = left
        else:
            self._open.pop(place, None)

    def failed(self, way: Way, now_s: float) -> None:
        """It may be broken: its port is down, or what was sent over a connection that had worked got no answer."""
        self._failed.setdefault((way.device, way.port), _Penalty()).add(now_s)

    def unreached(self, way: Way, server: str, now_s: float) -> None:
        """No connection to `server` could be made over it."""
        self._unreached.setdefault((way.device, way.port, server), _Penalty()).add(now_s)

    def worked(self, way: Way, server: str) -> None:
        """A connection to `server` (or from it) answers over it."""
        self._failed.pop((way.device, way.port), None)
        self._unreached.pop((way.device, way.port, server), None)

    @property
    def connections(self) -> dict[str, int]:
        """Open ones, by "device:port"."""
        return {f"{device}:{port}": count for (device, port), count in sorted(self._open.items())}

    @staticmethod
    def _punished(penalty: _Penalty | None, now_s: float) -> bool:
        return penalty is not None and now_s < penalty.until_s
