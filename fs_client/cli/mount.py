"""`emberfs mount`: a cluster as a directory."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fs_client.cli.failure import EXIT_FAILED, Done, Usage

if TYPE_CHECKING:
    from fs_client.fuse.daemon import DaemonSettings


@click.command()
@click.argument("cluster")
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("-o", "words", multiple=True, metavar="OPTION[,...]", help="Options of the mount; see below.")
@click.option("--foreground", "-f", is_flag=True, help="Serve in this process, until Ctrl-C or SIGTERM unmounts.")
@click.option("--takeover", is_flag=True, help="Restart the daemon of a mount without unmounting; files stay open.")
@click.option("--log", type=click.Path(path_type=Path), help="Where a mount in the background writes its log.")
@click.option("--ready-fd", type=int, hidden=True)
def mount(
    cluster: str,
    mountpoint: Path,
    words: tuple[str, ...],
    foreground: bool,
    takeover: bool,
    log: Path | None,
    ready_fd: int | None,
) -> None:
    """Mount a cluster, or one directory of it, on a directory.

    CLUSTER is host:port[,host:port...] of its metadata servers, and with :/directory behind it that directory of the
    cluster (or ember://host:port/directory, or ember:/directory in the cluster of EMBERFS_CLUSTER). The command returns
    when programs can use the mount; `emberfs umount MOUNTPOINT` ends it. What a daemon that was killed left behind is
    cleared first.

    \b
    Options:
      consistency=close-to-open   opens ask the cluster, names and attributes are believed for 1 s (default)
      consistency=strict          everything is asked for every time, nothing is cached
      consistency=dataset         read-only data that does not change: long times, large read-ahead
      ro, nosuid, nodev, noexec, sync and their contraries; nosuid,nodev hold unless suid, dev are said
      remount                     what is mounted gets other of the words above; nothing else changes
      allow_other, noallow_other  whether other users may use it (if root mounts they may)
      cache=SIZE, dirty=SIZE      memory for direct I/O's cached bytes, and for bytes that are not stored yet
      known=SIZE                  memory for names and attributes; beyond it what was not used lately is forgotten
      max_read=SIZE, read_ahead=SIZE, timeout=SECONDS
      token_file=FILE             what the mount is known by, where the cluster has security on (a token in token=
                                  can be read in the process list for a moment)
      low_latency                 processors do not sleep deeply while the mount is used (root only)
      log=FILE, log_level=debug, log_json, slow_operation_ms=N   the log; at debug level it has every operation
      metrics_port=PORT           figures for Prometheus at http://127.0.0.1:PORT/metrics; metrics_host=ADDRESS: there

    \b
    Example:
      emberfs mount 127.0.0.1:9700 /mnt/ember
      emberfs mount 127.0.0.1:9700:/datasets/imagenet /imagenet
      emberfs mount 127.0.0.1:9700 /data -o consistency=dataset,ro
    """
    from fs_client.cli.mounting import full_source, launch, log_path, settings_of
    from fs_client.fuse.mountpoint import remount

    cluster = full_source(cluster)
    settings = settings_of(cluster, str(mountpoint), words)
    if settings.remount:
        if takeover:
            raise Usage("remount keeps the daemon, --takeover replaces it; say one of them")
        remount(settings.mountpoint, settings.kernel.flags)
        return
    settings.takeover = takeover
    if foreground:
        _serve(settings, ready_fd)
        return
    launch(
        cluster,
        mountpoint,
        words,
        log or (Path(settings.log) if settings.log else log_path(mountpoint)),
        takeover=takeover,
    )


def _serve(settings: "DaemonSettings", ready_fd: int | None) -> None:
    import asyncio

    import uvloop

    from fs_client.cli.main import describe
    from fs_client.cli.mounting import READY
    from fs_client.fuse.channel import End
    from fs_client.fuse.daemon import serve
    from fs_common.telemetry import configure_plain_logging, last_word, log_crashes

    configure_plain_logging("mount", settings.log_json, settings.log_level)
    log_crashes()
    told = False

    def tell(line: str) -> None:
        """The process that started this one waits for one line."""
        nonlocal told
        if ready_fd is not None and not told:
            os.write(ready_fd, line.encode(errors="replace") + b"\n")
            if ready_fd > 2:
                os.close(ready_fd)
        told = True

    def ready() -> None:
        tell(f"{READY}mount {settings.mountpoint}")
        if ready_fd is None:
            click.echo(f"{settings.cluster.cluster} is mounted at {settings.mountpoint}; Ctrl-C unmounts it")
            sys.stdout.flush()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            end = runner.run(serve(settings, ready))
        except OSError as error:
            tell(describe(error))
            last_word("emberfs", describe(error))
            raise Done(EXIT_FAILED) from None
    if end is End.BROKEN:
        raise Done(EXIT_FAILED)
