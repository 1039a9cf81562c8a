"""Programs that are executed from the directory: scripts, binaries, shared libraries."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.posix.files import make, opened, refused
from tests.posix.people import ALICE, as_user, needs_root
from tests.posix.subject import Subject

TRUE = Path("/bin/true")
SLEEP = Path("/bin/sleep")


@pytest.fixture
def place(subject: Subject) -> Path:
    subject.needs("exec")
    return subject.path


def spawn(path: Path, *arguments: str) -> int:
    """Exit code."""
    pid = os.posix_spawn(path, [str(path), *arguments], os.environ)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_binary(place: Path) -> None:
    shutil.copy(TRUE, place / "true")
    assert spawn(place / "true") == 0


def test_script(place: Path) -> None:
    path = make(place / "script", b"#!/bin/sh\nexit $1\n", 0o755)
    assert spawn(path, "7") == 7


def test_script_whose_interpreter_is_on_the_file_system(place: Path) -> None:
    shutil.copy("/bin/sh", place / "sh")
    path = make(place / "script", f"#!{place}/sh\nexit 3\n".encode(), 0o755)
    assert spawn(path) == 3


def test_by_descriptor(place: Path) -> None:
    shutil.copy(TRUE, place / "true")
    with opened(place / "true") as descriptor:
        pid = os.fork()
        if pid == 0:
            try:
                os.execve(descriptor, ["true"], os.environ)
            finally:
                os._exit(99)
        assert os.waitpid(pid, 0)[1] == 0


def test_needs_the_execute_bit(place: Path) -> None:
    path = make(place / "script", b"#!/bin/sh\n", 0o644)
    with refused(errno.EACCES):
        spawn(path)
    path.chmod(0o755)
    assert spawn(path) == 0
    path.chmod(0o700)
    with refused(errno.EACCES):
        as_user(spawn, path)
    with refused(errno.EACCES):
        spawn(place)


def test_readable_and_not_executable_differ(place: Path) -> None:
    """A binary may be executed by who cannot read it."""
    needs_root()
    shutil.copy(TRUE, place / "true")
    (place / "true").chmod(0o711)
    assert as_user(spawn, place / "true", uid=ALICE) == 0


def test_no_known_format(place: Path) -> None:
    path = make(place / "noise", b"\x00\x01\x02\x03" * 100, 0o755)
    with refused(errno.ENOEXEC):
        spawn(path)
    with refused(errno.ENOEXEC):
        spawn(make(place / "empty", b"", 0o755))


def test_text_is_busy_while_it_runs(place: Path) -> None:
    shutil.copy(SLEEP, place / "sleep")
    with subprocess.Popen([place / "sleep", "100"]) as process:
        try:
            with refused(errno.ETXTBSY):
                os.open(place / "sleep", os.O_WRONLY)
            with refused(errno.ETXTBSY):
                os.truncate(place / "sleep", 0)
            (place / "sleep").rename(place / "moved")
            (place / "moved").unlink()
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == -signal.SIGTERM


def test_replaced_while_it_runs(place: Path) -> None:
    """How programs are upgraded: the running one keeps its text."""
    shutil.copy(SLEEP, place / "program")
    with subprocess.Popen([place / "program", "100"]) as process:
        try:
            shutil.copy(TRUE, place / "new")
            (place / "new").rename(place / "program")
            assert spawn(place / "program") == 0
            assert process.poll() is None
        finally:
            process.terminate()


def test_set_user_id(subject: Subject, place: Path) -> None:
    """Taken by the kernel where the file system is mounted with it."""
    needs_root()
    subject.needs("suid")
    shutil.copy("/usr/bin/id", place / "id")
    os.chown(place / "id", ALICE, ALICE)
    (place / "id").chmod(0o4755)
    found = subprocess.run([place / "id", "-u"], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(ALICE)


def test_shared_library(place: Path) -> None:
    """Mapped executable, privately: any extension module of Python's."""
    modules = sorted(Path(sysconfig.get_paths()["platstdlib"], "lib-dynload").glob("_json*.so"))
    if not modules:
        pytest.skip("this Python has no extension module of its own")
    shutil.copy(modules[0], place)
    code = f"import sys; sys.path.insert(0, {str(place)!r}); import _json; print(_json.__file__)"
    found = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(place / modules[0].name)


def test_python_package(place: Path) -> None:
    """Imported twice: compiled, then from the cache that is beside it."""
    (place / "package").mkdir()
    make(place / "package" / "__init__.py", b"value = 41\n")
    make(place / "package" / "inner.py", b"from package import value\nvalue += 1\n")
    code = f"import sys; sys.path.insert(0, {str(place)!r}); import package.inner; print(package.inner.value)"
    for _ in range(2):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        )
        assert found.stdout.strip() == "42"
        assert list((place / "package" / "__pycache__").glob("inner*.pyc"))
