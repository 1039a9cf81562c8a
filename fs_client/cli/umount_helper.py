"""`umount.emberfs`: what umount(8) runs for FUSE file systems, linked to where it looks: /sbin/umount.fuse.

umount(8) by itself returns before the mount's daemon has stored what programs wrote; through this it waits, as
`emberfs umount` does. Of what is mounted it often knows no more than that it is FUSE: what is not EmberFS is left to
umount(8) again, without a helper.

It calls `umount.TYPE DIRECTORY [-flnrv] [-N NAMESPACE] [-t TYPE]`. Exit codes are those that it documents: 0 unmounted,
1 used wrongly, 32 not unmounted, or something was not stored.
"""

import os
import sys
from typing import NoReturn

EXIT_USAGE = 1
EXIT_FAILED = 32
_FLAGS = frozenset("flnrv")


class Arguments:
    """What umount(8) said. Raises `ValueError`."""

    def __init__(self, arguments: list[str]) -> None:
        self.lazy = self.force = False
        self.others: list[str] = []
        """All that it said, without the type."""
        places: list[str] = []
        rest = iter(arguments)
        for word in rest:
            if word in ("-t", "-N"):
                value = next(rest, None)
                if value is None:
                    raise ValueError(f"{word} needs a value")
                self.others += [word, value] if word == "-N" else []
                continue
            self.others.append(word)
            if word.startswith("-") and len(word) > 1:
                if unknown := set(word[1:]) - _FLAGS:
                    raise ValueError(f"unknown option -{''.join(sorted(unknown))}")
                self.lazy = self.lazy or "l" in word
                self.force = self.force or "f" in word
            else:
                places.append(word)
        if len(places) != 1:
            raise ValueError("usage: umount.emberfs DIRECTORY [-flnrv]")
        (self.mountpoint,) = places


def main() -> NoReturn:
    from fs_client.cli.main import describe
    from fs_client.cli.umount import end_mount
    from fs_client.fuse import mountpoint

    try:
        arguments = Arguments(sys.argv[1:])
    except ValueError as error:
        _end(str(error), EXIT_USAGE)
    try:
        mounted = mountpoint.find(arguments.mountpoint)
        if mounted is None or mounted.type != mountpoint.TYPE:
            os.execvp("umount", ["umount", "--internal-only", *arguments.others])
        lost = end_mount(arguments.mountpoint, lazy=arguments.lazy, force=arguments.force)
    except OSError as error:
        _end(describe(error), EXIT_FAILED)
    if lost:
        _end(lost, EXIT_FAILED)
    sys.exit(0)


def _end(line: str, code: int) -> NoReturn:
    print(f"umount.emberfs: {line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
