"""Fixtures for all tests: clusters of real processes, checks for what a test leaves behind, hypothesis' profiles."""

import contextlib
import gc
import os
import shutil
import signal

# Before anything imports gRPC: its own handlers for fork end children of processes in which it was used. Tests fork
# processes that act as other users, and none of these talks gRPC.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from fs_client.cli.failure import Failure
from fs_client.cli.local.configuration import Options
from fs_client.cli.local.launch import LaunchedCluster, launch
from tests import leaks

# What fails in CI fails again when it is run again: examples are a function of the test. `--hypothesis-profile=explore`
# looks for new ones; a failure prints how to reproduce it.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True, max_examples=2000)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

# Where this is set, each of the thousands of processes that tests start would compile all it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Shells let what they run in the background ignore Ctrl-C, and tests and their processes would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FAST_SETTINGS = (
    "meta.heartbeat_interval_ms=200",
    "meta.lease_ms=3200",
    "meta.failure_ms=4000",
    "meta.gc_delay_ms=0",
    "meta.gc_interval_ms=100",
)
"""A daemon that hangs is noticed, and removed space is free, within seconds instead of minutes. One that only waits for
a processor, among other tests, is not taken for hanging."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: what they find need not be searched for in a cluster."""
    items.sort(key=lambda item: ("slow" in item.keywords) + 2 * ("system" in item.keywords))


def pytest_collection_finish() -> None:
    """What collecting has made stays until the end. Unless collections of garbage pass it by, each takes a second in
    which no timer fires, and they are rare: what tests leave in cycles, buffers among it, comes to gigabytes meanwhile.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """A descriptor, a child process or a shared-memory segment that a test leaves fails it."""
    before = leaks.holdings()
    yield
    left = leaks.describe_leaks(before, leaks.holdings())
    if left:
        left = leaks.settle(before)
    assert not left, f"left behind: {'; '.join(left)}"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaunchedCluster]:
    """A cluster of real processes that many tests share: three daemons, three replicas, durability `memory`.

    Tests work in directories of their own in it, and hurt none of its processes.
    """
    options = Options(port=0, durability="memory", settings=FAST_SETTINGS)
    with launch(tmp_path_factory.mktemp("cluster"), options, restart=False) as running:
        yield running


@pytest.fixture
def fresh_cluster(tmp_path: Path) -> Iterator[Callable[..., LaunchedCluster]]:
    """Makes clusters for this test alone: `fresh_cluster("name", storage=3, durability="disk", ...)`.

    The name is that of its directory; the same name again starts the same cluster anew. A daemon that is killed stays
    dead until SIGUSR1 reaches the supervisor.
    """
    with contextlib.ExitStack() as running:

        def start(
            name: str = "cluster",
            *,
            settings: tuple[str, ...] = FAST_SETTINGS,
            port: int | None = 0,
            restart: bool = False,
            **options: int | str,
        ) -> LaunchedCluster:
            made = Options(port=port, settings=settings, **options)  # type: ignore[arg-type]
            is_new = not (tmp_path / name).exists()
            while True:
                try:
                    return running.enter_context(launch(tmp_path / name, made, restart=restart))
                except Failure as failure:
                    # Between the choice of a free port and its use, another test may have taken it.
                    if not is_new or port != 0 or "Address already in use" not in str(failure):
                        raise
                    shutil.rmtree(tmp_path / name)

        yield start
