"""`--token-file`: who asks. Known by all commands that talk to a cluster, and before any of them."""

import os

import click


def _use(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Everything that this process does from now on, and what it starts, is known by this token."""
    if value is None or ctx.resilient_parsing:
        return
    # As `fs_client.options` reads them.
    os.environ["EMBERFS_TOKEN_FILE"] = os.path.abspath(value)
    os.environ.pop("EMBERFS_TOKEN", None)


token_file_option = click.option(
    "--token-file",
    type=click.Path(),
    metavar="FILE",
    expose_value=False,
    callback=_use,
    help="File with the token to be known by (or EMBERFS_TOKEN_FILE, or the token itself in EMBERFS_TOKEN).",
)
