"""`emberfs restore`: a metadata server's store out of a backup."""

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file of the metadata server. Without: EMBERFS_META_... variables alone.",
)
def restore(file: Path, config: Path | None) -> None:
    """Make a metadata server's store of a backup.

    It is run as the server's user, on its machine, while no server runs; a store that is there has to be moved away
    first. What was made, changed or removed after the backup is as it was then: new files are gone, removed ones are
    there again, though their contents may be gone. Afterwards all replicas of each chain compare what they have, so
    all storage daemons have to come back before anything is served; `emberfs chains rotate` gives up one that never
    will.

    \b
    Example:
      emberfs restore /backup/ember-2026-11-30 --config /etc/emberfs/meta.toml
    """
    from fs_client.cli.execute import execute_module

    execute_module("fs_meta.restoring", [*(["--config", str(config)] if config else []), str(file)], "server")
