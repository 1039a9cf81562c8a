"""`emberfs umount`: the end of a mount."""

from pathlib import Path

import click


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--lazy", "-l", is_flag=True, help="Take it out of the name space now; it ends when nobody uses it.")
@click.option("--force", "-f", is_flag=True, help="Even if its daemon does not answer: who waits gets an error.")
def umount(mountpoint: Path, lazy: bool, force: bool) -> None:
    """Unmount what `emberfs mount` has mounted.

    What programs have written is stored before the mount's daemon ends. Works also when the daemon is dead, and with
    --force when the cluster is.

    \b
    Example:
      emberfs umount /mnt/ember
    """
    from fs_client.fuse.mountpoint import unmount

    unmount(str(mountpoint), lazy=lazy, force=force)
