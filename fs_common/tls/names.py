"""What a daemon's certificate says that it is.

A cluster has an authority of its own, so whatever that has signed belongs to the cluster. A certificate names what its
owner is and not where it runs, so that a daemon may change its address and keep its certificate:

    emberfs.internal             every daemon; what clients ask for
    meta.emberfs.internal        a metadata server
    storage-3.emberfs.internal   the storage daemon of node 3

Hosts and addresses stand beside them for those who do not know these names: browsers, curl, Prometheus. `.internal` is
never resolved outside a private network, and nobody resolves these: they are compared.

Pure. Called by: `files` (what is asked for), `making` (what is written), transports (who the other side is).
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

DAEMON_NAME = "emberfs.internal"
META = "meta"
STORAGE = "storage"

_STORAGE_NAME = re.compile(rf"storage-([1-9][0-9]{{0,7}})\.{re.escape(DAEMON_NAME)}", re.ASCII)


class Proven(NamedTuple):
    """What the other side of a connection has proven to be."""

    role: str
    """"meta" or "storage"; "": it showed no certificate."""
    node: int = 0
    """Of a storage daemon."""

    def stands_for(self, role: str, node: int) -> bool:
        return self.role == role and (role != STORAGE or self.node == node)

    def __str__(self) -> str:
        return describe(self.role, self.node) if self.role else "nobody"


NOBODY = Proven("")


def names_of(proven: Proven) -> list[str]:
    """The names in the certificate of such a daemon."""
    own = f"{STORAGE}-{proven.node}" if proven.role == STORAGE else proven.role
    return [DAEMON_NAME, f"{own}.{DAEMON_NAME}"]


def proven_by(names: Iterable[str]) -> Proven:
    """Which daemon a certificate with these names is of. `NOBODY`: of none."""
    for name in names:
        if name == f"{META}.{DAEMON_NAME}":
            return Proven(META)
        if found := _STORAGE_NAME.fullmatch(name):
            return Proven(STORAGE, int(found[1]))
    return NOBODY


def describe(role: str, node: int) -> str:
    """Of a daemon, in words."""
    if role == STORAGE:
        return f"storage node {node}"
    return "a metadata server" if role == META else f"a {role}"
