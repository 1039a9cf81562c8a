"""Remote paths: `ember:/path` in the cluster of `--cluster`, and `ember://host:port/path`.

Anything else is local. A local file whose name looks like a remote path is written `./ember:...`.
"""

import os
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import click

from fs_client.cli.failure import EXIT_FAILED, EXIT_TERMINATED, Done, Usage, reason

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

T = TypeVar("T")
SCHEME = "ember:"
_ALMOST = re.compile("(ember|emberfs|ember-fs|embr|embers|emberf):/", re.IGNORECASE)
"""How the scheme is mistyped."""
_OF_A_SERVER = re.compile(r"((?:[\w.-]+|\[[\da-fA-F:]+\]):\d{1,5}(?:,[^/]*?)?):?(/.*)?")
"""A path as `emberfs mount` takes it, `host:port:/path`; or nearly so."""


class RemotePath(NamedTuple):
    cluster: str
    """`host:port[,host:port...]`"""
    path: str
    """Absolute, without `//` and `.`; bytes that are not UTF-8 as surrogate escapes. It ends with a slash where
    the user has written one: a directory is meant, and the service takes nothing else."""
    prefix: str
    """What the user wrote before the path; `prefix + path` is the path as the user would write it."""

    def __str__(self) -> str:
        return self.prefix + self.path

    def child(self, name: str) -> "RemotePath":
        return self._replace(path=join(self.path, name))

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]


def join(folder: str, name: str) -> str:
    return folder + name if folder.endswith("/") else f"{folder}/{name}"


def parse(text: str, cluster: str) -> RemotePath | None:
    """The remote path, or None for a local one. Raises `Usage` for one that is neither."""
    if not text.startswith(SCHEME):
        if _ALMOST.match(text):
            meant = SCHEME + text.partition(":")[2]
            raise Usage(f"{text!r}: did you mean {meant}? A local file of this name is written ./{text}")
        return None
    rest = text.removeprefix(SCHEME)
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        if not authority:
            raise Usage(f"{text!r} names no server: write ember://HOST:PORT/PATH, or ember:/PATH")
        return RemotePath(authority, _normal(slash + path), f"{SCHEME}//{authority}")
    if not rest.startswith("/"):
        raise Usage(f"{text!r} is not absolute: remote paths start at the root, as ember:/{rest}")
    return RemotePath(cluster, _normal(rest), SCHEME)


def require(text: str, cluster: str) -> RemotePath:
    """Like `parse`, for commands that know only remote paths."""
    path = parse(text, cluster)
    if path is None:
        raise Usage(_what_it_is(text))
    return path


def _what_it_is(text: str) -> str:
    """Of a path that is not remote: why, and how it would be written."""
    of_server = _OF_A_SERVER.fullmatch(text)
    if of_server is not None:
        return f"{text!r}: write {SCHEME}//{of_server[1]}{of_server[2] or '/'}"
    from fs_client.cli.on_a_mount import path_on_cluster

    absolute = text if text.startswith("/") else f"/{text}"
    there = path_on_cluster(text)
    if there is not None:
        return f"{text!r} is a path on a mount: paths here are those of the cluster, as {SCHEME}{there}"
    return f"{text!r} is a local path: this command works on remote ones, as {SCHEME}{absolute}"


def require_all(texts: Sequence[str], cluster: str) -> list[RemotePath]:
    return [require(text, cluster) for text in texts]


def _normal(path: str) -> str:
    """Without empty and `.` components; one of these at the end leaves a slash, which says that a directory is meant.
    `..` stays: through a symbolic link it means what the server says."""
    parts = path.split("/")
    named = [part for part in parts if part not in ("", ".")]
    return "/" + "/".join(named) + ("/" if named and parts[-1] in ("", ".") else "")


class Connections:
    """One file system for each cluster that a command names; all closed at its end."""

    def __init__(self) -> None:
        self._open: dict[str, AsyncFileSystem] = {}

    async def to(self, path: RemotePath) -> "AsyncFileSystem":
        """Raises `OSError` when the cluster cannot be reached, `Usage` when its address is none."""
        known = self._open.get(path.cluster)
        if known is None:
            from fs_client import aio

            try:
                known = await aio.connect(path.cluster)
            except ValueError as error:
                raise Usage(str(error)) from None
            self._open[path.cluster] = known
        return known

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file_system in self._open.values():
            await file_system.close()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end. Ctrl-C and SIGTERM cancel it, so that it can clean up behind itself.

    Raises KeyboardInterrupt, or `Done` after SIGTERM, once it has ended.
    """
    import asyncio
    import signal

    import uvloop

    async def until_terminated() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await coroutine

    before = signal.getsignal(signal.SIGTERM)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(until_terminated())
    except asyncio.CancelledError:
        raise Done(EXIT_TERMINATED) from None
    finally:
        # The loop leaves its own behind, which does nothing once it is closed.
        signal.signal(signal.SIGTERM, before)


class Failures:
    """For commands that go on with the next path: says what failed at once, and ends with exit code 1."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, subject: object, error: OSError | str) -> None:
        if isinstance(error, BrokenPipeError):
            # Not of the path, but of our own output: nobody reads on.
            raise error
        text = error if isinstance(error, str) else reason(error)
        click.echo(f"emberfs: {printable(str(subject))}: {text}", err=True)
        self.count += 1

    def end(self) -> None:
        if self.count:
            raise Done(EXIT_FAILED)


async def for_each(
    locations: Sequence[RemotePath], act: "Callable[[AsyncFileSystem, RemotePath], Awaitable[None]]"
) -> None:
    """Do it to each path in turn; those that fail are named, and the exit code is then 1."""
    failures = Failures()
    async with Connections() as connections:
        for location in locations:
            fs = await connections.to(location)
            try:
                await act(fs, location)
            except OSError as error:
                failures.add(location, error)
    failures.end()


def printable(name: str) -> str:
    """A name that cannot move the cursor or hide another one: control characters and stray bytes are escaped."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def shown(name: str) -> str:
    """A name for stdout: as it is for programs, printable for people."""
    return printable(name) if os.isatty(1) else name
