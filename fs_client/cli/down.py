"""`emberfs down`: stop the cluster of a directory."""

from pathlib import Path

import click

from fs_client.cli.failure import Failure
from fs_client.cli.options import quiet_option
from fs_client.cli.up import directory_option


@click.command()
@directory_option
@quiet_option
def down(path: Path, quiet: bool) -> None:
    """Stop the cluster that `emberfs up` started in a directory.

    The data stays; `emberfs up` with the same --dir brings the cluster back. A cluster that is not running is no
    error. Only the very process that `emberfs up` noted is ever signalled, never another that got its pid.

    \b
    Example:
      emberfs down --dir /data/ember
    """
    from fs_client.cli.local.directory import ClusterDirectory
    from fs_client.cli.local.identity import end
    from fs_client.cli.local.launch import STOP_TIMEOUT_S

    directory = ClusterDirectory(path)
    record = directory.load()
    if record is None:
        raise Failure(f"there is no cluster in {path}; name its directory with --dir")
    ended = None if record.supervisor is None else end(record.supervisor, STOP_TIMEOUT_S)
    if ended is None:
        if directory.is_locked():
            raise Failure(f"the cluster in {path} is being started or is run by another machine; try again there")
        text = f"the cluster in {path} is not running"
    elif ended:
        text = f"stopped the cluster in {path}; its data stays there"
    else:
        text = f"killed the cluster in {path}, which did not stop within {STOP_TIMEOUT_S:.0f} s; its data stays there"
    if not quiet:
        click.echo(text)
