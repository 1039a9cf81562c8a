"""`emberfs bench`: become the benchmark runner."""

from pathlib import Path

import click

BUNDLED = Path(__file__).parents[2] / "emberfs" / "bundled"
"""Where a wheel puts `benchmarks`, so that no import of another program finds it. A source tree has no such folder."""


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Run the benchmarks: EmberFS beside this machine's limits, or any directories side by side.

    Everything after `bench` goes to the runner; `emberfs bench --help` is its own help.

    \b
    Example:
      emberfs bench --help
      emberfs bench /mnt/ember /mnt/nfs
    """
    from fs_client.cli.execute import execute_module

    execute_module("benchmarks", arguments, "server", within=BUNDLED if BUNDLED.is_dir() else None)
