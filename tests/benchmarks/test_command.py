"""The command from end to end, on a cluster that runs in this process: figures, limits, and valid JSON of both."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks import read_one
from benchmarks.context import Context
from benchmarks.measure import Figure
from tests.client.fake_cluster import FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster().running() as running:
        yield running


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(command.bench, ["--quick", "--repeat", "2", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_quick_run_gives_a_report(cluster: FakeCluster, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    chosen = ("--only", "read_one", "--only", "load")
    code, table, progress = run(*chosen, "--cluster", cluster.address, "--json", str(path), "--dir", str(tmp_path))
    assert code == 0
    report = json.loads(path.read_text())
    assert [figure["name"] for figure in report["figures"]] == ["read_one", "load.tree", "load.packed"]
    for figure in report["figures"]:
        assert len(figure["runs"]) == 2
        assert figure["low"] <= figure["median"] <= figure["high"]
        assert figure["limits"][0]["ratio"] > 0
        assert figure["title"].split(",")[0] in table
    assert (report["settings"]["quick"], report["settings"]["own_cluster"], report["failed"]) == (True, False, {})
    assert "[2/2] load" in progress
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"], "scratch space is removed"


def test_json_on_stdout_is_nothing_but_json(cluster: FakeCluster) -> None:
    code, output, _ = run("--only", "read_one", "--cluster", cluster.address, "--json", "-")
    assert code == 0
    assert json.loads(output)["figures"][0]["name"] == "read_one"


def test_one_that_fails_costs_only_itself(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(context: Context) -> list[Figure]:
        raise OSError("no such disk")

    monkeypatch.setattr(read_one, "run", fail)
    chosen = ("--only", "read_one", "--only", "load")
    code, output, errors = run(*chosen, "--cluster", cluster.address, "--json", "-")
    report = json.loads(output)
    assert code == 1
    assert report["failed"] == {"read_one": "OSError: no such disk"}
    assert [figure["name"] for figure in report["figures"]] == ["load.tree", "load.packed"]
    assert "did not finish: read_one" in errors


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    code, _, errors = run("--only", "nothing")
    assert code == 2
    assert "read_large" in errors


def test_every_benchmark_is_documented() -> None:
    readme = Path(command.__file__).with_name("README.md").read_text()
    assert [entry.name for entry in command.BENCHMARKS if f"`{entry.name}`" not in readme] == []


def test_directories_side_by_side(tmp_path: Path) -> None:
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        place.mkdir()
    report_path = tmp_path / "table.json"
    result = CliRunner().invoke(
        command.bench, [*map(str, places), "--quick", "--repeat", "1", "--json", str(report_path)]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(report_path.read_text())
    assert [system["title"] for system in report["systems"]] == [str(place) for place in places]
    assert report["failed"] == {}
    for row in report["rows"]:
        assert set(row["systems"]) == {"path1", "path2"}, row["name"]
        assert all(len(system["runs"]) == 1 for system in row["systems"].values())
    assert "The same calls in each directory" in result.stdout
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "who called it has its own handlers again"
    assert [list(place.iterdir()) for place in places] == [[], []], "what was made is removed"


def test_a_run_that_is_told_to_end_leaves_nothing(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(context: Context) -> list[Figure]:
        (context.directory / "scratch").touch()
        signal.raise_signal(signal.SIGTERM)
        return []

    def who_called(number: int, frame: object) -> None:
        raise RuntimeError("not for this one")

    before = signal.signal(signal.SIGTERM, who_called)
    try:
        monkeypatch.setattr(read_one, "run", told)
        chosen = ("--only", "read_one", "--only", "load", "--cluster", cluster.address, "--dir", str(tmp_path))
        code, _, progress = run(*chosen)
        assert (code, list(tmp_path.iterdir())) == (128 + signal.SIGTERM, [])
        assert "[2/2]" not in progress
        assert signal.getsignal(signal.SIGTERM) is who_called
    finally:
        signal.signal(signal.SIGTERM, before)


def test_directories_go_with_no_cluster(tmp_path: Path) -> None:
    result = CliRunner().invoke(command.bench, [str(tmp_path), "--only", "write"])
    assert result.exit_code == 2
    assert "--only, --cluster and --dir are for runs without a PATH" in result.stderr
    assert CliRunner().invoke(command.bench, [str(tmp_path / "missing")]).exit_code == 2
