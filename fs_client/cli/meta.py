"""`emberfs meta`: become the metadata service."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="TOML file; `emberfs up` writes examples to DIR/config.",
)
@click.option("--format", "make", is_flag=True, help="First start: make its directory; refused if there is one.")
def meta(config: Path, make: bool) -> None:
    """Run the metadata service.

    It keeps the namespace in its directory and manages the cluster: storage daemons register with it, and clients
    learn from it where chunks are. Prints `ready meta HOST:PORT` once it
    serves; SIGTERM and SIGINT end it cleanly. Its options are in the configuration file.

    An empty directory is refused: its disk may not be mounted. A new cluster is made by its first start, with
    --format; it gets an identity that its storage daemons keep.

    \b
    Example:
      emberfs meta --config /etc/emberfs/meta.toml --format      once
      emberfs meta --config /etc/emberfs/meta.toml
    """
    from fs_client.cli.execute import execute_module

    execute_module("fs_meta", ["--config", str(config), *(["--format"] if make else [])], "server")
