"""Prometheus' own checker, out of Debian's package, without installing that: it would start a server."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.compose.tools import Missing, cache

DOWNLOAD_S = 120.0


def promtool() -> str:
    """Its path. Raises `Missing`."""
    installed = shutil.which("promtool")
    if installed:
        return installed
    kept = cache() / "promtool"
    if not kept.exists():
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise Missing("promtool is not installed, and there is no apt-get")
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            _run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "prometheus"], folder)
            _run(["dpkg-deb", "--extract", *map(str, Path(folder).glob("*.deb")), folder], folder)
            Path(folder, "usr/bin/promtool").rename(kept)
    return str(kept)


def _run(command: list[str], folder: str) -> None:
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_S)
    except subprocess.TimeoutExpired:
        raise Missing(f"{command[0]} took longer than {DOWNLOAD_S:.0f} s") from None
    if result.returncode:
        raise Missing(f"promtool cannot be had: {' '.join(result.stderr.split())}")
