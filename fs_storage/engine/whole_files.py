"""Small files that are read and replaced as a whole.

Commit point of a replacement: the rename of `NAME.new` to `NAME`. A crash before it leaves the old file and perhaps
`NAME.new`, which the next replacement writes over.
"""

from pathlib import Path

from fs_storage.engine.disk import Disk


def read_file(disk: Disk, path: Path) -> bytes:
    """Raises `OSError`."""
    file = disk.open(path)
    try:
        data = bytearray(disk.size(file))
        disk.read(file, (data,), 0)
    finally:
        disk.close(file)
    return bytes(data)


def replace_file(disk: Disk, directory: Path, name: str, data: bytes, *, although_unsynced: bool = False) -> None:
    """Durable on return. Raises `OSError`; then the old file is still there.

    `although_unsynced`: the new file takes its place even if it cannot be made durable; the error is raised then, too.
    """
    new = directory / (name + ".new")
    failure: OSError | None = None
    file = disk.open(new, create=True)
    try:
        disk.truncate(file, 0)
        disk.write(file, [data], 0)
        try:
            disk.sync(file)
        except OSError as error:
            if not although_unsynced:
                raise
            failure = error
    finally:
        disk.close(file)
    disk.rename(new, directory / name)
    disk.sync_directory(directory)
    if failure is not None:
        raise failure
