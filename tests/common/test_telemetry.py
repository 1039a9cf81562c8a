"""Counters, and log lines of a process of its own (logging is global)."""

import json
import logging
import signal
import subprocess
import sys

import pytest

from fs_common.telemetry import Counters, LimitedLog


def test_counters_start_at_zero_and_grow() -> None:
    counters = Counters()
    assert counters["reads"] == 0
    counters.add("reads")
    counters.add("read_bytes", 100)
    counters.add("reads", 2)
    before = counters.snapshot()
    assert before == {"reads": 3, "read_bytes": 100}
    counters.add("reads")
    assert before["reads"] == 3


def test_lines_about_strangers_are_bounded_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    log = LimitedLog(logging.getLogger("limited"), lines_max=3, period_s=10.0, clock=lambda: now)
    for number in range(50):
        log.line(logging.WARNING, "stranger %d", number)
    now = 109.9
    log.line(logging.WARNING, "stranger %d", 50)
    assert caplog.messages == ["stranger 0", "stranger 1", "stranger 2"]
    caplog.clear()
    now = 110.0
    log.line(logging.WARNING, "stranger %d", 51)
    log.line(logging.WARNING, "stranger %d", 52)
    assert caplog.messages == ["48 lines like the next one were left out", "stranger 51", "stranger 52"]


PROGRAM = """
import logging, sys
from fs_common.telemetry import configure_logging
assert not logging.getLogger().handlers
configure_logging("meta", json={json}, level="{level}")
logger = logging.getLogger("fs_meta.example")
logger.debug("quiet %s", 1)
logger.info("loud %s", 2, extra={{"node": 7}})
token = "what-a-" + "peer-sent"
from fs_common import tracing
tracing.enter(0xabc)
try:
    raise ValueError("why")
except ValueError:
    logger.exception("failed")
"""


def lines_of(json: bool, level: str = "INFO") -> list[str]:
    code = PROGRAM.format(json=json, level=level)
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == ""
    return result.stderr.splitlines()


def test_json_lines() -> None:
    loud, failed = map(json.loads, lines_of(json=True))
    assert loud.pop("timestamp").endswith("Z")
    assert loud == {"event": "loud 2", "level": "info", "logger": "fs_meta.example", "process": "meta", "node": 7}
    assert failed["event"] == "failed" and failed["trace"] == "00000abc"
    assert "ValueError: why" in failed["exception"]


def test_lines_without_packages_have_the_same_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys.modules[__name__], "PROGRAM", PROGRAM.replace("configure_logging", "configure_plain_logging")
    )
    loud, failed = map(json.loads, lines_of(json=True))
    assert loud.pop("timestamp").endswith("Z")
    assert loud == {"event": "loud 2", "level": "info", "logger": "fs_meta.example", "process": "meta", "node": 7}
    assert failed["event"] == "failed" and failed["trace"] == "00000abc" and "ValueError: why" in failed["exception"]
    text = "\n".join(lines_of(json=False, level="debug"))
    assert "quiet 1" in text and "loud 2 node=7" in text and "trace=00000abc" in text and "ValueError: why" in text


@pytest.mark.parametrize("configure", ["configure_logging", "configure_plain_logging"])
def test_what_ends_the_process_is_a_line_of_json(configure: str) -> None:
    code = f"from fs_common.telemetry import {configure}; {configure}('x', json=True); {{}}['what']"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    (line,) = map(json.loads, result.stderr.splitlines())
    assert result.returncode == 1 and line["level"] == "critical" and "KeyError: 'what'" in line["exception"]


def test_readable_lines() -> None:
    text = "\n".join(lines_of(json=False, level="debug"))
    assert "quiet 1" in text
    assert "loud 2" in text
    assert "node=7" in text
    assert "trace=00000abc" in text
    assert "ValueError: why" in text


@pytest.mark.parametrize("json", [False, True])
def test_logs_show_no_variables(json: bool) -> None:
    """They hold what others have sent."""
    text = "\n".join(lines_of(json))
    assert "ValueError: why" in text
    assert "what-a-peer-sent" not in text


def test_an_unknown_level_is_refused() -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "from fs_common.telemetry import configure_logging; configure_logging('x', level='LOUD')",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ValueError" in result.stderr
    assert "LOUD" in result.stderr


@pytest.mark.parametrize("module", ["fs_common.telemetry", "fs_common.peers", "fs_common.transports.tcp"])
def test_importing_configures_nothing(module: str) -> None:
    code = f"import logging, {module}; assert not logging.getLogger().handlers; assert logging.getLogger().level == 30"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_crash_says_where_it_was() -> None:
    code = """
import os, signal
from fs_common.telemetry import log_crashes
log_crashes()
def where_it_happens():
    os.kill(os.getpid(), signal.SIGSEGV)
where_it_happens()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGSEGV
    assert "in where_it_happens" in result.stderr
