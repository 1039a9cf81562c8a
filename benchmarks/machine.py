"""What the figures were measured on: they mean nothing without it."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

_PACKAGES = ("uvloop", "msgspec", "lmdb", "grpcio", "crc32c", "numpy", "torch")


def describe(directory: Path) -> dict[str, Any]:
    """Processor, memory, kernel, file system of `directory`, Python and the packages that matter, as plain values."""
    return {
        "cpu": _first_value("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in (_first_value("/proc/cpuinfo", "flags") or "").split(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "directory_filesystem": _filesystem(directory),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
        "load_average": os.getloadavg()[0],
    }


def _first_value(path: str, key: str) -> str | None:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _filesystem(directory: Path) -> str | None:
    """Type of the file system that holds `directory`: the mount with the longest path above it."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(len(fields[1]), fields[2]) for fields in mounts if directory.resolve().is_relative_to(fields[1])]
    return max(above)[1] if above else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
