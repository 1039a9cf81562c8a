"""rsync, tar, cp: there and back, with all metadata; then nothing is left to do."""

import os
import re
from pathlib import Path

from tests.posix.battery.digest import describe, difference
from tests.posix.battery.place import Failed, Place, need
from tests.posix.battery.trees import rich_tree


def rsync(place: Place) -> None:
    """There, back, and a third time: rsync finds nothing to change, not even a time."""
    need("rsync", "rsync")
    original = _original(place)
    there, back = place.path / "there", place.elsewhere / "back"
    flags = ("-aHAXS", "--devices", "--specials", "--numeric-ids", "--fake-super")[:4]
    place.run("rsync", *flags, f"{original}/", f"{there}/")
    _same(original, there, "the copy on the file system")
    place.run("rsync", *flags, "--checksum", f"{there}/", f"{back}/")
    _same(original, back, "the copy of the copy")
    again = place.run("rsync", *flags, "-n", "--itemize-changes", f"{original}/", f"{there}/").stdout
    if again.strip():
        raise Failed(f"rsync would change again what it has just copied:\n{again}")
    (there / "directory-3" / "inner" / "file-4").write_bytes(b"changed")
    again = place.run("rsync", *flags, "--inplace", "--no-sparse", "-i", f"{original}/", f"{there}/").stdout
    if "file-4" not in again:
        raise Failed(f"rsync does not see a changed file:\n{again}")
    _same(original, there, "the copy that was repaired in place")


def tar(place: Place) -> None:
    """Packed and unpacked on the file system, sparse files and attributes included."""
    original = _original(place)
    for name in ("unpacked", "again"):
        (place.path / name).mkdir()
    flags = ("--xattrs", "--xattrs-include=*", "--sparse", "--format=posix", "--numeric-owner")
    place.run("tar", *flags, "-cpf", place.path / "original.tar", "-C", original, ".", ok=(0, 1))
    place.run("tar", *flags, "-xpf", place.path / "original.tar", "-C", place.path / "unpacked")
    _same(original, place.path / "unpacked", "what was unpacked", sockets=False)
    place.run("tar", *flags, "-cpf", place.elsewhere / "unpacked.tar", "-C", place.path / "unpacked", ".")
    place.run("tar", *flags, "-xpf", place.elsewhere / "unpacked.tar", "-C", place.path / "again")
    _same(original, place.path / "again", "what was packed and unpacked there", sockets=False)


def cp(place: Place) -> None:
    original = _original(place)
    place.run("cp", "-a", "--sparse=always", original, place.path / "copy")
    _same(original, place.path / "copy", "the copy")
    place.run("cp", "-a", "--reflink=auto", place.path / "copy", place.path / "second")
    _same(original, place.path / "second", "the copy within the file system")
    place.run("diff", "-r", "--no-dereference", original / "directory-1", place.path / "second" / "directory-1")
    place.run("mv", place.path / "second", place.elsewhere / "moved")
    _same(original, place.elsewhere / "moved", "what was moved away")
    place.run("mv", place.elsewhere / "moved", place.path / "moved")
    _same(original, place.path / "moved", "what was moved in")


def find_and_du(place: Place) -> None:
    """Counts and sizes are those of the original, and `rm -rf` leaves nothing."""
    original = _original(place)
    place.run("cp", "-a", original, place.path / "copy")
    for command in (("find", ".", "-printf", "%P %y %m %s %l %n\n"), ("du", "--apparent-size", "-b", "-a", ".")):
        wanted = _sorted(place.run(*command, cwd=original).stdout)
        found = _sorted(place.run(*command, cwd=place.path / "copy").stdout)
        # How long a directory is and how many links it has is the file system's affair.
        if command[0] == "find":
            wanted, found = ([line for line in lines if not re.search(r" d \d+ ", line)] for lines in (wanted, found))
        else:
            wanted, found = ([line for line in lines if "file-" in line] for lines in (wanted, found))
        if wanted != found:
            raise Failed(f"{' '.join(command)}: {difference(wanted, found)}")
    place.run("rm", "-rf", place.path / "copy")
    if os.path.lexists(place.path / "copy"):
        raise Failed("rm -rf left something")


def _sorted(text: str) -> list[str]:
    return sorted(text.splitlines())


def _original(place: Place) -> Path:
    path = place.elsewhere / "original"
    if not path.exists():
        rich_tree(path)
    return path


def _same(original: Path, copy: Path, what: str, *, sockets: bool = True) -> None:
    wanted, found = describe(original), describe(copy)
    if not sockets:  # tar leaves them out, and its own run may have moved the time of what they were in
        wanted = [line for line in wanted if not re.search(r" s[r-][w-]", line)]
    if text := difference(wanted, found):
        raise Failed(f"{what} differs from the original:\n{text}")
