"""How a command fails: one line on stderr and an exit code, never a traceback."""

import click

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
"""What a shell reports for a program that SIGINT ended."""
EXIT_BROKEN_PIPE = 141
"""What a shell reports for a program that SIGPIPE ended: the reader of our output went away."""


class Failure(click.ClickException):
    """The command cannot go on. The message is one line: what happened, to what, what to do."""

    exit_code = EXIT_FAILED


class Usage(click.ClickException):
    """The command line asks for something that cannot be meant."""

    exit_code = EXIT_USAGE


class Done(click.exceptions.Exit):
    """End with this exit code: everything there is to say has been said."""
