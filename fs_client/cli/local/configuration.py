"""The configuration files that `emberfs up` writes for its daemons, and the record of a new cluster."""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.local import ports
from fs_client.cli.local.directory import ClusterDirectory, ClusterRecord, DaemonRecord
from fs_client.cli.local.ours import create_ours, make_our_directory

PORT_DEFAULT = 9700
STORAGE_DEFAULT = 3
REPLICAS_MAX_DEFAULT = 3
REPLACE_LOST_AFTER_MS = 60_000
"""A daemon that ended is started again within seconds: one that is away for so long has lost its directory."""


Value = bool | int | str


class Options:
    """What the command line of `emberfs up` said; None where it said nothing."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        storage: int | None = None,
        replicas: int | None = None,
        durability: str | None = None,
        chunk_size_bytes: int | None = None,
        stripe: int | None = None,
        settings: Sequence[str] = (),
        mountpoint: str = "",
        tls: bool | None = None,
        security: str | None = None,
    ) -> None:
        self.host = host
        self.security = security
        """"on" or "off"."""
        self.port = port
        """0: any free ports."""
        self.storage = storage
        self.replicas = replicas
        self.durability = durability
        self.chunk_size_bytes = chunk_size_bytes
        self.stripe = stripe
        self.settings = tuple(settings)
        """Each `ROLE.KEY=VALUE`."""
        self.mountpoint = mountpoint
        """Where it is mounted while it runs; empty: nowhere. Of this start only."""
        self.tls = tls
        """None: as it was; a new cluster has none."""


def new_cluster(options: Options) -> ClusterRecord:
    """The record of a cluster that does not exist yet. Raises `Usage` when the options contradict each other."""
    storage = options.storage or STORAGE_DEFAULT
    replicas = options.replicas or min(REPLICAS_MAX_DEFAULT, storage)
    if replicas > storage:
        raise Usage(f"--replicas {replicas} needs at least as many storage daemons; --storage is {storage}")
    chosen = _choose_ports(options.host, PORT_DEFAULT if options.port is None else options.port, storage)
    return ClusterRecord(
        cluster=f"ember-{secrets.token_hex(4)}",
        host=options.host,
        replicas=replicas,
        durability=options.durability or "disk",
        chunk_size_bytes=options.chunk_size_bytes or 1 << 20,
        stripe=options.stripe or 16,
        settings=_parse_settings(options.settings, {}),
        tls=bool(options.tls),
        security=options.security or "",
        daemons=[
            DaemonRecord(
                name="meta", role="meta", node=0, port=chosen.rpc, grpc_port=chosen.grpc, http_port=chosen.http
            ),
            *(
                DaemonRecord(name=f"storage-{node}", role="storage", node=node, port=port, http_port=http_port)
                for node, (port, http_port) in enumerate(zip(chosen.storage, chosen.storage_http, strict=True), 1)
            ),
        ],
    )


def apply_options(record: ClusterRecord, options: Options, directory: Path) -> None:
    """Move an existing cluster to other ports, and add storage daemons, if asked to. All else is fixed when made."""
    fixed = {
        "replicas": (options.replicas, record.replicas),
        "durability": (options.durability, record.durability),
        "chunk-size": (options.chunk_size_bytes, record.chunk_size_bytes),
        "stripe": (options.stripe, record.stripe),
    }
    for name, (wanted, present) in fixed.items():
        if wanted is not None and wanted != present:
            raise Failure(
                f"the cluster in {directory} was made with --{name} {present}, which cannot be changed to {wanted}; "
                "leave the option out, or make a new cluster with another --dir"
            )
    record.settings = _parse_settings(options.settings, record.settings)
    if options.tls is not None:
        record.tls = options.tls
    record.security = options.security or record.security
    _add_storage(record, options, directory)
    if options.port is not None:
        chosen = _choose_ports(record.host, options.port, len(record.storage))
        record.meta.port, record.meta.grpc_port, record.meta.http_port = chosen[:3]
        for daemon, port, http_port in zip(record.storage, chosen.storage, chosen.storage_http, strict=True):
            daemon.port, daemon.http_port = port, http_port
    _choose_http_ports(record)


def _choose_http_ports(record: ClusterRecord) -> None:
    """For daemons that have none yet: where it would be by default if that is free, else anywhere."""
    taken = {port for daemon in record.daemons for port in (daemon.port, daemon.grpc_port, daemon.http_port)}
    for daemon in record.daemons:
        if daemon.http_port:
            continue
        above = ports.HTTP_OFFSET if daemon.role == "meta" else ports.STORAGE_HTTP_OFFSET - ports.STORAGE_OFFSET
        port = daemon.port + above
        while port > ports.PORT_MAX or port in taken or not ports.is_free(record.host, port):
            (port,) = ports.free_ports(record.host, 1)
        daemon.http_port = port
        taken.add(port)


def _add_storage(record: ClusterRecord, options: Options, directory: Path) -> None:
    """Nodes that the cluster has not had yet. They join empty; `emberfs rebalance` gives them their share."""
    present = len(record.storage)
    wanted = present if options.storage is None else options.storage
    if wanted < present:
        raise Failure(
            f"the cluster in {directory} has {present} storage daemons, and none is taken away by leaving it out: "
            "`emberfs drain NODE` moves what it holds"
        )
    taken = {port for daemon in record.daemons for port in (daemon.port, daemon.http_port)}
    free = ports.free_ports(record.host, wanted - present) if wanted > present else []
    following = [max(daemon.port for daemon in record.storage) + number for number in range(1, wanted - present + 1)]
    if options.port != 0 and not taken.intersection(following) and following[-1:] < [65_536]:
        free = following
    first = max(daemon.node for daemon in record.storage) + 1
    for node, port in enumerate(free, first):
        record.daemons.append(
            DaemonRecord(name=f"storage-{node}", role="storage", node=node, port=port, new=record.started)
        )


def require_free_ports(record: ClusterRecord) -> None:
    """Raise `Failure` naming the port that somebody else has, before any daemon is started."""
    meta = record.meta
    names = {"metadata": meta.port, "metadata, gRPC": meta.grpc_port, "metadata, HTTP": meta.http_port}
    names |= {daemon.name: daemon.port for daemon in record.storage}
    ports.require_free(record.host, names | {f"{daemon.name}, HTTP": daemon.http_port for daemon in record.storage})


def write_configuration(directory: ClusterDirectory, record: ClusterRecord) -> None:
    """A TOML file for each daemon."""
    for daemon in record.daemons:
        path = directory.config(daemon)
        make_our_directory(path.parent)
        try:
            content = _toml(_values(directory, record, daemon)).encode()
        except UnicodeEncodeError:
            raise Failure(
                f"the path {str(directory.path)!a} is not UTF-8, which TOML needs; use another --dir"
            ) from None
        with open(create_ours(path), "wb") as file:
            file.write(content)


def _values(directory: ClusterDirectory, record: ClusterRecord, daemon: DaemonRecord) -> dict[str, Value]:
    common: dict[str, Value] = {
        "cluster": record.cluster,
        "directory": str(directory.data(daemon).absolute()),
        "host": record.host,
        "port": daemon.port,
        "http_port": daemon.http_port,
    }
    if record.tls:
        common["tls_dir"] = str(directory.tls_dir(daemon).absolute())
    if daemon.role == "storage":
        managed = common | {
            "node": daemon.node,
            "manager": f"{record.host}:{record.meta.grpc_port}",
            "disk_shared_by": len(record.storage),
        }
        token = directory.token(record, "storage")
        if token is not None:
            managed["token_file"] = str(token)
    else:
        managed = common | {
            "grpc_port": daemon.grpc_port,
            "security": "on" if record.security_on else "off",
            "tokens_dir": str(directory.tokens.absolute()),
            # Of the first start: chains of a cluster that has some are added by `emberfs rebalance`.
            "storage_nodes": sum(not storage.new for storage in record.storage),
            "replicas": record.replicas,
            "chunk_size_bytes": record.chunk_size_bytes,
            "stripe": record.stripe,
            "durability": record.durability,
        }
    settings = record.settings.get(daemon.role, {})
    if daemon.role == "meta":
        lost_after_ms = max(REPLACE_LOST_AFTER_MS, int(settings.get("failure_ms", 0)))
        settings = {"replace_lost_after_ms": lost_after_ms, **settings}
    for key in settings.keys() & managed.keys():
        raise Usage(f"--set {daemon.role}.{key}: `emberfs up` decides this itself; see its options")
    return managed | settings


def _parse_settings(texts: Sequence[str], present: Mapping[str, Mapping[str, Value]]) -> dict[str, dict[str, Value]]:
    """`present` with each `ROLE.KEY=VALUE` of `texts` added. A daemon refuses keys and values it does not know."""
    settings: dict[str, dict[str, Value]] = {role: dict(present.get(role, {})) for role in ("meta", "storage")}
    for text in texts:
        match = re.fullmatch(r"(meta|storage)\.([a-z_]+)=(.*)", text)
        if match is None:
            raise Usage(f"--set {text!r} is not meta.KEY=VALUE or storage.KEY=VALUE")
        role, key, value = match.groups()
        if re.fullmatch(r"-?\d+", value):
            settings[role][key] = int(value)
        else:
            settings[role][key] = {"true": True, "false": False}.get(value, value)
    return settings


def _toml(values: dict[str, Value]) -> str:
    """TOML's basic strings are JSON's, but for the escapes of characters beyond the first plane."""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "# Written by `emberfs up` at every start; changes are lost.\n" + "\n".join(lines) + "\n"


def _choose_ports(host: str, port: int, storage: int) -> ports.Ports:
    return ports.any_ports(host, storage) if port == 0 else ports.fixed_ports(port, storage)
