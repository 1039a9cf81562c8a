"""A docker engine of this test alone, and the commands that are given to it. Ends with whoever made it (`guard.py`)."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.compose import guard, tools

ROOT = Path(__file__).parents[2]
COMMAND_S = 240.0
"""Building the image is the longest."""
IMAGE = "emberfs:test"
BASE = "emberfs-base:test"
FILES = (ROOT / "deploy" / "docker-compose.yml", Path(__file__).with_name("override.yml"))
_POLL_S = 0.2


class Engine:
    """Made by `running`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = list(FILES)
        """Of compose."""
        self.environment = dict(
            os.environ,
            PATH=os.environ["PATH"] + ":/usr/sbin:/sbin",
            DOCKER_HOST=f"unix://{guard.socket_of(folder)}",
            DOCKER_CONFIG=str(folder / "client"),
            COMPOSE_PROJECT_NAME="emberfs-test",
            EMBERFS_IMAGE=IMAGE,
            BASE_IMAGE=BASE,
        )

    def start(self, *arguments: str, stdin: "int | Path" = subprocess.DEVNULL) -> "subprocess.Popen[str]":
        """`docker ARGUMENTS` as a process whose output and errors are read from pipes."""
        with contextlib.ExitStack() as files:
            source = files.enter_context(open(stdin, "rb")) if isinstance(stdin, Path) else stdin
            return subprocess.Popen(
                ["docker", *arguments],
                env=self.environment,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def docker(self, *arguments: str, stdin: "int | Path" = subprocess.DEVNULL, code: int | None = 0) -> str:
        """What it printed, without errors. Fails unless it ends with this exit code (None: any)."""
        with self.start(*arguments, stdin=stdin) as process:
            try:
                output, errors = process.communicate(timeout=COMMAND_S)
            except BaseException:
                process.kill()
                raise
        assert code in (None, process.returncode), (
            f"docker {' '.join(arguments)}: {process.returncode}\n{output}{errors}"
        )
        return output

    def compose(self, *arguments: str, stdin: "int | Path" = subprocess.DEVNULL, code: int | None = 0) -> str:
        return self.docker(*self.compose_words(), *arguments, stdin=stdin, code=code)

    def compose_words(self) -> list[str]:
        return ["compose", *(word for file in self.files for word in ("--file", str(file)))]

    def inside(
        self, service: str, *command: str, stdin: "int | Path" = subprocess.DEVNULL, code: int | None = 0
    ) -> str:
        """Run a command in the container of a service."""
        return self.compose("exec", "--no-TTY", service, *command, stdin=stdin, code=code)

    def container(self, service: str) -> str:
        return f"emberfs-test-{service}-1"

    def wait(self, condition: Callable[[], bool], what: str, timeout: float = COMMAND_S) -> float:
        """Ask until it is true; the seconds that took."""
        start = time.monotonic()
        while not condition():
            assert time.monotonic() - start < timeout, f"waited {timeout:.0f} s in vain until {what}"
            time.sleep(_POLL_S)
        return time.monotonic() - start

    def leftovers(self) -> list[str]:
        """What is on this machine of an engine that has ended."""
        return [
            *(f"process {process}: {words}" for process, words in guard.processes_of(self.folder).items()),
            *(f"mount {point}" for point in guard.mounts_of(self.folder)),
            *(f"cgroup {group}" for group in guard.cgroups_of(self.folder)),
            *([f"folder {self.folder}"] if self.folder.exists() else []),
        ]


@contextlib.contextmanager
def running() -> Iterator[Engine]:
    """An engine that answers. Raises `tools.Missing` where none can be had."""
    tools.require_machine()
    tools.require_packages()
    plugin = tools.compose_plugin()
    # Socket paths end at 107 characters, and pytest's folders are longer.
    folder = Path(tempfile.mkdtemp(prefix="ember-docker-", dir="/tmp"))
    plugins = folder / "client" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(plugin)
    engine = Engine(folder)
    # A session of its own: Ctrl-C is for the test, whose end closes the pipe.
    with subprocess.Popen(
        [sys.executable, "-m", "tests.compose.guard", str(folder)],
        cwd=ROOT,
        env=engine.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if line != "ready":
            process.wait()
            raise tools.Missing(line or "the engine did not start")
        yield engine
    left = engine.leftovers()
    assert not left, f"left behind: {'; '.join(left)}"
