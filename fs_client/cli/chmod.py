"""`emberfs chmod`."""

from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.failure import Usage
from fs_client.cli.options import cluster_option, recursive_r_option, verbose_option
from fs_client.cli.remote import require_all

if TYPE_CHECKING:
    from fs_client.stat_result import StatResult


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("mode")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@recursive_r_option
@verbose_option
@cluster_option
def chmod(mode: str, paths: tuple[str, ...], recursive: bool, verbose: bool, cluster: str) -> None:
    """Change permissions of files and directories.

    MODE is octal or what chmod(1) takes: u+x, go-w, a+rX. With -R, symbolic links in the tree are left alone; of one
    that is named, what it leads to is changed.

    \b
    Example:
      emberfs chmod 750 ember:/data
      emberfs chmod -R go-w,a+rX ember:/data
    """
    import os

    from fs_client.cli.changing import change
    from fs_client.cli.modes import change_of

    umask = os.umask(0o022)
    os.umask(umask)
    try:
        new = change_of(mode, umask)
    except ValueError as error:
        raise Usage(str(error)) from None

    def changes(found: "StatResult") -> dict[str, Any]:
        bits = new(found.attributes.mode, found.type == 2)
        return {} if bits == found.attributes.mode else {"mode": bits}

    change(require_all(paths, cluster), changes, recursive=recursive, verbose=verbose)
