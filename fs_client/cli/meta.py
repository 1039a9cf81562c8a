"""`emberfs meta`: become the metadata service."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file; `emberfs up` writes examples to DIR/config. Without: EMBERFS_META_... variables alone.",
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
def meta(config: Path | None, making: str | None) -> None:
    """Run the metadata service.

    It keeps the namespace in its directory and manages the cluster: storage daemons register with it, and clients
    learn from it where chunks are. Prints `ready meta HOST:PORT` once it
    serves; SIGTERM and SIGINT end it cleanly. Its options are in the configuration
    file; a variable EMBERFS_META_KEY sets `key` instead.

    An empty directory is refused: its disk may not be mounted. A new cluster is made by its first start, with
    --format; it gets an identity that its storage daemons keep.

    \b
    Example:
      emberfs meta --config /etc/emberfs/meta.toml --format-only      once
      emberfs meta --config /etc/emberfs/meta.toml
    """
    from fs_client.cli.execute import execute_module

    options = [*(["--config", str(config)] if config else []), *([making] if making else [])]
    execute_module("fs_meta", options, "server")
