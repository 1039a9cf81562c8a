"""The units under `deploy/systemd`: systemd understands them, and they let a daemon have little."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))
EXPOSED_MAX = 2.0
"""Of systemd's 10, for a daemon that serves the network: an unknown setting, or one that is gone, costs more."""

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyze(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


def copied(folder: Path) -> list[str]:
    """Templates as an instance: that is what a unit is started as."""
    names = [unit.name.replace("@.", "@1.") for unit in UNITS]
    for unit, name in zip(UNITS, names, strict=True):
        shutil.copy(unit, folder / name)
    return names


def test_systemd_understands_them(tmp_path: Path) -> None:
    assert {unit.name for unit in UNITS} >= {"emberfs-meta.service", "emberfs-storage@.service"}
    result = analyze("verify", *(f"./{name}" for name in copied(tmp_path)), folder=tmp_path)
    ours = [line for line in result.stderr.splitlines() if "emberfs" in line]
    assert (result.returncode, ours) == (0, [])


@pytest.mark.parametrize("name", ["emberfs-meta.service", "emberfs-storage@1.service"])
def test_a_daemon_may_do_little(tmp_path: Path, name: str) -> None:
    copied(tmp_path)
    result = analyze("security", "--offline=true", "--json=short", f"./{name}", folder=tmp_path)
    if "unrecognized option" in result.stderr:
        pytest.skip("this systemd cannot look at a unit that is not installed")
    found = json.loads(result.stdout)
    exposed = sum(float(each["exposure"] or 0) for each in found if each["exposure"])
    settings = {each["json_field"]: each["set"] for each in found}
    assert settings["UserOrDynamicUser"] and settings["NoNewPrivileges"] and settings["ProtectSystem"], settings
    assert exposed <= EXPOSED_MAX, [each["name"] for each in found if each["exposure"]]
