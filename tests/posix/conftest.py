"""The subjects: directories on file systems of several kinds, through which every test of this folder goes.

* `disk`: wherever temporary files are; `tmpfs`: /dev/shm. They show that the tests are right.
* `mount`: a cluster of real processes and a mount of it.
* `given`: the directory in EMBERFS_POSIX_DIR, alone: the suite for any file system; EMBERFS_POSIX_OTHER is the same
  directory through another mount, if there is one.
"""

import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.posix import mounts
from tests.posix.files import remove_tree
from tests.posix.subject import Subject

GIVEN = os.environ.get("EMBERFS_POSIX_DIR")
GIVEN_OTHER = os.environ.get("EMBERFS_POSIX_OTHER", GIVEN)
SHARED_MEMORY = Path("/dev/shm")
TEST_TIMEOUT_S = 60
"""No test takes a second; one that hangs in a system call is interrupted and fails."""


def _subjects() -> list[object]:
    if GIVEN:
        return ["given"]
    return ["disk", "tmpfs", pytest.param("mount", marks=[pytest.mark.system, pytest.mark.slow])]


@pytest.fixture(scope="session", params=_subjects())
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """The file system under test: a directory that all tests share."""
    kind = request.param
    if kind == "mount":
        with mounts.cluster_with_two_mounts(tmp_path_factory.mktemp("posix")) as (first, second):
            yield Subject(kind, first, second)
        return
    if kind == "tmpfs" and not os.access(SHARED_MEMORY, os.W_OK):
        pytest.skip("no tmpfs at /dev/shm")
    place = {"given": GIVEN, "disk": None, "tmpfs": str(SHARED_MEMORY)}[kind]
    path = Path(tempfile.mkdtemp(prefix="posix-", dir=place))
    path.chmod(0o755)
    try:
        yield Subject(kind, path, Path(GIVEN_OTHER, path.name) if kind == "given" and GIVEN_OTHER else path)
    finally:
        remove_tree(path)


_numbers = itertools.count()


@pytest.fixture
def subject(root: Subject) -> Iterator[Subject]:
    """An empty directory of mode 0755 for this test alone."""
    name = f"t{os.getpid()}-{next(_numbers)}"
    path = root.path / name
    path.mkdir()
    path.chmod(0o755)
    try:
        yield Subject(root.kind, path, root.other / name)
    finally:
        remove_tree(path)


@pytest.fixture
def directory(subject: Subject) -> Path:
    return subject.path


@pytest.fixture(autouse=True)
def usual_end_of_children() -> Iterator[None]:
    """Torch leaves a handler for SIGCHLD in processes that have used its loader: a call that waits here would end by
    EINTR when a process that plays another user does."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def ends_in_time() -> Iterator[Callable[[int], None]]:
    """Interrupts a test that hangs; one that takes longer by nature calls this with its seconds."""

    def hung(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the test is still running long after it should have ended")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(TEST_TIMEOUT_S)
    yield lambda seconds: signal.alarm(seconds) and None
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
