"""How `ls`, `stat` and `find` show what is known about a file."""

import stat
from typing import TYPE_CHECKING, Any

from fs_client.cli.remote import shown
from fs_client.cli.text import local_time

if TYPE_CHECKING:
    from fs_client.stat_result import StatResult
    from fs_common.layout import Layout

TYPE_LETTERS = {"f": 1, "d": 2, "l": 3, "p": 4, "s": 5, "c": 6, "b": 7}
"""`find -type` -> `FileType`"""
_TYPE_NAMES = {
    1: "file", 2: "directory", 3: "symlink", 4: "fifo", 5: "socket", 6: "character device", 7: "block device",
}  # fmt: skip
_MARKS = {"directory": "/", "symlink": "@", "fifo": "|", "socket": "="}
_user_names: dict[int, str] = {}
_group_names: dict[int, str] = {}


def type_name(file_type: int) -> str:
    return _TYPE_NAMES[file_type]


def as_json(path: str, found: "StatResult") -> dict[str, Any]:
    """The fields of `--json`. Times are in seconds, sizes in bytes."""
    value: dict[str, Any] = {
        "path": path,
        "type": type_name(found.type),
        "inode": found.inode,
        "mode": f"{found.attributes.mode:04o}",
        "uid": found.st_uid,
        "gid": found.st_gid,
        "links": found.st_nlink,
        "size": found.st_size,
        "mtime": found.st_mtime,
        "atime": found.st_atime,
        "ctime": found.st_ctime,
        "btime": found.st_birthtime,
    }
    if found.attributes.target:
        value["target"] = target_of(found)
    if found.layout is not None:
        value["layout"] = layout_json(found.layout)
    return value


def layout_json(layout: "Layout") -> dict[str, Any]:
    from fs_common.layout import Durability

    return {
        "chunk_size": layout.chunk_size,
        "stripe": layout.stripe,
        "table": layout.table,
        "table_version": layout.table_version,
        "durability": "disk" if layout.durability == Durability.DISK else "memory",
    }


def target_of(found: "StatResult") -> str:
    """Of a symbolic link."""
    import os

    return os.fsdecode(found.attributes.target)


def long_line(found: "StatResult", name: str, size: str, *, numeric: bool = False) -> str:
    """Like `ls -l`."""
    arrow = f" -> {shown(target_of(found))}" if found.attributes.target else ""
    owner = str(found.st_uid) if numeric else user_name(found.st_uid)
    group = str(found.st_gid) if numeric else group_name(found.st_gid)
    return (
        f"{stat.filemode(found.st_mode)} {found.st_nlink:>3} {owner:<8} {group:<8} {size:>10} "
        f"{local_time(found.st_mtime_ns)} {name}{arrow}"
    )


def mark_of(found: "StatResult") -> str:
    """Like `ls -F`."""
    mark = _MARKS.get(type_name(found.type), "")
    return "*" if found.type == TYPE_LETTERS["f"] and found.st_mode & 0o111 else mark


def user_name(uid: int) -> str:
    """As this machine calls the user; the number where it does not know it."""
    if uid not in _user_names:
        import pwd

        try:
            _user_names[uid] = pwd.getpwuid(uid).pw_name
        except KeyError:
            _user_names[uid] = str(uid)
    return _user_names[uid]


def group_name(gid: int) -> str:
    if gid not in _group_names:
        import grp

        try:
            _group_names[gid] = grp.getgrgid(gid).gr_name
        except KeyError:
            _group_names[gid] = str(gid)
    return _group_names[gid]
