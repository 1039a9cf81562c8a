"""`emberfs chown`; the owner and group of `emberfs chgrp`, too."""

from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.failure import Usage
from fs_client.cli.options import HUMAN_H, cluster_option, no_dereference_option, recursive_r_option, verbose_option
from fs_client.cli.remote import require_all

if TYPE_CHECKING:
    from fs_client.stat_result import StatResult

_ID_MAX = 2**32 - 2


@click.command(context_settings=HUMAN_H)
@click.argument("owner", metavar="[OWNER][:GROUP]")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@recursive_r_option
@no_dereference_option
@verbose_option
@cluster_option
def chown(
    owner: str, paths: tuple[str, ...], recursive: bool, no_dereference: bool, verbose: bool, cluster: str
) -> None:
    """Change owners and groups of files and directories.

    Names are those of this machine, and numbers are taken as they are. OWNER: with nothing behind the colon stands for
    the owner's own group. With -R, symbolic links in the tree are left alone.

    \b
    Example:
      emberfs chown alice:research ember:/data
      emberfs chown -R 1000:1000 ember:/scratch
    """
    uid, gid = ids_of(owner)
    change_owner(paths, uid, gid, recursive, no_dereference, verbose, cluster)


def change_owner(
    paths: tuple[str, ...],
    uid: int | None,
    gid: int | None,
    recursive: bool,
    no_dereference: bool,
    verbose: bool,
    cluster: str,
) -> None:
    """None leaves it as it is."""
    from fs_client.cli.changing import change

    def changes(found: "StatResult") -> dict[str, Any]:
        wanted = {"uid": (uid, found.st_uid), "gid": (gid, found.st_gid)}
        return {name: new for name, (new, old) in wanted.items() if new is not None and new != old}

    locations = require_all(paths, cluster)
    change(locations, changes, recursive=recursive, follow=not no_dereference, verbose=verbose)


def ids_of(text: str) -> tuple[int | None, int | None]:
    """(uid, gid) of `OWNER`, `OWNER:GROUP`, `OWNER:` and `:GROUP`. Raises `Usage`."""
    owner, colon, group = text.partition(":")
    if not owner and not group:
        raise Usage(f"{text!r} names neither an owner nor a group; write alice, alice:research or :research")
    uid = _uid(owner) if owner else None
    if group or not colon:
        return uid, gid_of(group) if group else None
    import pwd

    try:
        return uid, pwd.getpwuid(uid or 0).pw_gid
    except KeyError:
        raise Usage(f"{text!r}: this machine does not know the group of user {uid}; name it") from None


def _uid(text: str) -> int:
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        return _number(text, "user")


def gid_of(text: str) -> int:
    """Raises `Usage`."""
    import grp

    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        return _number(text, "group")


def _number(text: str, what: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= _ID_MAX:
        return int(text)
    raise Usage(f"this machine knows no {what} {text!r}; its number is taken, too")
