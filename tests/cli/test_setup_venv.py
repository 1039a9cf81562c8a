"""deploy/setup-venv.sh on machines that lack something: it asks the package manager, or says one line."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "setup-venv.sh"
FAKE_PYTHON = """#!/bin/sh
# A Python {version}. The module venv is there once the file {venv} is.
case "$1" in
-c)
    case "$2" in
    *ensurepip*) [ -e {venv} ] && {new_enough} ;;
    *print*) echo {version} ;;
    *) {new_enough} ;;
    esac ;;
--version) echo Python {version} ;;
-m) [ "$2" = pip ] || {{ mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && cp "$0" "$3/bin/python"; }} ;;
esac
"""
FAKE_APT = """#!/bin/sh
echo "$@" >> {log}
{action}
"""


class Machine:
    """A folder that is all of PATH, and a repository beside it."""

    def __init__(self, root: Path) -> None:
        self.bin = root / "bin"
        self.repository = root / "repository"
        self.venv_package = root / "venv-package-is-installed"
        self.apt_log = root / "apt.log"
        self.bin.mkdir()
        self.repository.mkdir()
        (self.repository / "pyproject.toml").touch()
        for name in ("cat", "cp", "env", "mkdir", "rm", "sha256sum", "sh", "touch"):
            path = shutil.which(name)
            assert path is not None
            (self.bin / name).symlink_to(path)
        self.set_user(0)

    def set_user(self, number: int) -> None:
        self.add("id", f"#!/bin/sh\necho {number}\n")

    def add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def add_python(self, version: str) -> None:
        new_enough = "true" if tuple(map(int, version.split("."))) >= (3, 11) else "false"
        self.add("python3", FAKE_PYTHON.format(version=version, venv=self.venv_package, new_enough=new_enough))

    def add_apt(self, action: str) -> None:
        self.add("apt-get", FAKE_APT.format(log=self.apt_log, action=action))

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        bash = shutil.which("bash")
        assert bash is not None
        # /usr/bin/python3 is looked at by its path; these machines do not have it.
        script = f"cd {self.repository} && . <(sed 's#/usr/bin/python3##' {SCRIPT}) && setup_venv server"
        sed = shutil.which("sed")
        assert sed is not None
        script = script.replace("sed ", f"{sed} ")
        return subprocess.run(
            [bash, "-c", script],
            env={"PATH": str(self.bin)} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_python_and_without_apt(machine: Machine) -> None:
    result = machine.run()
    assert result.returncode == 1
    assert result.stderr == ("emberfs: needs python3 python3-venv and finds no apt-get; install them and run again\n")


def test_a_python_without_venv_gets_its_package(machine: Machine) -> None:
    machine.add_python("3.12")
    machine.add_apt(f"touch {machine.venv_package}")
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert machine.apt_log.read_text() == "install -qq -y --no-install-recommends python3.12-venv\n"
    assert (machine.repository / ".venv" / "pyvenv.cfg").exists()


def test_whoever_is_not_root_installs_through_sudo(machine: Machine) -> None:
    machine.set_user(1000)
    machine.add_python("3.12")
    machine.add_apt(f"touch {machine.venv_package}")
    result = machine.run()
    assert result.returncode == 1
    assert result.stderr == "emberfs: needs python3.12-venv; install them as root and run again\n"
    machine.add("sudo", '#!/bin/sh\n[ "$1" = -n ] && shift\nexec "$@"\n')
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert machine.apt_log.read_text() == "install -qq -y --no-install-recommends python3.12-venv\n"


def test_package_lists_are_fetched_when_there_are_none(machine: Machine) -> None:
    machine.add_python("3.11")
    updated = machine.apt_log.with_name("updated")
    installed = machine.venv_package
    machine.add_apt(f'case "$1" in update) touch {updated} ;; *) [ -e {updated} ] && touch {installed} ;; esac')
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in machine.apt_log.read_text().splitlines()] == ["install", "update", "install"]


def test_an_old_python_and_packages_that_are_no_better(machine: Machine) -> None:
    machine.add_python("3.9")
    machine.add_apt("true")
    result = machine.run()
    assert result.returncode == 1
    assert machine.apt_log.read_text().startswith("install -qq -y --no-install-recommends python3 python3-venv\n")
    assert result.stderr.splitlines()[-1] == (
        "emberfs: needs Python 3.11 or later with venv; this system's packages do not have it (see PYTHON=...)"
    )


def test_apt_that_fails(machine: Machine) -> None:
    machine.add_apt("false")
    result = machine.run()
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "emberfs: could not install python3 python3-venv with apt-get"


def test_a_python_that_is_named_and_no_good(machine: Machine) -> None:
    machine.add_python("3.9")
    result = machine.run(PYTHON="python3")
    assert result.returncode == 1
    assert result.stderr == (
        "emberfs: PYTHON=python3 is not Python 3.11 or later with the modules venv and ensurepip\n"
    )


def test_a_folder_called_venv_that_is_none_is_not_touched(machine: Machine) -> None:
    (machine.repository / ".venv").mkdir()
    (machine.repository / ".venv" / "precious").touch()
    result = machine.run()
    assert result.returncode == 1
    assert "is not a virtual environment; move it away and run again" in result.stderr
    assert (machine.repository / ".venv" / "precious").exists()


def test_a_good_environment_is_used_again(machine: Machine) -> None:
    machine.venv_package.touch()
    machine.add_python("3.11")
    assert "making .venv" in machine.run().stderr
    assert machine.run().stderr == ""
    (machine.repository / "pyproject.toml").write_text("changed")
    assert machine.run().stderr == "installing emberfs[server] in .venv ...\n"


def test_the_scripts_are_valid_shell() -> None:
    root = SCRIPT.parents[1]
    for script in (SCRIPT, root / "deploy" / "quickstart.sh", root / "tests" / "run.sh"):
        subprocess.run(["bash", "-n", script], check=True)
