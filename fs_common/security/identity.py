"""Who a caller is, and as whom it acts: what servers ask instead of the request.

An identity is made of a token by the metadata service (`Authenticator`), and of a pass by storage daemons
(`fs_common.security.passes`). It says what its caller may do until its connection ends. Pure.

Page: docs/SECURITY.md.
"""

import enum
from typing import Final, Protocol

import msgspec

from fs_common.errors import Code, EmberError
from fs_common.records.meta import User

CLIENT: Final = "client"
META: Final = "meta"
STORAGE: Final = "storage"
"""Roles. As in `Hello.role`."""

NOBODY: Final = 65534
"""The uid and gid that root is given where root is squashed."""


class Grants(enum.IntFlag):
    """What an identity has beyond being itself. Numbers are stored and sent: stable for ever."""

    NONE = 0
    ADMIN = 1
    """May administer the cluster."""
    ANY_USER = 2
    """Acts as the user that each request names: a mount, for the users that its kernel names; a user flagged `root`."""
    SQUASH_ROOT = 4
    """With `ANY_USER`: whoever comes as root acts as nobody."""


_NOBODY: Final = User(NOBODY, NOBODY, [])
_ANY_USER: Final = int(Grants.ANY_USER)
_SQUASH_ROOT: Final = int(Grants.SQUASH_ROOT)
"""Plain ints: `acting` is asked for every operation on names, and members of an enum cost as much as all the rest."""


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Who somebody is."""

    role: str
    """`CLIENT`, `META` or `STORAGE`."""
    client: bytes = b""
    """16 bytes: the client or node that is connected, as in `Hello.client`. b"" on the other planes."""
    name: str = ""
    """Of the user; of a daemon's: "". For people."""
    user: User = User(NOBODY, NOBODY)
    """Its uid, gid and groups. Means nothing of daemons."""
    node: int = 0
    """The storage node it speaks for. 0: of a storage daemon's, any; else none."""
    grants: int = 0
    """`Grants`"""
    token: str = ""
    """Id of the token it was made of, which may be revoked. "": of no token."""

    @property
    def admin(self) -> bool:
        return bool(self.grants & Grants.ADMIN)

    @property
    def needs_permits(self) -> bool:
        """Of storage daemons, who ask it for the right to each file: it acts for one user, and not for root."""
        return self.role == CLIENT and not self.grants & Grants.ANY_USER and self.user.uid != 0

    def acting(self, asked: User) -> User:
        """As whom a request is carried out that asks to act as `asked`."""
        grants = self.grants
        if not grants & _ANY_USER:
            return self.user
        if grants & _SQUASH_ROOT and asked.uid == 0:
            return _NOBODY
        return asked

    def speaks_for(self, node: int) -> bool:
        """Whether it is a daemon of storage node `node`."""
        return self.role == STORAGE and self.node in (0, node)

    def __str__(self) -> str:
        """For logs and messages."""
        if self.role == CLIENT:
            return f"user {self.name!r} (token {self.token or 'none'})"
        return f"{self.role} node {self.node}" if self.node else self.role


def require_admin(identity: Identity | None, what: str) -> None:
    """Raises ACCESS_DENIED unless the caller may administer the cluster. None: nobody has to say who he is."""
    if identity is not None and not identity.admin:
        raise EmberError(
            Code.ACCESS_DENIED,
            f"{what} needs a token that may administer the cluster, which that of {identity} may not",
        )


class Authenticator(Protocol):
    """Tokens and whom they stand for; `fs_meta.users` has the real one. One for all planes of a metadata server."""

    @property
    def enabled(self) -> bool:
        """Whether callers have to say who they are. False: `identify` is not asked."""

    def identify(self, token: str) -> Identity:
        """Whom `token` (the text of one) stands for, now. Raises UNAUTHENTICATED: nobody, or not any more.

        Cheap: one hash, no I/O. A token may be revoked at any time, so what outlives a request asks again.
        """
