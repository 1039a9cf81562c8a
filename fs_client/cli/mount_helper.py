"""`mount.emberfs`: what mount(8) runs for `mount -t emberfs CLUSTER MOUNTPOINT` and for lines of /etc/fstab.

mount(8) calls `mount.TYPE SOURCE TARGET [-sfnvN] [-o OPTIONS] [-t TYPE]`. Exit codes are those that it documents: 0
mounted, 1 used wrongly, 32 not mounted.

It says nothing of what it takes for usual: whoever writes `suid,dev` is told of as one who writes nothing. So where
root mounts, this begins with them, as other file systems do; for a user's line of fstab it says `nosuid,nodev` itself.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

EXIT_USAGE = 1
EXIT_NOT_MOUNTED = 32
_FLAGS = frozenset("fnsvr")


class Arguments:
    """What mount(8) said. Raises `ValueError`."""

    def __init__(self, arguments: list[str]) -> None:
        self.options: list[str] = ["suid,dev"] if os.geteuid() == 0 else []
        self.fake = False
        """Do everything but mount (`mount -f`)."""
        places: list[str] = []
        rest = iter(arguments)
        for word in rest:
            if word in ("-o", "-t", "-N"):
                value = next(rest, None)
                if value is None:
                    raise ValueError(f"{word} needs a value")
                if word == "-o":
                    self.options.append(value)
            elif word.startswith("-") and len(word) > 1:
                unknown = set(word[1:]) - _FLAGS
                if unknown:
                    raise ValueError(f"unknown option {word}")
                self.fake = self.fake or "f" in word
                if "r" in word:
                    self.options.append("ro")
            else:
                places.append(word)
        if len(places) != 2:
            raise ValueError("usage: mount.emberfs HOST:PORT[,HOST:PORT...][:/PATH] DIRECTORY [-sfnvr] [-o OPTIONS]")
        self.cluster, self.mountpoint = places


def main() -> NoReturn:
    import click

    from fs_client.cli.main import describe
    from fs_client.cli.mounting import launch, log_path, settings_of
    from fs_client.fuse.mountpoint import remount

    try:
        arguments = Arguments(sys.argv[1:])
        settings = settings_of(arguments.cluster, arguments.mountpoint, arguments.options)
    except ValueError as error:
        _end(str(error), EXIT_USAGE)
    except click.ClickException as error:
        _end(error.format_message(), EXIT_USAGE)
    try:
        if arguments.fake:
            pass
        elif settings.remount:
            remount(arguments.mountpoint, settings.kernel.flags)
        else:
            place = Path(arguments.mountpoint)
            launch(arguments.cluster, place, arguments.options, Path(settings.log) if settings.log else log_path(place))
    except click.ClickException as error:
        _end(error.format_message(), EXIT_NOT_MOUNTED)
    except OSError as error:
        _end(describe(error), EXIT_NOT_MOUNTED)
    sys.exit(0)


def _end(line: str, code: int) -> NoReturn:
    print(f"mount.emberfs: {line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
