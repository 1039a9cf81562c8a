"""Trees to copy: one with every kind of metadata, one of ordinary sources."""

import os
import random
import socket
import stat
from pathlib import Path

from tests.posix.files import pattern

_SECOND = 1_000_000_000


def rich_tree(root: Path, seed: int = 1) -> None:
    """Every type of file and everything that can be said of one. Devices and owners if this is root."""
    chance = random.Random(seed)
    root.mkdir()
    for number in range(12):
        directory = root / f"directory-{number}" / "inner"
        directory.mkdir(parents=True)
        for index, size in enumerate((0, 1, 4095, 4096, 70_001, 1_300_000)):
            (directory / f"file-{index}").write_bytes(pattern(size, chance.randrange(200)))
    special = root / "special"
    special.mkdir()
    _names(special)
    _links(special)
    _sparse(special)
    _types(special)
    _attributes(special)
    _metadata(root, chance)


def _names(place: Path) -> None:
    here = os.fsencode(place)
    for name in (b"\xff\xfe", b"with space", b"new\nline", b"-dash", b"n" * 255, "\u00fc\u4e2d".encode(), b"..."):
        with open(os.path.join(here, name), "wb") as file:
            file.write(name)
    (place / "empty-directory").mkdir()


def _links(place: Path) -> None:
    (place / "one").write_bytes(b"one file, three names")
    os.link(place / "one", place / "two")
    os.link(place / "one", place / "empty-directory" / "three")
    os.symlink("one", place / "symlink")
    os.symlink("nowhere/" + "x" * 500, place / "dangling")
    os.link(place / "symlink", place / "symlink-too", follow_symlinks=False)


def _sparse(place: Path) -> None:
    with open(place / "sparse", "wb") as file:
        file.truncate(20 << 20)
        for offset in (0, 5 << 20, (19 << 20) + 12_345):
            os.pwrite(file.fileno(), pattern(5000, offset % 100), offset)
    with open(place / "all-hole", "wb") as file:
        file.truncate(3 << 20)


def _types(place: Path) -> None:
    os.mkfifo(place / "fifo")
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(place)  # a socket's address has room for 107 bytes
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
    finally:
        os.fchdir(here)
        os.close(here)
    if os.geteuid() == 0:
        os.mknod(place / "device", stat.S_IFCHR | 0o600, os.makedev(259, 70_000))


def _attributes(place: Path) -> None:
    for name, value in (("user.small", b"x"), ("user.bytes", bytes(range(256))), ("user.empty", b"")):
        os.setxattr(place / "one", name, value)
    os.setxattr(place / "empty-directory", "user.of.a.directory", b"yes")


def _metadata(root: Path, chance: random.Random) -> None:
    """Modes, owners and times, of the deepest first: what is done inside a directory moves its time."""
    for parent, directories, files in os.walk(os.fsencode(root), topdown=False):
        for name in (*files, *directories):
            path = os.path.join(parent, name)
            link = os.path.islink(path)
            if os.geteuid() == 0:
                os.chown(path, chance.choice((0, 3001, 3002)), chance.choice((0, 4001)), follow_symlinks=False)
            if not link:
                mode = chance.choice((0o755, 0o700, 0o644, 0o4755, 0o2755, 0o1777, 0o400, 0o777))
                if os.geteuid() != 0:  # then the owner has to get in
                    mode |= 0o700 if os.path.isdir(path) else 0o600
                os.chmod(path, mode)
            seconds = chance.choice((0, 1, 946_684_800, 1_700_000_000, 4_000_000_000))
            moment = seconds * _SECOND + chance.choice((0, 1, 123_456_789, 999_999_999))
            os.utime(path, ns=(moment, moment), follow_symlinks=False)
    os.utime(root, ns=(_SECOND, _SECOND))


def source_tree(root: Path, count: int = 300) -> None:
    """Many small text files in a few directories: what a checkout is made of."""
    chance = random.Random(count)
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    for number in range(count):
        path = root / f"package_{number % 17}" / f"part_{number % 5}" / f"module_{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [" ".join(chance.choices(words, k=chance.randrange(1, 12))) for _ in range(chance.randrange(1, 200))]
        path.write_text("\n".join(lines) + "\n")
