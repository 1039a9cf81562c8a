"""`emberfs storage`: become the storage daemon."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file; `emberfs up` writes examples to DIR/config. Without: EMBERFS_STORAGE_... variables alone.",
)
@click.option(
    "--format", "making", flag_value="--format", help="First start: make its directory; refused if there is one."
)
@click.option("--format-only", "making", flag_value="--format-only", help="The same, without serving: it ends.")
@click.option(
    "--format-if-missing",
    "making",
    flag_value="--format-if-missing",
    help="Make its directory if there is none: for containers, whose volumes are made with them.",
)
def storage(config: Path | None, making: str | None) -> None:
    """Run one storage daemon.

    It keeps chunks in its directory, replicates what is written to it along its chains and answers reads. It learns
    from the manager which targets it has. Prints `ready storage HOST:PORT` once it
    serves; SIGTERM and SIGINT end it cleanly. Its options are in the configuration
    file; a variable EMBERFS_STORAGE_KEY sets `key` instead.

    An empty directory is refused: its disk may not be mounted. A new one is made by the first start, with --format.
    It belongs to the cluster of the first manager it meets, and to no other of the same name.

    \b
    Example:
      emberfs storage --config /etc/emberfs/storage.toml --format-only      once
      emberfs storage --config /etc/emberfs/storage.toml
    """
    from fs_client.cli.execute import execute_module

    options = [*(["--config", str(config)] if config else []), *([making] if making else [])]
    execute_module("fs_storage", options, "server")
