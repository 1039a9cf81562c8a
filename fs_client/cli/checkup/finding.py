"""One thing that was looked at."""

import enum
from typing import NamedTuple


class Level(enum.Enum):
    OK = "ok"
    NOTE = "note"
    """As it is, something is slower or cannot be done, and perhaps nobody wants it."""
    WARNING = "warning"
    """It works, and will not for long, or not for everybody."""
    PROBLEM = "problem"
    """Something does not work."""


class Finding(NamedTuple):
    level: Level
    subject: str
    """What was looked at, in a word or two; stable, for programs."""
    what: str
    """How it is, in one line."""
    do: str = ""
    """What to do, in one line; empty: nothing."""


def ok(subject: str, what: str) -> Finding:
    return Finding(Level.OK, subject, what)


def note(subject: str, what: str, do: str = "") -> Finding:
    return Finding(Level.NOTE, subject, what, do)


def warning(subject: str, what: str, do: str) -> Finding:
    return Finding(Level.WARNING, subject, what, do)


def problem(subject: str, what: str, do: str) -> Finding:
    return Finding(Level.PROBLEM, subject, what, do)
