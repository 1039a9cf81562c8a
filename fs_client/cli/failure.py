"""How a command fails: one line on stderr and an exit code, never a traceback."""

import errno
import os

import click

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
"""What a shell reports for a program that SIGINT ended."""
EXIT_TERMINATED = 143
"""What a shell reports for a program that SIGTERM ended."""
EXIT_BROKEN_PIPE = 141
"""What a shell reports for a program that SIGPIPE ended: the reader of our output went away."""


_SAY_IT_ALL = frozenset(
    {
        errno.ENOENT,
        errno.EEXIST,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOTEMPTY,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EACCES,
        errno.EROFS,
    }
)
"""Errors whose name, beside the path, is all there is to say; the words of the service name inodes."""


def reason(error: OSError) -> str:
    """What is wrong, in one line, without the subject."""
    text = error.strerror or str(error)
    if error.errno is None:
        return text
    name = os.strerror(error.errno)
    text = text.removeprefix(f"{name}: ")
    if error.filename is None:
        return text  # a whole sentence about what could not be done
    return name if error.errno in _SAY_IT_ALL or text == name else f"{name} ({text})"


class Failure(click.ClickException):
    """The command cannot go on. The message is one line: what happened, to what, what to do."""

    exit_code = EXIT_FAILED


class Usage(click.ClickException):
    """The command line asks for something that cannot be meant."""

    exit_code = EXIT_USAGE


class Done(click.exceptions.Exit):
    """End with this exit code: everything there is to say has been said."""
