"""`emberfs touch`."""

import re
from typing import TYPE_CHECKING

import click

from fs_client.cli.failure import Usage
from fs_client.cli.options import cluster_option
from fs_client.cli.remote import RemotePath, for_each, require_all, run

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-c", "--no-create", is_flag=True, help="Make no file; a path that does not exist is no error.")
@click.option("-a", "accessed", is_flag=True, help="Only the time of the last access.")
@click.option("-m", "modified", is_flag=True, help="Only the time of the last change.")
@click.option("-d", "--date", metavar="TIME", help="This time, as 2026-01-31 12:00:00, or @SECONDS since 1970.")
@cluster_option
def touch(
    paths: tuple[str, ...], no_create: bool, accessed: bool, modified: bool, date: str | None, cluster: str
) -> None:
    """Set the times of files to now, and make those that do not exist.

    \b
    Example:
      emberfs touch ember:/data/_SUCCESS
      emberfs touch -c -d '2026-01-31 12:00' ember:/data/labels.csv
    """
    time_ns = None if date is None else time_of(date)
    which = (accessed or not modified, modified or not accessed)
    locations = require_all(paths, cluster)
    run(for_each(locations, lambda fs, location: _touch(fs, location, no_create, which, time_ns)))


async def _touch(
    fs: "AsyncFileSystem", location: RemotePath, no_create: bool, which: tuple[bool, bool], time_ns: int | None
) -> None:
    from fs_common import methods
    from fs_common.records.meta import SetAttr

    try:
        found = await fs.stat(location.path)
    except FileNotFoundError:
        if no_create:
            return
        # Not exclusive: a symbolic link that leads to nothing gets its file, and one who came first keeps his bytes.
        file = await fs.open(location.path, "ab")
        await file.close()
        if time_ns is None:
            return
        found = await fs.stat(location.path)
    accessed, modified = which
    if time_ns is None:
        request = SetAttr(found.inode, b"", fs.request_id(), user=fs.user, atime_now=accessed, mtime_now=modified)
    else:
        request = SetAttr(
            found.inode,
            b"",
            fs.request_id(),
            user=fs.user,
            atime_ns=time_ns if accessed else None,
            mtime_ns=time_ns if modified else None,
        )
    await fs.meta_call(methods.SET_ATTR, request, location.path)


def time_of(text: str) -> int:
    """Nanoseconds since 1970 of what `-d` takes. Raises `Usage`."""
    import datetime

    seconds = re.fullmatch(r"@(-?\d{1,11})(?:\.(\d{1,9}))?", text)
    if seconds is not None:
        return int(seconds[1]) * 10**9 + int((seconds[2] or "0").ljust(9, "0"))
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        raise Usage(f"{text!r} is no time; write 2026-01-31, 2026-01-31 12:00:00 or @SECONDS since 1970") from None
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000
