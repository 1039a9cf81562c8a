"""What `import fs_client` costs: workers and commands start with it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import fs_client

ROOT = Path(__file__).parents[2]


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_loads_nothing_that_is_heavy_or_breaks_on_fork() -> None:
    loaded = _run("import sys, fs_client; print(*sys.modules)").split()
    assert not {"asyncio", "uvloop", "grpc", "numpy", "torch", "rich", "click", "msgspec"} & set(loaded)


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
