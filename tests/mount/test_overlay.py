"""The kernel's overlay file system with its upper layer on a mount."""

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from tests.mount.conftest import Mounted

pytestmark = pytest.mark.system

CHANGES = """
mount -t overlay overlay -o lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work $2
cd $2
echo more >> kept
rm removed
mv moved moved-here
mv directory directory-here 2>/dev/null || { cp -a directory directory-here; rm -r directory; }
rm -r replaced; mkdir replaced; echo new > replaced/new
find . | sort
cat kept moved-here
"""
SEEN = """\
.
./directory-here
./directory-here/below
./kept
./moved-here
./replaced
./replaced/new
kept
more
moved
"""


def overlaid(layers: Path, merged: Path) -> subprocess.CompletedProcess[str]:
    """Overlay mounted and changed in a name space of its own."""
    for name in ("lower/directory", "lower/replaced", "upper", "work"):
        (layers / name).mkdir(parents=True)
    for name in ("kept", "removed", "moved", "directory/below", "replaced/old"):
        (layers / "lower" / name).write_text(f"{name}\n")
    command = ["unshare", "--mount", "bash", "-ec", CHANGES, "bash", str(layers), str(merged)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_changes_of_an_overlay_lie_on_the_mount(
    cluster: LaunchedCluster, mount: Callable[..., Mounted], tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting overlays needs root")
    merged = tmp_path / "merged"
    merged.mkdir()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as local:
        control = overlaid(Path(local), merged)
    if control.returncode:
        pytest.skip(f"no overlays here: {control.stderr}")
    assert control.stdout == SEEN
    layers = mount(cluster).path / "layers"
    done = overlaid(layers, merged)
    assert (done.returncode, done.stdout) == (0, SEEN), done.stderr
    assert sorted(os.listdir(layers / "lower")) == ["directory", "kept", "moved", "removed", "replaced"]
    assert (layers / "upper" / "removed").is_char_device()
