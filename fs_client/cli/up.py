"""`emberfs up`: a metadata server and storage daemons on this machine, under one supervisor."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fs_client.cli.failure import EXIT_INTERRUPTED, Done
from fs_client.cli.options import chunk_size_option, durability_option, quiet_option, stripe_option

if TYPE_CHECKING:
    from fs_client.cli.local.configuration import Options
    from fs_client.cli.local.directory import ClusterDirectory, ClusterRecord
    from fs_client.cli.local.events import Event

LOG_JSON = ("meta.log_json=true", "storage.log_json=true")
DIRECTORY_DEFAULT = "emberfs-data"

directory_option = click.option(
    "--dir",
    "path",
    type=click.Path(path_type=Path),
    default=DIRECTORY_DEFAULT,
    envvar="EMBERFS_DIR",
    help="Where the cluster keeps everything (or EMBERFS_DIR); made if it is missing.  [default: ./emberfs-data]",
)


@click.command()
@directory_option
@click.option("--storage", type=click.IntRange(1, 99), help="Storage daemons.  [default: 3]")
@click.option("--replicas", type=click.IntRange(1, 16), help="Copies of every chunk.  [default: 3, at most --storage]")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="Metadata port; 0: free ports.  [default: 9700]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on, when the cluster is made.")
@click.option(
    "--security",
    type=click.Choice(["on", "off"]),
    help="Whether callers need a token; it is kept.  [default: on, unless --host is a loopback address]",
)
@durability_option
@chunk_size_option
@stripe_option
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="ROLE.KEY=VALUE",
    help="A setting of the daemons' configuration files that has no option, as meta.gc_delay_ms=0; it is kept.",
)
@click.option("--log-json", is_flag=True, help="All logs in JSON, one object a line; it is kept.")
@click.option("--mount", "mountpoint", type=click.Path(path_type=Path), help="Also mount it on this directory.")
@click.option("--tls/--no-tls", default=None, help="Speak TLS on every port; certificates are made.  [default: no]")
@click.option("--detach", "-d", is_flag=True, help="Return when the cluster is ready; `emberfs down` stops it.")
@click.option("--no-restart", is_flag=True, help="Leave a daemon that ended alone (SIGUSR1 starts it again).")
@quiet_option
@click.option("--events-fd", type=int, hidden=True)
def up(
    path: Path,
    storage: int | None,
    replicas: int | None,
    port: int | None,
    host: str,
    security: str | None,
    durability: str | None,
    chunk_size: int | None,
    stripe: int | None,
    settings: tuple[str, ...],
    log_json: bool,
    mountpoint: Path | None,
    tls: bool | None,
    detach: bool,
    no_restart: bool,
    quiet: bool,
    events_fd: int | None,
) -> None:
    """Start a whole cluster on this machine.

    One metadata server and the storage daemons run under a supervisor until Ctrl-C, SIGTERM or `emberfs down` ends
    them; one that dies is started again. Everything is kept in one directory, and starting there again brings the
    same cluster back with its data. The ports are: metadata RPC at --port, gRPC and HTTP at the next two, storage from
    --port + 10, and HTTP of storage from --port + 110.

    \b
    Example:
      emberfs up                                       3 storage daemons, data in ./emberfs-data
      emberfs up --mount /mnt/ember                    the same, as a directory of this machine
      emberfs up --detach --dir /data/ember --port 0   in the background, on free ports
      emberfs down --dir /data/ember
    """
    from fs_client.cli.local.configuration import Options

    options = Options(
        host=host,
        port=port,
        storage=storage,
        replicas=replicas,
        durability=durability,
        chunk_size_bytes=chunk_size,
        stripe=stripe,
        settings=(*settings, *(LOG_JSON if log_json else ())),
        mountpoint="" if mountpoint is None else str(mountpoint.absolute()),
        tls=tls,
        security=security,
    )
    if events_fd is not None:
        _run_in_background(path, options, events_fd, restart=not no_restart)
    elif detach:
        _launch(path, options, quiet, restart=not no_restart)
    else:
        _run_in_foreground(path, options, quiet, restart=not no_restart)


def _run_in_foreground(path: Path, options: "Options", quiet: bool, *, restart: bool) -> None:
    from fs_client.cli.local.directory import ClusterDirectory
    from fs_client.cli.local.run import open_cluster, run_cluster

    directory = ClusterDirectory(path)
    record = open_cluster(directory, options)
    show = _shower(quiet)

    def ready() -> None:
        if not quiet:
            _introduce(directory, record, "Ctrl-C stops it.")

    if not run_cluster(directory, record, show, ready, restart=restart, mountpoint=options.mountpoint):
        raise Done(EXIT_INTERRUPTED)


def _launch(path: Path, options: "Options", quiet: bool, *, restart: bool) -> None:
    from fs_client.cli.local.directory import ClusterDirectory
    from fs_client.cli.local.launch import launch

    cluster = launch(path, options, restart=restart, report=_shower(quiet))
    if not quiet:
        _introduce(ClusterDirectory(path), cluster.record, f"`emberfs down --dir {path}` stops it.")


def _run_in_background(path: Path, options: "Options", events_fd: int, *, restart: bool) -> None:
    """The supervisor that `launch` started: tells it what happens until the cluster is ready, then only the log."""
    import msgspec

    from fs_client.cli.local.directory import ClusterDirectory
    from fs_client.cli.local.events import Event, Kind, log_line
    from fs_client.cli.local.run import open_cluster, run_cluster

    events = open(events_fd, "wb", buffering=0)  # noqa: SIM115 - closed when the cluster is ready
    os.set_inheritable(events_fd, False)

    def send(event: Event) -> None:
        if not events.closed:
            try:
                events.write(msgspec.json.encode(event) + b"\n")
            except BrokenPipeError:
                events.close()

    def report(event: Event) -> None:
        print(log_line(event, json=record.log_json), flush=True)
        if event.kind not in (Kind.STOPPING, Kind.STOPPED):
            send(event)

    try:
        directory = ClusterDirectory(path)
        record = open_cluster(directory, options)
        _write_to(directory.log("supervisor"))
        run_cluster(directory, record, report, events.close, restart=restart, mountpoint=options.mountpoint)
    except click.ClickException as error:
        send(Event(Kind.FAILED, text=error.format_message()))
        raise
    except Exception as error:
        send(Event(Kind.FAILED, text=f"internal error of the supervisor: {type(error).__name__}: {error}"))
        raise
    finally:
        events.close()


def _write_to(log: Path) -> None:
    """Send our own output to the log."""
    from fs_client.cli.local.ours import append_ours, make_our_directory

    make_our_directory(log.parent)
    descriptor = append_ours(log)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _shower(quiet: bool) -> "Callable[[Event], None]":
    """Prints events for people, on stderr."""
    from fs_client.cli.local.events import Event, Kind

    def show(event: Event) -> None:
        match event.kind:
            case Kind.ENDED:
                click.echo(f"emberfs: {event.name}: {event.text}", err=True)
            case Kind.SERVING if not quiet:
                role, _, address = event.text.partition(" ")
                click.echo(f"  {event.name:<12} {role} at {address}", err=True)
            case Kind.STOPPING if not quiet:
                click.echo("stopping ...", err=True)
            case Kind.STOPPED if not quiet:
                click.echo("stopped.", err=True)
            case _:
                pass

    return show


def _introduce(directory: "ClusterDirectory", record: "ClusterRecord", end: str) -> None:
    """Where the cluster is and how to use it."""
    daemons = "1 storage daemon" if len(record.storage) == 1 else f"{len(record.storage)} storage daemons"
    replicas = "1 replica" if record.replicas == 1 else f"{record.replicas} replicas"
    default = record.address == "127.0.0.1:9700"
    setting = "" if default else f"export EMBERFS_CLUSTER={record.address}; "
    if record.tls:
        setting = f"export EMBERFS_TLS_CA={directory.tls_ca.absolute()}; {setting}"
    trust = f', tls_ca="{directory.tls_ca.absolute()}"' if record.tls else ""
    token = directory.token(record, "admin")
    if token is not None:
        setting += f"export EMBERFS_TOKEN_FILE={shlex.quote(str(token))}; "
        trust += f', token_file="{token}"'
    click.echo(f"EmberFS is ready at {record.address}: {daemons}, {replicas}, data in {directory.path}. {end}")
    click.echo(f"  shell:   {setting}emberfs cp -r ./images ember:/images; emberfs ls -l ember:/images")
    click.echo(f'  Python:  import emberfs; fs = emberfs.connect("{record.address}"{trust})')
    if token is not None:
        click.echo("  users:   emberfs users add NAME --uid UID --gid GID; emberfs users token NAME -o FILE")
    if record.meta.http_port > 0:
        host = f"[{record.host}]" if ":" in record.host else record.host
        click.echo(f"  console: {'https' if record.tls else 'http'}://{host}:{record.meta.http_port}/")
    sys.stdout.flush()
