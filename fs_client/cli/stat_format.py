"""`emberfs stat -c`: the directives of stat(1) that mean something here. Pure, but for names of users."""

import re
import stat
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fs_client.cli.attributes import group_name, target_of, type_name, user_name
from fs_client.cli.failure import Usage

if TYPE_CHECKING:
    from fs_client.stat_result import StatResult

_DIRECTIVE = re.compile(r"%([-0 #+]*\d*)(.?)", re.DOTALL)
_TYPES = {"file": "regular file", "symlink": "symbolic link", "character device": "character special file"}
_TYPES["block device"] = "block special file"


def _clock(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    moment = time.localtime(seconds)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', moment)}.{rest:09} {time.strftime('%z', moment)}"


def _type_of(found: "StatResult") -> str:
    name = type_name(found.type)
    return "regular empty file" if name == "file" and not found.st_size else _TYPES.get(name, name)


_VALUES: dict[str, Callable[[str, "StatResult"], object]] = {
    "n": lambda name, found: name,
    "N": lambda name, found: f"'{name}' -> '{target_of(found)}'" if found.attributes.target else f"'{name}'",
    "s": lambda name, found: found.st_size,
    "b": lambda name, found: found.st_blocks,
    "B": lambda name, found: 512,
    "o": lambda name, found: found.st_blksize,
    "i": lambda name, found: found.inode,
    "h": lambda name, found: found.st_nlink,
    "a": lambda name, found: f"{stat.S_IMODE(found.st_mode):o}",
    "A": lambda name, found: stat.filemode(found.st_mode),
    "f": lambda name, found: f"{found.st_mode:x}",
    "F": lambda name, found: _type_of(found),
    "u": lambda name, found: found.st_uid,
    "U": lambda name, found: user_name(found.st_uid),
    "g": lambda name, found: found.st_gid,
    "G": lambda name, found: group_name(found.st_gid),
    "X": lambda name, found: found.st_atime_ns // 10**9,
    "Y": lambda name, found: found.st_mtime_ns // 10**9,
    "Z": lambda name, found: found.st_ctime_ns // 10**9,
    "W": lambda name, found: found.attributes.btime_ns // 10**9,
    "x": lambda name, found: _clock(found.st_atime_ns),
    "y": lambda name, found: _clock(found.st_mtime_ns),
    "z": lambda name, found: _clock(found.st_ctime_ns),
    "w": lambda name, found: _clock(found.attributes.btime_ns),
}


def check_format(text: str) -> None:
    """Raises `Usage` for a directive that is not known."""
    for _, letter in _DIRECTIVE.findall(text):
        if letter != "%" and letter not in _VALUES:
            raise Usage(f"%{letter} is not known; there are %% and {' '.join('%' + name for name in _VALUES)}")


def formatted(text: str, name: str, found: "StatResult") -> str:
    """`text` with each directive replaced; `%10s` and `%-10s` are padded."""

    def value(match: re.Match[str]) -> str:
        flags, letter = match[1], match[2]
        if letter == "%":
            return "%"
        shown = str(_VALUES[letter](name, found))
        width = int(re.sub(r"\D", "", flags.lstrip("-0 #+")) or 0)
        if "-" in flags:
            return shown.ljust(width)
        return shown.rjust(width, "0" if flags.startswith("0") and shown.isdigit() else " ")

    return _DIRECTIVE.sub(value, text)
