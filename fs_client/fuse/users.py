"""Who asks: the user of a request, as the metadata service wants it."""

from typing import TYPE_CHECKING

from fs_common.records.meta import User as User

if TYPE_CHECKING:
    from fs_client.fuse.kernel_request import Request

_known: dict[tuple[int, int], User] = {}
_KNOWN_MAX = 1024


def user_of(request: "Request") -> User:
    """User and group of the process, without supplementary groups but those that the kernel sent along."""
    if request.extensions:
        return User(request.uid, request.gid, list(request.groups()))
    key = (request.uid, request.gid)
    user = _known.get(key)
    if user is None:
        if len(_known) >= _KNOWN_MAX:
            _known.clear()
        user = _known[key] = User(request.uid, request.gid, [])
    return user


def groups_of(request: "Request") -> list[int]:
    """Supplementary groups: those of the process, as long as it lives, and what the kernel sent along."""
    groups = set(request.groups())
    try:
        with open(f"/proc/{request.pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("Groups:"):
                    groups.update(map(int, line.split()[1:]))
                    break
    except OSError:
        pass
    groups.discard(request.gid)
    return sorted(groups)
