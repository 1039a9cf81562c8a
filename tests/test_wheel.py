"""What is in the wheel, and that it works from there: everything else runs from the source tree."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"emberfs", "fs_common", "fs_meta", "fs_storage", "fs_client"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files as they lie in site-packages."""
    pytest.importorskip("hatchling", reason="no hatchling: pip install 'emberfs[dev]'")
    made = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (wheel,) = made.glob("*.whl")
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    return site


def python(site: Path, cwd: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_top_level_names_are_ours_alone(installed: Path) -> None:
    tops = {path.name for path in installed.iterdir()}
    assert {name for name in tops if not name.endswith(".dist-info")} == PACKAGES
    assert (installed / "emberfs" / "py.typed").exists()


def test_the_public_names_come_from_it(installed: Path, tmp_path: Path) -> None:
    code = "import emberfs; print(emberfs.__file__); print(emberfs.FileSystem.__module__, emberfs.__version__)"
    where, module, *_ = python(installed, tmp_path, "-c", code).split()
    assert Path(where).is_relative_to(installed) and module == "fs_client.filesystem"


def test_its_benchmarks_run_whatever_else_has_their_name(installed: Path, tmp_path: Path) -> None:
    decoy = tmp_path / "benchmarks"
    decoy.mkdir()
    (decoy / "__init__.py").touch()
    (decoy / "__main__.py").write_text("print('another project')\n")
    runner = installed / "emberfs" / "bundled" / "benchmarks" / "__main__.py"
    runner.write_text(
        runner.read_text()
        .replace('"""', '"""From the wheel. ', 1)
        .replace("import click", "import click; print(__doc__)", 1)
    )
    output = python(installed, tmp_path, "-m", "emberfs", "bench", "--help")
    assert "From the wheel" in output and "--quick" in output
    assert "another project" not in output
