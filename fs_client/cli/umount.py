"""`emberfs umount`: the end of a mount."""

from pathlib import Path

import click

from fs_client.cli.failure import Failure


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--lazy", "-l", is_flag=True, help="Take it out of the name space now; it ends when nobody uses it.")
@click.option("--force", "-f", is_flag=True, help="Even if its daemon does not answer: who waits gets an error.")
def umount(mountpoint: Path, lazy: bool, force: bool) -> None:
    """Unmount what `emberfs mount` has mounted.

    Returns when what programs have written is stored and the mount's daemon has ended, and says meanwhile what is left;
    with --lazy and --force at once. Works also when the daemon is dead, and with --force when the cluster is.

    \b
    Example:
      emberfs umount /mnt/ember
    """
    lost = end_mount(str(mountpoint), lazy=lazy, force=force)
    if lost:
        raise Failure(lost)


def end_mount(mountpoint: str, *, lazy: bool, force: bool) -> str:
    """Unmount, and, unless `lazy` or `force`, wait for the daemon's end; on stderr it says meanwhile what is left.

    Returns what was lost, in one line; empty: nothing. Raises OSError: it is still mounted.
    """
    from fs_client.fuse import ending
    from fs_client.fuse.mountpoint import unmount

    daemon = None if lazy or force else ending.connect(mountpoint)
    unmount(mountpoint, lazy=lazy, force=force)
    lost = ""
    if daemon is not None:
        for line in ending.lines(daemon):
            if line.startswith(ending.LOST):
                lost = line
            else:
                click.echo(line, err=True)
    return lost
