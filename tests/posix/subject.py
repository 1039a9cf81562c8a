"""What a test runs on."""

import os
import secrets
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest


class Subject(NamedTuple):
    kind: str
    """`disk`, `tmpfs`, `mount` or `given`"""
    path: Path
    other: Path
    """The same directory, through another mount of the file system where there is one."""

    @property
    def local(self) -> bool:
        return self.path == self.other

    def elsewhere(self) -> Path:
        """A path, with nothing there, on another file system."""
        for place in ("/dev/shm", tempfile.gettempdir(), "/run"):
            if os.access(place, os.W_OK) and os.stat(place).st_dev != self.path.stat().st_dev:
                return Path(place, f"posix-elsewhere-{secrets.token_hex(8)}")
        pytest.skip("no other file system to write to")

    def needs(self, *flags: str) -> None:
        """Skip where the file system is mounted without what the test needs: `exec`, `suid`, `dev`."""
        set_flags = os.statvfs(self.path).f_flag
        for flag in flags:
            if set_flags & getattr(os, f"ST_NO{flag.upper()}"):
                pytest.skip(f"mounted with no{flag}")
