"""Groups of commands that say which one was meant: a near name, or what other tools call the same thing."""

import difflib
from collections.abc import Iterable

import click

OTHER_NAMES = {
    "add": "cp", "checkout": "cp", "clone": "cp -a", "copy": "cp", "copyToLocal": "cp", "copyFromLocal": "cp",
    "count": "du", "debug": "doctor", "del": "rm", "delete": "rm", "destroy": "down", "dir": "ls", "download": "cp",
    "dump": "backup", "format": "up", "gc": "fsck", "get": "cp", "health": "status", "init": "up", "less": "cat",
    "list": "ls", "ll": "ls -l", "load": "restore", "md": "mkdir", "metrics": "top", "more": "cat", "move": "mv",
    "objbench": "bench", "profile": "top", "push": "cp", "put": "cp", "pull": "cp", "remove": "rm", "rename": "mv",
    "rmr": "rm -r", "rmtree": "rm -r", "rsync": "cp -au", "scp": "cp", "show": "status", "start": "up", "stop": "down",
    "summary": "du", "symlink": "ln -s", "sync": "cp -au", "unlink": "rm", "unmount": "umount", "upload": "cp",
    "user": "users", "version": "--version", "help": "--help", "walk": "find", "write": "cp",
}  # fmt: skip
"""What people type who come from other tools -> what does that here."""
_NEAR = 0.6


class SuggestingGroup(click.Group):
    """A group whose commands are found by exact name alone; any other is refused with what may have been meant."""

    other_names: dict[str, str] = {}  # noqa: RUF012 - never changed

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            hint = suggestion(name, self.list_commands(ctx), self.other_names)
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)


def suggestion(name: str, known: Iterable[str], other_names: dict[str, str]) -> str:
    """` Did you mean ...?`, or nothing where nothing is near."""
    found = [other_names[name]] if name in other_names else []
    if not found:
        by_lower = {one.lower(): one for one in known}
        near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=_NEAR)
        found = [by_lower[one] for one in near]
    if not found:
        return ""
    return f" Did you mean {' or '.join(found)}?"
