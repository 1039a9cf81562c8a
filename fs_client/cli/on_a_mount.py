"""Which path of a cluster a local path is, where it lies on a mount of one."""

import os


def path_on_cluster(path: str) -> str | None:
    """The path in its cluster; None: it is on no mount of EmberFS. Asks no mounted file system anything."""
    from fs_client.fuse.mountpoint import TYPE, mounts

    try:
        found = [entry for entry in mounts() if entry.type == TYPE]
    except OSError:
        return None
    return below_a_mount(os.path.abspath(path), [(entry.mountpoint, entry.source) for entry in found])


def below_a_mount(path: str, points: list[tuple[str, str]]) -> str | None:
    """`points`: (mountpoint, what is mounted there as `host:port[:/directory]`). The innermost one counts."""
    from fs_client.cli.mounting import split_source

    inside = [point for point in points if path == point[0] or path.startswith(point[0].rstrip("/") + "/")]
    if not inside:
        return None
    mountpoint, source = max(inside, key=lambda point: len(point[0]))
    try:
        _, directory = split_source(source)
    except ValueError:
        directory = "/"
    rest = path[len(mountpoint.rstrip("/")) :].strip("/")
    return f"{directory.rstrip('/')}/{rest}" if rest else directory
