"""`emberfs stat`."""

from typing import TYPE_CHECKING

import click

from fs_client.cli.options import cluster_option, json_option
from fs_client.cli.remote import Connections, Failures, RemotePath, require_all, run, shown
from fs_client.cli.text import local_time, put, put_json, size_words

if TYPE_CHECKING:
    from fs_client.stat_result import StatResult


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-L", "--dereference", is_flag=True, help="Follow symbolic links.")
@click.option("-c", "--format", "template", metavar="FORMAT", help="What to say of each, as stat(1): '%n %s %Y'.")
@json_option
@cluster_option
def stat(paths: tuple[str, ...], dereference: bool, template: str | None, as_json: bool, cluster: str) -> None:
    """Show everything known about files.

    Size, owner, mode and times, and how the file is laid out: chunk size, stripe, durability. A directory's layout is
    what its new children get. --json prints one object a line.

    \b
    Example:
      emberfs stat ember:/data/train.bin
      emberfs stat -c '%s %n' ember:/data/train.bin
    """
    if template is not None:
        from fs_client.cli.stat_format import check_format

        check_format(template)
    run(_stat(require_all(paths, cluster), dereference, template, as_json))


async def _stat(locations: list[RemotePath], dereference: bool, template: str | None, as_json: bool) -> None:
    failures = Failures()
    async with Connections() as connections:
        for location in locations:
            try:
                found = await (await connections.to(location)).stat(location.path, follow_symlinks=dereference)
            except OSError as error:
                failures.add(location, error)
                continue
            if template is not None:
                from fs_client.cli.stat_format import formatted

                put(formatted(template, shown(str(location)), found))
            elif as_json:
                from fs_client.cli import attributes

                put_json(attributes.as_json(location.path, found))
            else:
                _print(location, found)
    failures.end()


def _print(location: RemotePath, found: "StatResult") -> None:
    import stat as modes

    from fs_client.cli.attributes import group_name, layout_json, target_of, type_name, user_name

    arrow = f" -> {shown(target_of(found))}" if found.attributes.target else ""
    lines = {
        "path": shown(str(location)) + arrow,
        "type": type_name(found.type),
        "size": f"{found.st_size} bytes{_about(found.st_size)}",
        "inode": f"{found.inode}, {found.st_nlink} links" if found.st_nlink != 1 else f"{found.inode}, 1 link",
        "mode": f"{found.attributes.mode:04o} ({modes.filemode(found.st_mode)})",
        "owner": f"{user_name(found.st_uid)} ({found.st_uid}), group {group_name(found.st_gid)} ({found.st_gid})",
        "modified": local_time(found.st_mtime_ns),
        "accessed": local_time(found.st_atime_ns),
        "changed": local_time(found.st_ctime_ns),
        "born": local_time(found.attributes.btime_ns),
    }
    if found.layout is not None:
        layout = layout_json(found.layout)
        lines["layout"] = (
            f"chunks of {size_words(layout['chunk_size'])}, stripe {layout['stripe']}, "
            f"durability {layout['durability']}, chain table {layout['table']} version {layout['table_version']}"
        )
    for name, value in lines.items():
        put(f"{name:>9}: {value}")


def _about(size: int) -> str:
    return f" ({size_words(size)})" if size >= 1024 else ""
