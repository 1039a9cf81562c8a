"""`emberfs placement`: rows for any sizes, and refusals of what cannot be meant."""

import json

import pytest
from click.testing import CliRunner

from fs_client.cli.main import commands


def test_rows_for_each_size() -> None:
    result = CliRunner().invoke(commands, ["placement", "--nodes", "5,7", "--json", "--no-solver"])
    assert result.exit_code == 0, result.output
    five, seven = json.loads(result.output)
    assert (five["nodes"], five["chains"], five["proven_best"]) == (5, 5, True)
    assert five["most_over_mean"] == pytest.approx(4 / 3) == five["least_possible_over_mean"]
    assert seven["most_over_mean"] == pytest.approx(1)


def test_a_table_for_people() -> None:
    result = CliRunner().invoke(commands, ["placement", "--nodes", "7-9/2", "--targets-per-node", "4", "--no-solver"])
    assert result.exit_code == 0, result.output
    head, names, seven, nine = result.output.splitlines()
    assert "4 targets on each node" in head and "least possible" in names
    assert seven.split()[:2] == ["7", "9"] and nine.split()[:2] == ["9", "12"]


@pytest.mark.parametrize("nodes", ["none", "0", "5000", "9-", "3/0"])
def test_counts_that_are_none(nodes: str) -> None:
    result = CliRunner().invoke(commands, ["placement", "--nodes", nodes])
    assert result.exit_code == 2 and "nodes" in result.output


def test_fewer_nodes_than_replicas() -> None:
    result = CliRunner().invoke(commands, ["placement", "--nodes", "2-4"])
    assert result.exit_code == 2 and "at least as many nodes" in result.output
