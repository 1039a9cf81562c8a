"""Reading a process's configuration: TOML into a typed record, with one clear line for what is wrong."""

import os
import tomllib
from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class ConfigError(Exception):
    """The configuration cannot be used. `str()` is one line that names the file and the key."""


def load(path: str | os.PathLike[str], record: type[T]) -> T:
    """The record in TOML file `path`. `record` should be declared with `forbid_unknown_fields=True`.

    A `__post_init__` of the record may raise `ValueError` for values that do not go together.
    Raises `ConfigError`.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            tree = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: is not UTF-8: {error.reason} at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: is not TOML: {error}") from None
    try:
        return msgspec.convert(tree, record)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {_in_words(str(error))}") from None


def _in_words(message: str) -> str:
    """msgspec says "... - at `$.a.b`"; people look for the key first."""
    what, separator, where = message.partition(" - at `$")
    if not separator:
        return what
    key = where.rstrip("`").lstrip(".")
    return f"{key}: {what}" if key else what
