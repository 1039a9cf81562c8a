"""`emberfs placement`: what the death of a node would cost the others, in clusters of any size."""

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import click

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.options import json_option
from fs_client.cli.text import put, put_json

NODES_DEFAULT = "5-10,12,15,20,30,50,75,100,150,200"
NODES_MAX = 1000


class NodeCounts(click.ParamType[list[int]]):
    """Numbers and ranges: 5, 5-10, 5-200/5, several with commas."""

    name = "counts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        counts: dict[int, None] = {}
        for part in str(value).split(","):
            span, _, step = part.strip().partition("/")
            first, dash, last = span.partition("-")
            try:
                counts |= dict.fromkeys(range(int(first), int(last if dash else first) + 1, int(step or 1)))
            except ValueError:
                self.fail(f"{part!r} is no count of nodes; write for example 20, 5-10 or 5-200/5", param, ctx)
        if not counts or min(counts) < 1 or max(counts) > NODES_MAX:
            self.fail(f"{value!r}: 1 to {NODES_MAX} nodes", param, ctx)
        return list(counts)


@click.command()
@click.option("--nodes", type=NodeCounts(), default=NODES_DEFAULT, show_default=True, help="How many nodes there are.")
@click.option(
    "--targets-per-node",
    "targets",
    type=click.IntRange(1, 99),
    help="Replicas that each node holds.  [default: as many as --replicas]",
)
@click.option("--replicas", type=click.IntRange(1, 16), default=3, show_default=True, help="Copies of every chunk.")
@click.option("--time-limit", type=click.FloatRange(0), default=10.0, show_default=True, help="Seconds for one solve.")
@click.option("--no-solver", is_flag=True, help="Only the search that needs no further package.")
@json_option
def placement(
    nodes: list[int], targets: int | None, replicas: int, time_limit: float, no_solver: bool, as_json: bool
) -> None:
    """Show how a dead node's reads spread over the others.

    Chains are laid on the nodes so that every two nodes share about as many; a dead node's reads go to those it
    shares chains with. For each number of nodes: what the average survivor takes of the dead node's reads, what the
    most loaded one takes, how much more that is than the average, and the least that is possible with so many
    targets. More targets on each node spread its reads over more of the others.

    With the extra emberfs[placement] installed, a solver looks for a better layout where the search has not found the
    best one there can be.

    \b
    Example:
      emberfs placement --nodes 20 --targets-per-node 9
      emberfs placement --nodes 5-200/5 --targets-per-node 12 --json | jq '.[] | .most_over_mean'
    """
    per_node = targets or replicas
    if replicas > min(nodes):
        raise Usage(f"{replicas} replicas need at least as many nodes; --nodes has {min(nodes)}")
    rows = (_row(count, replicas, per_node, time_limit, solver=not no_solver) for count in nodes)
    if as_json:
        put_json(list(rows), indent=2)
    else:
        _print(rows, replicas, per_node)


def _row(nodes: int, replicas: int, targets: int, time_limit_s: float, *, solver: bool) -> dict[str, Any]:
    """One size of a cluster, laid out by the planner of the metadata service in a process of its own."""
    from fs_client.cli.execute import require_module
    from fs_client.cli.local.process import module_environment, python_module

    request = {"type": "layout", "nodes": nodes, "replicas": replicas, "targets_per_node": targets}
    require_module("fs_meta", "server")
    done = subprocess.run(
        python_module("fs_meta.manager.planner"),
        input=json.dumps(request | {"time_limit_s": time_limit_s, "solver": solver}),
        capture_output=True,
        text=True,
        env=module_environment(),
    )
    if done.returncode:
        raise Failure(f"{nodes} nodes cannot be laid out: {done.stderr.strip().rpartition(chr(10))[2]}")
    answer = json.loads(done.stdout)
    even, largest, bound = answer["spread"]
    return {
        "nodes": nodes,
        "targets_per_node": targets,
        "replicas": replicas,
        "chains": len(answer["chains"]),
        "mean_share": even,
        "most_share": largest,
        "most_over_mean": largest / even if even else 0.0,
        "least_possible_over_mean": bound / even if even else 0.0,
        "proven_best": largest <= bound + 1e-9,
        "by": answer["by"],
        "solver": answer["solver"],
    }


def _print(rows: Iterable[dict[str, Any]], replicas: int, targets: int) -> None:
    put(f"{replicas} replicas, {targets} targets on each node; when one node dies, of its reads")
    put("nodes  chains  a survivor takes  the most loaded  over the average  least possible  found by")
    for row in rows:
        best = "" if row["proven_best"] else "  (no proof that it is the best)"
        put(
            f"{row['nodes']:>5}  {row['chains']:>6}  {row['mean_share']:>16.2%}  {row['most_share']:>15.2%}"
            f"  {row['most_over_mean']:>16.2f}  {row['least_possible_over_mean']:>14.2f}  {row['by']}{best}"
        )
        sys.stdout.flush()
