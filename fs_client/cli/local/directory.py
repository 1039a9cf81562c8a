"""What the directory of a cluster on one machine holds, and who may touch it.

    cluster.json      what the cluster is, where its daemons listen, which processes run it now
    cluster.lock      locked (flock) by the supervisor for as long as it runs
    meta/             the metadata store
    storage-1/ ...    one for each storage daemon
    config/           a generated TOML file for each daemon, written anew at every start
    logs/             what each daemon wrote
    certs/            with `--tls`: the cluster's authority and certificates, as `emberfs certs` makes them
    tokens/           with security: the first tokens, which the metadata service writes at its first start

`cluster.json` is written first and replaced whole: it is the commit point of making a cluster. A directory with
anything else in it but no `cluster.json` was not made by us, or lost the file that says what it is; it is refused,
because a new cluster on top of old data would destroy what might still be saved. Only the holder of the lock writes.
What a first start has made that fails is taken away again (`take_away`): only the logs of daemons that began stay.
All of it belongs to the user who runs it, or is refused (`ours`).
"""

import contextlib
import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import IO

import msgspec

from fs_client.cli.failure import Failure
from fs_client.cli.local.identity import ProcessIdentity
from fs_client.cli.local.ours import (
    append_ours,
    create_ours,
    open_ours,
    read_ours,
    require_our_directory,
    require_our_name,
)
from fs_common.loopback import is_loopback

FORMAT = 1
CLUSTER_FILE = "cluster.json"
LOCK_FILE = "cluster.lock"
LOGS = "logs"
_NEW_CLUSTER_FILE = CLUSTER_FILE + ".new"


class DaemonRecord(msgspec.Struct, kw_only=True):
    """One daemon of the cluster."""

    name: str
    """`meta`, `storage-1`, ...: its folder, its log and its configuration are named after it."""
    role: str
    """`meta` or `storage`."""
    node: int
    """Node id; 0 for the metadata service."""
    port: int
    grpc_port: int = 0
    """0 for storage daemons."""
    http_port: int = 0
    """0: not chosen yet, as in the record of a release without HTTP."""
    process: ProcessIdentity | None = None
    """Of the run that goes on, or of the last one."""
    ready: bool = False
    """It said that it serves, and has not been seen to end."""
    new: bool = False
    """It was added to a cluster that had been ready before, and has not served yet: its directory is to be made."""


class ClusterRecord(msgspec.Struct, kw_only=True):
    """`cluster.json`."""

    format: int = FORMAT
    cluster: str
    """Cluster id: every connection checks it, so that a client cannot mix up two clusters on the same ports."""
    host: str
    replicas: int
    durability: str
    chunk_size_bytes: int
    stripe: int
    started: bool = False
    """The cluster was ready once: from then on every data directory has to be there."""
    settings: dict[str, dict[str, bool | int | str]] = {}
    """Role -> key -> value: what `--set` added to the configuration files of the daemons of that role."""
    tls: bool = False
    """Everything speaks TLS, with the certificates in `certs/`."""
    security: str = ""
    """"on" or "off": whether callers have to say who they are. "": on, unless `host` is a loopback address."""
    supervisor: ProcessIdentity | None = None
    daemons: list[DaemonRecord]

    @property
    def meta(self) -> DaemonRecord:
        return self.daemons[0]

    @property
    def storage(self) -> list[DaemonRecord]:
        return self.daemons[1:]

    @property
    def has_begun(self) -> bool:
        """A daemon of it was started once."""
        return any(daemon.process is not None for daemon in self.daemons)

    @property
    def log_json(self) -> bool:
        """Also of the supervisor's own lines, and of the mount's."""
        return bool(self.settings.get("meta", {}).get("log_json"))

    def mount_daemon(self) -> DaemonRecord:
        """The mount of this cluster: not one of its daemons, as it keeps nothing and may be anywhere."""
        return DaemonRecord(name="mount", role="mount", node=0, port=0)

    @property
    def security_on(self) -> bool:
        return self.security == "on" or (not self.security and not is_loopback(self.host))

    @property
    def address(self) -> str:
        return f"{self.host}:{self.meta.port}"


class ClusterDirectory:
    """The files of one directory. `lock()` first, for everything that writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        """Open and locked from `lock()` to `unlock()`. Not inherited by daemons, so it ends with the supervisor."""
        self._made: list[Path] = []
        """Directories that `lock()` had to make, the innermost first."""
        self._made_lock = False
        """`lock()` made the lock's file."""
        self.new = False
        """This process has made the cluster."""

    def lock(self) -> None:
        """Make the directory if it is missing, and take it. Raises `Failure` when another supervisor has it."""
        while self._lock is None:
            lock = self._open_lock()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_still(self.path / LOCK_FILE, lock):
                    lock.close()  # whoever had it has taken it away with the cluster
                    continue
            except OSError as error:
                lock.close()
                if error.errno != errno.EWOULDBLOCK:
                    raise Failure(f"cannot lock {self.path / LOCK_FILE}: {error.strerror}") from None
                raise Failure(
                    f"a cluster already runs in {self.path}; stop it with `emberfs down --dir {self.path}`"
                ) from None
            self._lock = lock

    def _open_lock(self) -> IO[str]:
        try:
            missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = missing or self._made
            self._made_lock = not (self.path / LOCK_FILE).exists()
            require_our_directory(self.path)
            return open(append_ours(self.path / LOCK_FILE), "a")
        except FileExistsError:
            raise Failure(f"{self.path} is not a directory; pick another with --dir DIR") from None
        except OSError as error:
            raise Failure(f"cannot use {self.path}: {error.strerror}; pick another with --dir DIR") from None

    def take_away(self, record: ClusterRecord | None, *, logs: bool) -> None:
        """Remove all that making a cluster has left here, and unlock: nothing was ever stored in it.

        `logs`: they go, too. `record` is None if the making did not come so far. Raises nothing: what cannot be
        removed stays.
        """
        for name in ("config", self.certificates.name, self.tokens.name, *((LOGS,) if logs else ())):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for daemon in [] if record is None else record.daemons:
            shutil.rmtree(self.data(daemon), ignore_errors=True)
        with contextlib.suppress(OSError):
            for name in (CLUSTER_FILE, _NEW_CLUSTER_FILE):
                (self.path / name).unlink(missing_ok=True)
            self._made_lock = True
        self.leave()

    def leave(self) -> None:
        """Unlock; what `lock()` has made, and nobody has used, goes again. Raises nothing."""
        with contextlib.suppress(OSError):
            if self._lock is not None and self._made_lock:
                (self.path / LOCK_FILE).unlink()
            for path in self._made:
                path.rmdir()
        self.unlock()

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def is_locked(self) -> bool:
        """Whether a supervisor has the directory at this moment."""
        try:
            with open(open_ours(self.path / LOCK_FILE, os.O_RDONLY)) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def load(self) -> ClusterRecord | None:
        """The record; None when nothing was ever made here. Raises `Failure` when the directory is not whole."""
        path = self.path / CLUSTER_FILE
        try:
            require_our_directory(self.path)
            content = read_ours(path)
        except FileNotFoundError:
            self._require_empty()
            return None
        except OSError as error:
            raise Failure(f"cannot read {path}: {error.strerror}") from None
        try:
            record = msgspec.json.decode(content, type=ClusterRecord)
        except msgspec.MsgspecError as error:
            raise Failure(
                f"{path} is damaged ({error}); restore it, or start a new cluster with another --dir"
            ) from None
        if record.format != FORMAT:
            raise Failure(
                f"{path} has format {record.format}, this release reads {FORMAT}; use the release that wrote it"
            )
        if [daemon.role for daemon in record.daemons] != ["meta"] + ["storage"] * (len(record.daemons) - 1):
            raise Failure(f"{path} is damaged (its daemons are not one meta and then storage); restore it")
        return record

    def save(self, record: ClusterRecord) -> None:
        """Replace `cluster.json`, durably. A crash leaves the old one or the new one."""
        temporary = self.path / _NEW_CLUSTER_FILE
        with open(create_ours(temporary), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path / CLUSTER_FILE)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def require_data(self, record: ClusterRecord) -> list[DaemonRecord]:
        """The storage daemons whose data is gone, where the others can do without: each chain has another replica, and
        there are as many other daemons as it has replicas. Raises `Failure` when that is not so, or something is
        another user's."""
        for daemon in record.daemons:
            require_our_name(self.data(daemon))
        if not record.started:
            return []
        missing = [daemon for daemon in record.daemons if not daemon.new and not self._has_data(daemon)]
        for daemon in missing:
            name = f"{self.data(daemon)} is missing or empty: the cluster has lost the data of {daemon.name}"
            if daemon.role == "meta" or len(missing) >= record.replicas:
                raise Failure(f"{name}; restore it, or start a new cluster with another --dir")
            if len(record.storage) - len(missing) < record.replicas:
                wanted = record.replicas + len(missing)
                raise Failure(f"{name}; restore it, or add a daemon that takes its place with --storage {wanted}")
        return missing

    def _has_data(self, daemon: DaemonRecord) -> bool:
        try:
            return any(self.data(daemon).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return False

    def data(self, daemon: DaemonRecord) -> Path:
        return self.path / daemon.name

    def config(self, daemon: DaemonRecord) -> Path:
        return self.path / "config" / f"{daemon.name}.toml"

    @property
    def tokens(self) -> Path:
        """Directory of the first tokens."""
        return self.path / "tokens"

    def token(self, record: ClusterRecord, name: str) -> Path | None:
        """File of a first token; None: nobody needs one."""
        return (self.tokens / f"{name}.token").absolute() if record.security_on else None

    def log(self, name: str) -> Path:
        return self.path / LOGS / f"{name}.log"

    @property
    def certificates(self) -> Path:
        return self.path / "certs"

    def tls_dir(self, daemon: DaemonRecord) -> Path:
        return self.certificates / daemon.name

    @property
    def tls_ca(self) -> Path:
        """What clients are told."""
        return self.certificates / "client" / "ca.pem"

    def _require_empty(self) -> None:
        """Nothing but what a crash before the first `save`, or a first start that failed, may leave."""
        ours = {LOCK_FILE, _NEW_CLUSTER_FILE, LOGS, "lost+found"}
        try:
            others = sorted(entry.name for entry in self.path.iterdir() if entry.name not in ours)
        except FileNotFoundError:
            raise Failure(f"{self.path} does not exist") from None
        except OSError as error:
            raise Failure(f"cannot read {self.path}: {error.strerror}") from None
        if others:
            raise Failure(
                f"{self.path} holds {others[0]!r} but no {CLUSTER_FILE}: it is not (or no longer) the directory of a "
                "cluster; pick another with --dir DIR, or empty it"
            )


def _is_still(path: Path, file: IO[str]) -> bool:
    """Whether the open file is the one of this name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
