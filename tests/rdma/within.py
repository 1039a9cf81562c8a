"""A pytest plugin for the short run in the guest: the tests in the order of the command line, while there is time.

    EMBERFS_RDMA_UNTIL_S=540 pytest -p tests.rdma.within tests/rdma/test_cluster.py tests/rdma/test_failover.py

No test begins once the machine runs for so many seconds: how far a slow machine comes is no test's fault. One that
hangs fails by its own limit; where it holds the interpreter, as a binding of verbs may, the process ends, with a
traceback. So who waits for all of them and gives up knows that they were slow, and nothing else.
"""

import faulthandler
import os
import time
from collections.abc import Generator

import pytest

UNTIL_S = float(os.environ.get("EMBERFS_RDMA_UNTIL_S", "inf"))
HANGS_S = 320.0
"""More than any test has, or what is made for it."""
_errors = os.dup(2)
"""What is written there is seen, whatever pytest captures."""
left_out = pytest.StashKey[list[str]]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((i for i, path in enumerate(config.args) if item.nodeid.startswith(path)), 0))
    config.stash[left_out] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.clock_gettime(time.CLOCK_BOOTTIME) >= UNTIL_S:
        item.config.stash[left_out].append(item.nodeid)
        pytest.skip(f"this machine runs for {UNTIL_S:.0f} s: it is slow, and others wait")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    faulthandler.dump_traceback_later(HANGS_S, exit=True, file=_errors)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    faulthandler.dump_traceback_later(HANGS_S, exit=True, file=_errors)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    missing = config.stash.get(left_out, [])
    if missing:
        terminalreporter.write_line(f"no time was left for {len(missing)} tests, from {missing[0]} on")
