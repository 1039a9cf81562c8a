"""`emberfs storage`: become the storage daemon."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="TOML file; `emberfs up` writes examples to DIR/config.",
)
def storage(config: Path) -> None:
    """Run one storage daemon.

    It keeps chunks in its directory, replicates what is written to it along its chains and answers reads. It learns
    from the manager which targets it has. Prints `ready storage HOST:PORT` once it
    serves; SIGTERM and SIGINT end it cleanly. Its options are in the configuration file.

    \b
    Example:
      emberfs storage --config /etc/emberfs/storage.toml
    """
    from fs_client.cli.execute import execute_module

    execute_module("fs_storage", ["--config", str(config)], "server")
