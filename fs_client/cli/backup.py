"""`emberfs backup`: the metadata store as a file."""

import contextlib
import os
import secrets
import time
from pathlib import Path

import click

from fs_client.cli.failure import Failure
from fs_client.cli.options import cluster_option, quiet_option
from fs_client.cli.remote import run
from fs_client.cli.text import put, size_words


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@cluster_option
@quiet_option
def backup(file: Path, cluster: str, quiet: bool) -> None:
    """Write all that the metadata service knows into a file.

    It goes on meanwhile. The file has names, attributes, where each file's chunks lie, users and the digests of their
    tokens: everything that was acknowledged when the command began. The contents of files are on storage daemons, and
    not in it. FILE is replaced when the new one is whole; keep it where administrators are. `emberfs restore` makes a
    metadata store of it.

    \b
    Example:
      emberfs backup /backup/ember-$(date +%F)
    """
    run(_backup(file, cluster, quiet))


async def _backup(file: Path, cluster: str, quiet: bool) -> None:
    from fs_client.cli.manager_api import Administered
    from fs_client.cli.progress import LINE_EVERY_S

    # Nobody else has made it, so nobody else can read what is the cluster's alone.
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}.new")
    size = 0
    told_s = time.monotonic()
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "wb") as out:
                async with Administered(cluster) as api:
                    async for part in api.stream("Backup"):
                        out.write(part.data)
                        size += len(part.data)
                        if not quiet and time.monotonic() - told_s >= LINE_EVERY_S:
                            told_s = time.monotonic()
                            click.echo(f"backup: {size_words(size)}", err=True)
                out.flush()
                os.fsync(out.fileno())
            new.replace(file)
        finally:
            with contextlib.suppress(FileNotFoundError):
                new.unlink()
    except OSError as error:
        if error.filename is None:
            raise
        raise Failure(f"{file}: {error.strerror}") from None
    if not quiet:
        put(f"{file}: {size_words(size)}")
