"""Writing tokens into files that nobody else can read."""

import os
from collections.abc import Mapping
from pathlib import Path


def write_tokens(directory: Path, texts: Mapping[str, str]) -> None:
    """One line in each file of `directory`, made if it is missing. Whole or not there, and durable on return. Raises
    `OSError`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in texts.items():
        path, half = directory / name, directory / f".{name}.new"
        half.unlink(missing_ok=True)
        file = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.write(file, f"{text}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
        half.rename(path)
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
