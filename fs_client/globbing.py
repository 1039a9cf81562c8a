"""Paths that match a pattern, with the rules of the `glob` module.

A pattern is taken name by name, each for all directories found so far at once: directories are listed side by side, and
names without wildcards are looked up in batches.
"""

import errno
import fnmatch
import os
import re
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from fs_client.settle import run_all
from fs_client.stat_result import StatResult
from fs_common.ids import ROOT_INODE
from fs_common.limits import BATCH_NAMES_MAX
from fs_common.records.meta import FileType

if TYPE_CHECKING:
    from fs_client.namespace import Namespace

S = TypeVar("S")
T = TypeVar("T")

IN_FLIGHT = 16
_WILDCARD = re.compile(r"[*?[]")


class _Found:
    """A path that has matched so far, as the result spells it."""

    __slots__ = ("certain", "text")

    def __init__(self, text: str, certain: bool) -> None:
        self.text = text
        self.certain = certain
        """A listing named it: nobody needs to ask whether it exists."""


async def expand(
    fs: "Namespace", pattern: str, *, root: str = "", recursive: bool = False, include_hidden: bool = False
) -> list[str]:
    """The paths that match. `root`: what a pattern that is not absolute is relative to; it is not in the results."""
    if not pattern:
        return []
    start = "/" if pattern.startswith("/") else ""
    parts = [part for part in pattern.split("/") if part]
    found = [_Found(start, True)]
    wanted = _Wanted(fs, "" if start else root, include_hidden)
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if recursive and part == "**":
            found = await wanted.below(found, last and not pattern.endswith("/"))
        elif _WILDCARD.search(part):
            found = await wanted.matching(found, part, last and not pattern.endswith("/"))
        else:
            found = [_Found(_join(one.text, part), False) for one in found]
    if pattern.endswith("/"):
        directories = await wanted.those([one.text for one in found], directories=True)
        return [_join(text, "") for text in directories if text or start]
    certain = {one.text for one in found if one.certain}
    there = set(await wanted.those([one.text for one in found if not one.certain], directories=False))
    return [one.text for one in found if one.text and (one.text in certain or one.text in there)]


class _Wanted:
    """Questions about paths as the results spell them."""

    def __init__(self, fs: "Namespace", root: str, include_hidden: bool) -> None:
        self._fs = fs
        self._root = root
        self._include_hidden = include_hidden

    def _path(self, text: str) -> str:
        return os.path.join(self._root, text) or "/"

    async def those(self, texts: Sequence[str], *, directories: bool) -> list[str]:
        """Of these the ones that exist, or are directories."""
        kept = []
        for start in range(0, len(texts), BATCH_NAMES_MAX):
            batch = texts[start : start + BATCH_NAMES_MAX]
            try:
                stats = await self._fs.stat_batch(ROOT_INODE, [self._path(text) for text in batch], directories)
            except PermissionError:
                stats = await each(batch, partial(self._look, directories))
            for text, found in zip(batch, stats, strict=True):
                if found is not None and (not directories or found.type == FileType.DIRECTORY):
                    kept.append(text)
        return kept

    async def _look(self, follow: bool, text: str) -> StatResult | None:
        try:
            return await self._fs.stat(self._path(text), follow_symlinks=follow)
        except OSError as error:
            if not _says_nothing_there(error):
                raise
            return None

    async def matching(self, found: Sequence[_Found], part: str, any_type: bool) -> list[_Found]:
        """What is in these directories and matches. `any_type` false: it will be searched in turn."""
        accepts = re.compile(fnmatch.translate(part)).match
        hidden = self._include_hidden or part.startswith(".")
        listings = await each(found, lambda one: self._list(one.text, any_type))
        return [
            _Found(_join(one.text, name), True)
            for one, listing in zip(found, listings, strict=True)
            for name, _ in listing
            if accepts(name) and (hidden or not name.startswith("."))
        ]

    async def below(self, found: Sequence[_Found], any_type: bool) -> list[_Found]:
        """These directories themselves, and all that is below them, links to directories followed."""
        results: list[_Found] = []
        texts = await self.those([one.text for one in found if one.text not in ("", "/")], directories=True)
        level = ["" if not one.text else one.text for one in found if one.text in ("", "/")] + texts
        results += [_Found(_join(text, "") if text and any_type else text, True) for text in level]
        while level:
            listings = await each(level, lambda text: self._list(text, any_type))
            below = []
            for text, listing in zip(level, listings, strict=True):
                for name, is_directory in listing:
                    if name.startswith(".") and not self._include_hidden:
                        continue
                    path = _join(text, name)
                    results.append(_Found(path, True))
                    if is_directory:
                        below.append(path)
            level = below
        return results

    async def _list(self, text: str, any_type: bool) -> list[tuple[str, bool]]:
        """Names and whether each is a directory; nothing for what cannot be listed."""
        names = []
        try:
            async for entry in self._fs.scandir(self._path(text)):
                is_directory = entry.is_dir()
                if any_type or is_directory:
                    names.append((entry.name, is_directory))
        except OSError as error:
            if not _says_nothing_there(error):
                raise
        return names


def _join(folder: str, name: str) -> str:
    return os.path.join(folder, name) if folder else name


def _says_nothing_there(error: OSError) -> bool:
    """As `glob` has it: what may not be looked at does not match. A cluster that does not answer is another matter."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)


async def each(things: Sequence[S], ask: Callable[[S], Coroutine[Any, Any, T]], width: int = IN_FLIGHT) -> list[T]:
    """The answers for all things, in their order; `width` are asked for at a time. Raises the first error."""
    answers: dict[int, T] = {}
    left = iter(enumerate(things))

    async def work() -> None:
        for place, thing in left:
            answers[place] = await ask(thing)

    await run_all([work() for _ in range(min(width, len(things)))])
    return [answers[place] for place in range(len(things))]
