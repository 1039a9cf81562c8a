"""`emberfs doctor`."""

from collections import Counter

import click

from fs_client.cli.checkup.finding import Finding, Level
from fs_client.cli.failure import EXIT_FAILED, Done, Usage
from fs_client.cli.options import cluster_argument, cluster_option, json_option
from fs_client.cli.remote import printable, run
from fs_client.cli.text import put, put_json

_SIGNS = {Level.OK: "ok", Level.NOTE: "note", Level.WARNING: "WARNING", Level.PROBLEM: "PROBLEM"}
_COLORS = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.PROBLEM: "red"}


@click.command()
@cluster_argument
@click.option("--here", is_flag=True, help="Look at this machine alone, not at a cluster.")
@json_option
@cluster_option
def doctor(address: str | None, here: bool, as_json: bool, cluster: str) -> None:
    """Say what is wrong with this machine or with a cluster, and what to do about it.

    This machine: packages, /dev/fuse and the mount helper, limits, clock, RDMA devices. The cluster: who answers, ports
    and names, tokens, certificates, releases, clocks, nodes, chains, disks, configuration. Changes nothing. Exit code 1
    if there is a problem; notes and warnings are none.

    \b
    Example:
      emberfs doctor
      emberfs doctor --here
      emberfs doctor storage.example:9700 --json
    """
    findings = run(_look(None if here else address or cluster))
    if as_json:
        put_json([finding._asdict() | {"level": finding.level.value} for finding in findings], indent=2)
    else:
        _print(findings)
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise Done(EXIT_FAILED)


async def _look(cluster: str | None) -> list[Finding]:
    from fs_client.cli.checkup import cluster as of_cluster
    from fs_client.cli.checkup import machine as of_machine
    from fs_client.options import DEFAULT_TIMEOUT_S, make_options

    findings = list(of_machine.look(of_machine.Machine()))
    if cluster is not None:
        try:
            options = make_options(cluster, None, None, DEFAULT_TIMEOUT_S)
        except ValueError as error:
            raise Usage(str(error)) from None
        findings += [finding async for finding in of_cluster.look(options)]
    return findings


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        sign = click.style(_SIGNS[finding.level].ljust(7), fg=_COLORS[finding.level])
        click.echo(f"{sign}  {finding.subject.ljust(width)}  {printable(finding.what)}")
        if finding.do:
            click.echo(f"{'':7}  {'':{width}}  -> {printable(finding.do)}")
    counts = Counter(finding.level for finding in findings)
    words = {Level.PROBLEM: "problems", Level.WARNING: "warnings", Level.NOTE: "notes"}
    bad = [
        f"{counts[level]} {word if counts[level] != 1 else word[:-1]}" for level, word in words.items() if counts[level]
    ]
    put(f"\n{', '.join(bad)}" if bad else "\nnothing is wrong")
