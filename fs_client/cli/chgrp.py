"""`emberfs chgrp`."""

import click

from fs_client.cli.chown import change_owner, gid_of
from fs_client.cli.options import HUMAN_H, cluster_option, no_dereference_option, recursive_r_option, verbose_option


@click.command(context_settings=HUMAN_H)
@click.argument("group")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@recursive_r_option
@no_dereference_option
@verbose_option
@cluster_option
def chgrp(
    group: str, paths: tuple[str, ...], recursive: bool, no_dereference: bool, verbose: bool, cluster: str
) -> None:
    """Change groups of files and directories.

    GROUP is a name of this machine, or a number. With -R, symbolic links in the tree are left alone.

    \b
    Example:
      emberfs chgrp -R research ember:/data
    """
    change_owner(paths, None, gid_of(group), recursive, no_dereference, verbose, cluster)
