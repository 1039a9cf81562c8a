"""`emberfs mkdir`."""

import click

from fs_client.cli.options import chunk_size_option, cluster_option, durability_option, stripe_option, verbose_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run, shown
from fs_client.cli.text import put


class _Mode(click.ParamType[int]):
    name = "octal"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            mode = int(str(value), 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o7777:
            self.fail(f"{value!r} is not a mode like 755", param, ctx)
        return mode


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-p", "--parents", is_flag=True, help="Make missing parents too; a directory that exists is no error.")
@click.option("-m", "--mode", type=_Mode(), help="Permissions in octal.  [default: 777 less the umask]")
@chunk_size_option
@stripe_option
@durability_option
@verbose_option
@cluster_option
def mkdir(
    paths: tuple[str, ...],
    parents: bool,
    mode: int | None,
    chunk_size: int | None,
    stripe: int | None,
    durability: str | None,
    verbose: bool,
    cluster: str,
) -> None:
    """Make directories.

    A directory hands its layout down to everything made in it later. What --chunk-size, --stripe and --durability do
    not say is inherited from the parent.

    \b
    Example:
      emberfs mkdir -p ember:/data/raw
      emberfs mkdir --chunk-size 4M --durability memory ember:/scratch
    """
    levels = {None: None, "disk": 0, "memory": 1}
    layout = {"chunk_size": chunk_size, "stripe": stripe, "durability": levels[durability]}
    given = {name: value for name, value in layout.items() if value is not None}
    run(_mkdir(require_all(paths, cluster), parents, mode, given, verbose))


async def _mkdir(
    locations: list[RemotePath], parents: bool, mode: int | None, layout: dict[str, int], verbose: bool
) -> None:
    failures = Failures()
    async with Connections() as connections:
        for location in locations:
            fs = await connections.to(location)
            try:
                if parents:
                    await fs.makedirs(location.path, exist_ok=True)
                else:
                    await fs.mkdir(location.path)
                # The service gives it the parent's layout; what differs is changed afterwards, while it is empty.
                if layout:
                    await fs.set_layout(location.path, **layout)
                if mode is not None:
                    await fs.chmod(location.path, mode)
            except OSError as error:
                failures.add(location, error)
                continue
            if verbose:
                put(shown(str(location)))
    failures.end()
