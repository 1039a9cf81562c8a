"""What `import emberfs` and `import fs_client` cost, with which workers and commands start; all names are there."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import emberfs
import fs_client

ROOT = Path(__file__).parents[2]


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_loads_nothing_that_is_heavy_or_breaks_on_fork() -> None:
    loaded = _run("import sys, fs_client; print(*sys.modules)").split()
    assert not {"asyncio", "uvloop", "grpc", "numpy", "torch", "rich", "click", "msgspec"} & set(loaded)


def test_the_public_package_loads_what_is_used_and_no_more() -> None:
    loaded = _run("import sys, emberfs; print(*sys.modules)").split()
    assert not {"asyncio", "uvloop", "numpy", "torch", "click", "msgspec", "fs_client.aio"} & set(loaded)
    loaded = _run("import sys, emberfs; emberfs.connect, emberfs.aio, emberfs.errors; print(*sys.modules)").split()
    assert "fs_client.filesystem" in loaded
    assert not {"grpc", "numpy", "torch", "rich", "click", "lmdb", "structlog"} & set(loaded)


@pytest.mark.parametrize("package", ["emberfs", "emberfs.aio", "emberfs.errors", "emberfs.loader"])
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ and not [name for name in module.__all__ if getattr(module, name, None) is None]
    assert not hasattr(module, "nothing_of_this_name")
    assert set(dir(module)) >= set(module.__all__)


def test_both_packages_name_the_same_things() -> None:
    assert emberfs.FileSystem is fs_client.FileSystem and emberfs.aio.connect is fs_client.aio.connect
    assert emberfs.loader.FileDataset is emberfs.FileDataset and emberfs.errors.EmberError is emberfs.EmberError


def test_the_whole_client_needs_no_grpc_numpy_torch_or_rich() -> None:
    loaded = _run("import sys, fs_client; fs_client.connect; fs_client.aio; print(*sys.modules)").split()
    assert "fs_client.aio" in loaded
    assert not {"grpc", "numpy", "torch", "rich", "click", "lmdb", "structlog"} & set(loaded)


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert fs_client.__version__ == project["project"]["version"]


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(fs_client, "nothing_of_this_name")
    assert set(dir(fs_client)) >= {"connect", "FileSystem", "aio", "__version__"}
