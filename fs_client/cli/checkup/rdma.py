"""Looks at what RDMA needs on this machine, from the kernel's files: devices, links, addresses, packets, locked memory.

Reads below a root, so that a test may show it another machine.
"""

import errno
import ipaddress
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fs_client.cli.checkup.finding import Finding, note, ok, warning

if TYPE_CHECKING:
    from fs_client.cli.checkup.machine import Machine

LOCKED_WANTED_BYTES = 64 << 20
"""What registered memory of one client takes."""
PACKET_BYTES_MAX = 4096
PACKET_HEADERS_BYTES = 80
"""What the headers of RoCE v2 take of an interface's MTU."""
BINDINGS = ("pyverbs", "ibverbs")
ACTIVE = "4"
CAP_IPC_LOCK = 14
UNLIMITED = resource.RLIM_INFINITY


def look(machine: "Machine") -> Iterator[Finding]:
    top = machine.root / "sys/class/infiniband"
    devices = sorted(top.iterdir()) if top.is_dir() else []
    if not devices:
        yield ok("rdma", "no RDMA device: data goes over TCP")
        return
    names = ", ".join(device.name for device in devices)
    module = next((name for name in BINDINGS if machine.has_module(name)), None)
    if module is None:
        yield note(
            "rdma",
            f"RDMA devices are there ({names}), and neither pyverbs nor ibverbs is installed: data goes over TCP",
            "install the package python3-pyverbs, or pip install 'emberfs[rdma]'",
        )
    elif trouble := machine.verbs_trouble():
        yield warning(
            "rdma",
            f"RDMA devices are there ({names}), and {trouble}: data goes over TCP",
            "docs/OPERATIONS.md says which package is for which Python and which libraries",
        )
        module = None
    yield from _node(machine)
    usable = 0
    for device in devices:
        for port in _sorted(device / "ports"):
            found = list(_port(machine.root, device.name, port))
            usable += not any(finding.subject in ("rdma link", "rdma address") for finding in found)
            yield from found
    yield from _locked_memory(machine)
    if module is not None and usable:
        yield ok("rdma", f"{module}, and {usable} {'port that works' if usable == 1 else 'ports that work'} ({names})")
    elif not usable:
        yield warning(
            "rdma",
            f"none of the RDMA devices ({names}) can be used: data goes over TCP",
            "see what is said of their ports",
        )


def _node(machine: "Machine") -> Iterator[Finding]:
    """The kernel has devices of the whole machine; a container has the files that it was given."""
    nodes = [path for path in _sorted(machine.root / "dev/infiniband") if path.name.startswith("uverbs")]
    if not nodes:
        yield note(
            "rdma device",
            "there is no /dev/infiniband/uverbs0: programs cannot use the RDMA devices, and data goes over TCP",
            "`modprobe ib_uverbs`; in a container: --device /dev/infiniband",
        )
    for path in nodes:
        if failed := machine.open_device(path):
            yield warning(
                "rdma device",
                f"/dev/infiniband/{path.name} cannot be opened: {os.strerror(failed)}",
                "give it mode 0666, as udev does; in a container: --device /dev/infiniband"
                if failed in (errno.EACCES, errno.EPERM)
                else "see the kernel's log",
            )


def _port(root: Path, device: str, port: Path) -> Iterator[Finding]:
    state = line_of(port / "state")
    where = f"port {port.name} of {device}"
    interface = next((name for path in _sorted(port / "gid_attrs/ndevs") if (name := line_of(path))), "")
    named = interface or "its network interface"
    if not state.startswith(ACTIVE):
        yield warning(
            "rdma link",
            f"{where} is not active: {state.partition(': ')[2] or 'unknown'}",
            f"bring {named} up (ip link set {interface or 'INTERFACE'} up), and look at cable and switch",
        )
        return
    infiniband = line_of(port / "link_layer") == "InfiniBand"
    addresses = []
    for path in _sorted(port / "gids"):
        address = _address(line_of(path))
        kind = line_of(port / "gid_attrs/types" / path.name)
        if address is not None and (infiniband or kind != "IB/RoCE v1"):
            addresses.append(address)
    if not addresses:
        yield warning("rdma address", f"{where} has no address (GID)", f"give {named} an IP address")
    elif not infiniband and all(address.is_link_local for address in addresses):
        yield warning(
            "rdma address",
            f"{where} has addresses of its link alone ({', '.join(map(str, addresses[:2]))}): they are not used unless "
            "rdma_subnets names their network",
            f"give {named} an IP address",
        )
    mtu = line_of(root / "sys/class/net" / interface / "mtu") if interface else ""
    if mtu.isdecimal() and (packet := packet_bytes(int(mtu))) < PACKET_BYTES_MAX:
        yield note(
            "rdma packets",
            f"{interface} has an MTU of {mtu}: {where} sends packets of {packet} bytes",
            f"with `ip link set {interface} mtu 4200`, and switches that carry it, they are of {PACKET_BYTES_MAX}",
        )


def packet_bytes(mtu: int) -> int:
    """Payload of a packet on an interface with this MTU: a power of two from 256 to 4096."""
    fit = max(mtu - PACKET_HEADERS_BYTES, 256)
    return min(1 << fit.bit_length() - 1, PACKET_BYTES_MAX)


def _locked_memory(machine: "Machine") -> Iterator[Finding]:
    soft, hard = machine.limits().locked_bytes
    if _has_ipc_lock(machine.root):
        return
    if hard != UNLIMITED and hard < LOCKED_WANTED_BYTES:
        yield warning(
            "locked memory",
            f"a process may lock {hard >> 10} KiB: RDMA registers more",
            "raise memlock to unlimited (limits.conf, LimitMEMLOCK=infinity, --ulimit memlock=-1)",
        )
    elif soft != UNLIMITED and soft < LOCKED_WANTED_BYTES:
        yield note("locked memory", f"the soft limit is {soft >> 10} KiB; it is raised when RDMA is used")


def _has_ipc_lock(root: Path) -> bool:
    """Limits of locked memory do not hold for this process."""
    for line in line_of(root / "proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> CAP_IPC_LOCK & 1)
    return False


def _address(gid: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.IPv6Address(gid)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if int(address) & (1 << 64) - 1 else None


def _sorted(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def line_of(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
