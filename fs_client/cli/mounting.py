"""What `emberfs mount`, `emberfs up --mount` and `mount.emberfs` share: the daemon's settings, and its start."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.local.process import module_environment, python_module
from fs_client.options import TLS_CA_VARIABLE, TOKEN_FILE_VARIABLE, TOKEN_VARIABLE

if TYPE_CHECKING:
    from fs_client.fuse.daemon import DaemonSettings

START_TIMEOUT_S = 60.0
"""More than connecting takes when the cluster is not ready."""
READY = "ready "
"""How the line begins that comes when programs can use the mount; any other line is why they cannot."""


def log_path(mountpoint: Path) -> Path:
    """Where a mount in the background writes its log unless it is told: one file for each mountpoint."""
    if os.geteuid() == 0:
        folder = Path("/var/log/emberfs")
    else:
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        folder = Path(state).expanduser() / "emberfs"
    name = str(mountpoint.absolute()).strip("/").replace("/", "-") or "root"
    return folder / f"mount-{name}.log"


def launch(
    cluster: str, mountpoint: Path, words: Sequence[str], log: Path, *, takeover: bool = False
) -> "subprocess.Popen[bytes]":
    """Start a daemon that serves in the background; return it when programs can use the mount.

    Raises `Failure` with the daemon's own line. The daemon is in a session of its own, without a terminal.
    """
    from fs_client.fuse.mountpoint import resolved

    if f"{os.path.realpath(log)}/".startswith(f"{resolved(str(mountpoint))}/"):
        raise Failure(f"the log {log} would be in the mount itself, whose daemon writes it; name another with --log")
    words, secrets = for_daemon(words)
    log.parent.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe()
    try:
        with open(log, "ab") as output:
            daemon = subprocess.Popen(
                [
                    *python_module("fs_client.cli"),
                    "mount",
                    *(word for option in words for word in ("-o", option)),
                    "--foreground",
                    *(["--takeover"] if takeover else []),
                    *("--ready-fd", str(write_end)),
                    "--",
                    cluster,
                    str(mountpoint.absolute()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[write_end],
                start_new_session=True,
                cwd="/",
                env=module_environment() | secrets,
            )
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    with open(read_end, encoding="utf-8", errors="replace") as lines:
        line = lines.readline().rstrip("\n")
    if line.startswith(READY):
        return daemon
    status = daemon.wait(START_TIMEOUT_S)
    raise Failure(line or f"the mount daemon ended with status {status} before it was ready; see {log}")


def for_daemon(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words of `-o` for the daemon's command line, which everybody can read, and what goes by its environment,
    which its user alone can: a token. Files are named from the root, as the daemon works there."""
    shown: list[str] = []
    secrets: dict[str, str] = {}
    for word in (word.strip() for text in words for word in text.split(",")):
        name, equals, value = word.partition("=")
        if name == "token" and equals:
            secrets[TOKEN_VARIABLE] = value
        elif name in ("token_file", "tls_ca") and value:
            shown.append(f"{name}={os.path.abspath(value)}")
        elif word:
            shown.append(word)
    if any(word.startswith("token_file=") for word in shown):
        secrets[TOKEN_VARIABLE] = ""
    for variable in (TOKEN_FILE_VARIABLE, TLS_CA_VARIABLE):
        if path := os.environ.get(variable):
            secrets[variable] = os.path.abspath(path)
    return shown, secrets


def full_source(source: str) -> str:
    """What is mounted, as `split_source` takes it: `ember:/directory` is one of the usual cluster."""
    if not source.startswith("ember:/") or source.startswith("ember://"):
        return source
    from fs_client.cli.options import CLUSTER_DEFAULT

    cluster = os.environ.get("EMBERFS_CLUSTER", "").removeprefix("ember://").partition("/")[0]
    return f"{cluster or CLUSTER_DEFAULT}:{source.removeprefix('ember:')}"


def split_source(source: str) -> tuple[str, str]:
    """What is mounted, `host:port[,host:port...][:/directory]` or `ember://host:port[/directory]`: the address of the
    cluster, and the directory's path. Raises `ValueError`."""
    rest = source.removeprefix("ember://")
    address, slash, path = rest.partition("/")
    if slash and rest is source:
        if not address.endswith(":"):
            raise ValueError(f"{source!r} names no directory of a cluster: write HOST:PORT:/DIRECTORY")
        address = address[:-1]
    if not address:
        raise ValueError(f"{source!r} names no server: write HOST:PORT or HOST:PORT:/DIRECTORY")
    return address, "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def settings_of(cluster: str, mountpoint: str, words: Sequence[str]) -> "DaemonSettings":
    """What the daemon is told. `cluster`: as of `split_source`. Raises `Usage`."""
    from fs_client.fuse.daemon import DaemonSettings
    from fs_client.fuse.mountpoint import MountSettings, may_allow_other
    from fs_client.fuse.negotiation import Wanted
    from fs_client.fuse.options import BadOption, parse
    from fs_client.options import make_options

    try:
        options = parse(words)
        address, directory = split_source(cluster)
        connection = make_options(
            address,
            options.token or None,
            options.transport,
            options.timeout_s,
            options.tls_ca,
            options.token_file or None,
            options.rdma_devices,
            options.rdma_subnets,
        )
    except (BadOption, ValueError) as error:
        raise Usage(str(error)) from None
    flags = options.kernel_words | {"noatime"}
    if options.policy.read_only:
        flags.add("ro")
    return DaemonSettings(
        cluster=connection,
        mountpoint=mountpoint,
        directory=directory,
        policy=options.policy,
        kernel=MountSettings(
            source=address if directory == "/" else f"{address}:{directory}",
            flags=frozenset(flags),
            default_permissions=options.default_permissions,
            allow_other=may_allow_other() if options.allow_other is None else options.allow_other,
            max_read=options.max_read_bytes,
            nonempty=options.nonempty,
        ),
        wanted=Wanted(
            max_write=options.max_write_bytes,
            explicit_invalidation=options.policy.dataset,
            # With it the kernel would check permissions whatever it is told.
            posix_acl=options.policy.kernel_checks,
        ),
        remount=options.remount,
        read_ahead_bytes=options.read_ahead_bytes,
        low_latency=options.low_latency,
        log=options.log,
        log_level=options.log_level,
        log_json=options.log_json,
        metrics_port=options.metrics_port,
        metrics_host=options.metrics_host,
        slow_operation_ms=options.slow_operation_ms,
        own=options.own,
    )
