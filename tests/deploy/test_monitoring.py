"""Rules and panels of `deploy/monitoring` ask for figures that daemons give, in a language that Prometheus speaks."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fs_common.metric_families import FAMILIES, Kind
from tests.compose.tools import Missing
from tests.deploy.promtool import promtool

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = MONITORING / "rules" / "emberfs.yml"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "emberfs.json"
OF_PROMETHEUS = {
    "up",
    "process_open_fds",
    "process_max_fds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
}
ADDED = {"job", "instance"}
"""Labels that Prometheus gives to everything that it collects."""
SUFFIXES = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}
_SELECTOR = re.compile(r"\b((?:emberfs|process)_\w+|up)\b(?!\()(?:\{([^}]*)\})?")
_LABEL = re.compile(r'(\w+)\s*(?:=|!=|=~|!~)\s*"')


def of_rules() -> Iterator[tuple[str, str]]:
    yield from re.findall(r"- alert: (\w+)\n +expr: (.+)\n", RULES.read_text())


def of_panels() -> Iterator[tuple[str, str]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


EXPRESSIONS = [*of_rules(), *of_panels()]


@pytest.fixture(scope="module")
def tool() -> str:
    try:
        return promtool()
    except Missing as reason:
        pytest.skip(str(reason))


def check(tool: str, *arguments: str | Path) -> None:
    result = subprocess.run([tool, *map(str, arguments)], cwd=MONITORING, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_there_is_something_to_check() -> None:
    assert len(list(of_rules())) == RULES.read_text().count("- alert:") > 10
    assert len(list(of_panels())) > 20


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS)
def test_daemons_give_what_is_asked_for(name: str, expression: str) -> None:
    found = _SELECTOR.findall(expression)
    assert found, f"{name}: {expression!r} asks for no figure"
    for metric, matchers in found:
        if metric in OF_PROMETHEUS:
            continue
        names = {
            family.name + suffix: family for family in FAMILIES.values() for suffix in SUFFIXES.get(family.kind, ("",))
        }
        assert metric in names, f"{name}: nobody gives {metric}"
        labels = set(_LABEL.findall(matchers)) - ADDED - ({"le"} if names[metric].kind is Kind.HISTOGRAM else set())
        assert labels <= set(names[metric].labels), f"{name}: {metric} has no label {labels}"


def test_prometheus_understands_the_rules(tool: str) -> None:
    check(tool, "check", "rules", RULES)


def test_alerts_fire_when_they_should(tool: str) -> None:
    check(tool, "test", "rules", "rules_test.yml")


def test_prometheus_understands_the_panels(tool: str, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expression} for number, (_, expression) in enumerate(of_panels())]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    check(tool, "check", "rules", file)


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus.tls.yml"])
def test_prometheus_understands_what_it_is_to_collect(tool: str, tmp_path: Path, name: str) -> None:
    text = (MONITORING / name).read_text()
    assert "/etc/prometheus/rules/" in text
    file = tmp_path / "prometheus.yml"
    (tmp_path / "ca.pem").touch()
    text = text.replace("/etc/prometheus/tls/", f"{tmp_path}/")
    file.write_text(text.replace("/etc/prometheus/rules/", f"{RULES.parent}/"))
    check(tool, "check", "config", file)
