"""The comparison with other file systems: its pure parts, and its measurements on plain directories."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmarks.context import Context
from benchmarks.peers import __main__ as peers_command
from benchmarks.peers import packages
from benchmarks.peers.comparison import Comparison, as_json, as_table, turn
from benchmarks.peers.glusterfs import management_volume
from benchmarks.peers.measurements import MEASUREMENTS, Measurement, Row, Sizes, fill
from benchmarks.peers.moosefs import settings
from benchmarks.peers.processes import PeerError, Ports, Processes, stop_by_file, wait_until
from benchmarks.peers.seaweedfs import identities
from benchmarks.peers.system import Local

TINY = Sizes(
    random_bytes=1 << 16, read_s=0.01, stream_bytes=1 << 20, files=16, stats=5, listed=10, tree="json"
)  # fmt: skip
ROW = Row("names.list", "ls -l [cold]", "s", less_is_better=True)
MACHINE: dict[str, Any] = {
    "cores": 2, "cpu": "a CPU", "kernel": "6.1", "directory_filesystem": "ext4", "load_average": 0.5,
}  # fmt: skip


class Plain(Local):
    """A directory under another name."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = self.title = name
        self.path = directory / name

    def cold(self) -> None:
        """Other tests' caches are none of ours."""


def compared(tmp_path: Path) -> Comparison:
    return Comparison([Plain("one", tmp_path), Plain("two", tmp_path)])


def test_every_measurement_gives_a_value_for_each_of_its_rows(tmp_path: Path) -> None:
    system = Plain("one", tmp_path)
    system.start()
    fill(system, TINY)
    before = sorted(os.listdir(system.path))
    names = [row.name for measurement in MEASUREMENTS for row in measurement.rows]
    assert len(set(names)) == len(names)
    for measurement in MEASUREMENTS:
        if measurement.rows[0].name == "read.1":
            continue  # not every file system of a test machine takes O_DIRECT
        values = measurement.run(system, TINY)
        assert len(values) == len(measurement.rows)
        assert all(value > 0 for value in values)
    assert sorted(os.listdir(system.path)) == before, "what a measurement makes it removes"


def test_systems_take_turns(tmp_path: Path) -> None:
    order: list[str] = []

    def run(system: Any, sizes: Sizes) -> tuple[float, ...]:
        order.append(system.name)
        return (float(len(order)),)

    comparison = compared(tmp_path)
    comparison.run([Measurement((ROW,), run)], TINY, 2, until=float("inf"))
    assert order == ["one", "two", "two", "one"]
    assert comparison.values == {("names.list", "one"): [1.0, 4.0], ("names.list", "two"): [2.0, 3.0]}
    assert [system.name for system in turn(comparison.systems, 2)] == ["one", "two"]


def test_one_that_fails_is_left_out_and_keeps_what_it_gave(tmp_path: Path) -> None:
    calls: list[str] = []

    def run(system: Any, sizes: Sizes) -> tuple[float, ...]:
        calls.append(system.name)
        if system.name == "one" and calls.count("one") == 2:
            raise PeerError("no more")
        return (1.0,)

    comparison = compared(tmp_path)
    comparison.run([Measurement((ROW,), run)], TINY, 3, until=float("inf"))
    assert comparison.failed == {"one": "PeerError: no more"}
    assert comparison.values == {("names.list", "one"): [1.0], ("names.list", "two"): [1.0, 1.0, 1.0]}


def test_nothing_begins_after_the_end(tmp_path: Path) -> None:
    comparison = compared(tmp_path)
    comparison.run([Measurement((ROW,), lambda system, sizes: (1.0,))], TINY, 3, until=0.0)
    assert not comparison.values


def test_table_and_json_say_the_same(tmp_path: Path) -> None:
    comparison = compared(tmp_path)
    comparison.values[("names.list", "one")] = [3.0, 1.0, 2.0]
    comparison.versions["one"] = "1.2"
    comparison.failed["two"] = "PeerError: not here"
    report = json.loads(as_json(comparison, [ROW], MACHINE, {"repeat": 3}))
    assert report["systems"] == [
        {"name": "one", "title": "one", "version": "1.2"}, {"name": "two", "title": "two", "version": ""},
    ]  # fmt: skip
    (row,) = report["rows"]
    assert row["better"] == "less"
    assert row["systems"] == {"one": {"unit": "s", "median": 2.0, "low": 1.0, "high": 3.0, "runs": [3.0, 1.0, 2.0]}}
    assert report["failed"] == comparison.failed
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(as_table(comparison, [ROW], MACHINE))
    text = console.export_text()
    assert "ls -l [cold]" in text and "1 … 3" in text and "-" in text
    console.file.close()


def test_peers_are_chosen_by_name() -> None:
    result = CliRunner().invoke(peers_command.main, ["--peer", "nfs"])
    assert result.exit_code == 2
    assert "glusterfs" in result.output and "juicefs" in result.output


def test_configurations(tmp_path: Path) -> None:
    volume = management_volume(tmp_path, "192.0.2.7", 12600)
    assert f"option working-directory {tmp_path}/work" in volume
    assert volume.startswith("volume management\n") and volume.endswith("end-volume\n")
    assert settings({"DATA_PATH": tmp_path, "MASTER_PORT": 7}) == f"DATA_PATH = {tmp_path}\nMASTER_PORT = 7\n"
    (user,) = json.loads(identities("who", "what"))["identities"]
    assert user["credentials"] == [{"accessKey": "who", "secretKey": "what"}]


def test_ports_are_free_and_differ() -> None:
    ports = Ports()
    assert len({ports.take() for _ in range(5)}) == 5


def test_a_process_that_ends_early_is_told_with_its_last_words(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    program = "print('no such volume'); raise SystemExit(3)"
    with pytest.raises(PeerError, match=r"(?s)server ended with status 3.*no such volume"):
        processes.start_until("server", lambda: False, sys.executable, "-c", program)
    processes.stop()


def test_stopping_ends_a_whole_session_and_nothing_else(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    other = subprocess.Popen(["sleep", "100"])
    child = tmp_path / "child"
    processes.start_until(
        "shell", lambda: child.exists() and child.read_text() != "", "sh", "-c", f"sleep 100 & echo $! > {child}; wait"
    )
    processes.stop()
    stat = Path(f"/proc/{int(child.read_text())}/stat")
    wait_until(lambda: not stat.exists() or ") Z" in stat.read_text(), "the child to be gone")
    assert other.poll() is None
    pid_file = tmp_path / "other.pid"
    pid_file.write_text(f"{other.pid}\n")
    stop_by_file(pid_file)
    assert other.wait(10) == -signal.SIGTERM
    stop_by_file(tmp_path / "none.pid")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "_installed", lambda package: package == "there")
    monkeypatch.setattr("shutil.which", lambda program: "/usr/bin/dpkg-query")
    assert packages.missing(["there", "not-there"]) == ["not-there"]
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(PeerError, match="only root may do this: apt-get install not-there"):
        packages.need_debian("there", "not-there")


def test_a_comparison_of_plain_directories(tmp_path: Path) -> None:
    assert Local(Context("", {}, tmp_path, 1, True), Ports()).path == tmp_path / "local"
