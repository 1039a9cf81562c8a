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
    """Supplementary groups: what the kernel sent along, and those of the process, while it certainly is the one that
    asked: it waits in the kernel until its request is answered, and cannot become another one meanwhile. That its user
    and group are those of the request is looked at all the same."""
    groups = set(request.groups())
    try:
        with open(f"/proc/{request.pid}/status", encoding="ascii", errors="replace") as status:
            fields = {name: value.split() for name, _, value in (line.partition(":") for line in status)}
        # Real, effective, saved, of file systems.
        same = (int(fields["Uid"][3]), int(fields["Gid"][3])) == (request.uid, request.gid)
        if same and not request.answered:
            groups.update(map(int, fields["Groups"]))
    except (OSError, KeyError, IndexError, ValueError):
        pass
    groups.discard(request.gid)
    return sorted(groups)
