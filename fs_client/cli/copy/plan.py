"""Where each source of a copy or a move goes: the rules of cp(1) and mv(1). Pure, but for what `look` asks.

A destination that is a directory gets the sources in it, under their own names. A slash at its end says that it is one:
only a directory can then take its place where there is nothing. `--target-directory` makes every argument a source,
`--no-target-directory` makes the destination a name and nothing else.
"""

import os
from collections.abc import Sequence

from fs_client.cli.failure import Usage


def split(
    arguments: Sequence[str], target_directory: str | None, no_target_directory: bool
) -> tuple[list[str], str, bool]:
    """(sources, destination, whether the destination has to be a directory). Raises `Usage`."""
    if target_directory is not None:
        if no_target_directory:
            raise Usage("-t and -T contradict each other: -t names a directory, -T says that there is none")
        return list(arguments), target_directory, True
    *sources, destination = arguments
    if not sources:
        raise Usage(f"where to? After {destination!r} there is no DESTINATION")
    if no_target_directory and len(sources) > 1:
        raise Usage(f"-T takes one SOURCE and its new name; {sources[1]!r} is one too many")
    return sources, destination, len(sources) > 1


def ends_as_directory(text: str) -> bool:
    """Whether a path says by its end that it is a directory's."""
    return text.endswith(("/", "/.", "/..")) or text in (".", "..")


def name_inside(path: str, text: str) -> str:
    """What the copy of `path`, given as `text`, is called in a directory; empty: it is its contents that are meant."""
    if text.endswith("/.") or text == ".":
        return ""
    name = os.path.basename(path.rstrip("/"))
    return "" if name in (".", "..") else name


def is_below(path: str, folder: str) -> bool:
    """Whether it is `folder` or in it, by their names."""
    path, folder = path.rstrip("/"), folder.rstrip("/")
    return path == folder or path.startswith(folder + "/")
