"""The GIDs of a port as the kernel lists them in /sys: not every binding tells their kinds."""

from pathlib import Path

from fs_common.transports.rdma.verbs import Gid, GidKind

DEVICES = Path("/sys/class/infiniband")
HOLE_MOST = 16
"""A table has hundreds of entries, nearly all empty at its end: so many empty ones in a row are taken for the end."""


def gids(device: str, port: int, infiniband: bool, top: Path = DEVICES) -> tuple[Gid, ...]:
    """Those that are set, in order of the table."""
    folder = top / device / "ports" / str(port)
    found = []
    index = empty = 0
    while empty < HOLE_MOST:
        address = bytes.fromhex(_line(folder / "gids" / str(index)).replace(":", ""))
        kind = _line(folder / "gid_attrs" / "types" / str(index)) if any(address) else ""
        if any(address) and (kind or infiniband):
            found.append(Gid(index, address, _kind(kind, infiniband)))
            empty = 0
        else:
            empty += 1
        index += 1
    return tuple(found)


def _kind(text: str, infiniband: bool) -> GidKind:
    if infiniband:
        return GidKind.INFINIBAND
    return GidKind.ROCE_V2 if text == "RoCE v2" else GidKind.ROCE_V1


def _line(path: Path) -> str:
    """An empty entry's kind cannot be read: there is an error in its place."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
