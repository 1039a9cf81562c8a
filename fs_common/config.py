"""A process's configuration: TOML and environment variables made a typed record; one clear line for what is wrong.

A key is set by its default, by the file, or by the environment variable of its name (`EMBERFS_META_PORT` is `port` of
the metadata server): what comes later wins. A daemon in a container needs no file at all then. Secrets are not among
the keys: a process's environment is read by whoever may look at the process; the keys name files that hold them.
"""

import os
import tomllib
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

META_VARIABLES = "EMBERFS_META_"
STORAGE_VARIABLES = "EMBERFS_STORAGE_"
NO_VARIABLES: Mapping[str, str] = {}


NOT_TOML = (ValueError, RecursionError)
"""What `tomllib` raises: beside its own error, that of a number of thousands of digits, and of brackets in brackets."""


class ConfigError(Exception):
    """The configuration cannot be used. `str()` is one line that names the file or variable, and the key."""


def load(
    path: str | os.PathLike[str] | None,
    record: type[T],
    prefix: str = "",
    environment: Mapping[str, str] = NO_VARIABLES,
) -> T:
    """The record in TOML file `path`, with what the variables of `environment` that begin with `prefix` say instead.

    Without a file (None) the variables are all there is. `record` should be declared with
    `forbid_unknown_fields=True`. A `__post_init__` of the record may raise `ValueError` for values that do not go
    together. Raises `ConfigError`.
    """
    values = own_values(path, record, prefix, environment)
    names = [] if path is None else [os.fspath(path)]
    if path is None or any(prefix and name.startswith(prefix) for name in environment):
        names.append(f"the environment ({prefix}...)")
    try:
        return msgspec.convert(values, record)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{' and '.join(names)}: {in_words(str(error))}") from None


def own_values(
    path: str | os.PathLike[str] | None,
    record: type[T],
    prefix: str = "",
    environment: Mapping[str, str] = NO_VARIABLES,
) -> dict[str, Any]:
    """What the file and the environment say, before it is a record. Raises `ConfigError`."""
    values = {} if path is None else _read(path)
    return values | {key: value for key, (_, value) in _variables(record, prefix, environment).items()}


def origins(
    path: str | os.PathLike[str] | None,
    record: type[T],
    prefix: str = "",
    environment: Mapping[str, str] = NO_VARIABLES,
) -> dict[str, str]:
    """Of each key of `record`: the file or the variable that sets it, or "default". Raises `ConfigError`."""
    found = dict.fromkeys((field.encode_name for field in msgspec.structs.fields(record)), "default")
    if path is not None:
        found |= dict.fromkeys(_read(path).keys() & found.keys(), os.fspath(path))
    return found | {key: name for key, (name, _) in _variables(record, prefix, environment).items()}


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: is not UTF-8: {error.reason} at byte {error.start}") from None
    except NOT_TOML as error:
        raise ConfigError(f"{name}: is not TOML: {error}") from None


def _variables(record: type[msgspec.Struct], prefix: str, environment: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """Of each key that a variable sets: the variable's name, and its value as a value of the key's type."""
    fields = {prefix + field.encode_name.upper(): field for field in msgspec.structs.fields(record)}
    found = {}
    for name in sorted(environment):
        if not prefix or not name.startswith(prefix):
            continue
        if name not in fields:
            raise ConfigError(f"{name}: there is no setting {name.removeprefix(prefix).lower()}; unset it")
        field = fields[name]
        try:
            found[field.encode_name] = (name, msgspec.convert(environment[name], field.type, strict=False))
        except msgspec.ValidationError as error:
            raise ConfigError(f"{name}: {in_words(str(error))}") from None
    return found


def in_words(message: str) -> str:
    """msgspec says "... - at `$.a.b`"; people look for the key first."""
    what, separator, where = message.partition(" - at `$")
    if not separator:
        return what
    key = where.rstrip("`").lstrip(".")
    return f"{key}: {what}" if key else what
