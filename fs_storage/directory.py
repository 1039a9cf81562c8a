"""The directory of a storage daemon: whose it is, and that one process uses it.

    node.json           format, cluster, node: written completely before anything else is; then the cluster's uuid, once
    lock                locked (flock) while a daemon runs
    cluster_config.json  the cluster's configuration as this node was told last: version and text
    target-<id>/        one chunk engine each
    retired-<id>/       one that is not needed any more, on its way out

Commit point of a new directory: the rename of `node.json.new` to `node.json`. A crash before it leaves an empty
directory (or that file), which the next start that may make one takes over; any other content without `node.json` is
refused. So is an empty directory, unless it is asked for to be made: its disk may not be mounted.

The uuid is that of the cluster whose manager is met first. Commit point: the same rename, before anything is served.
Format 1 had none.
"""

import errno
import fcntl
import logging
import os
import re
import shutil
from pathlib import Path
from types import TracebackType

import msgspec

from fs_common.making import Making
from fs_common.records.cluster_config import PushedConfig

_log = logging.getLogger(__name__)

FORMAT = 2
_MARKER = "node.json"
_CONFIG = "cluster_config.json"
_LOCK = "lock"
_TARGET = re.compile(r"target-([1-9][0-9]*)")


class DirectoryRefused(Exception):
    """The directory cannot be used. `str()` is one line that says why and what to do."""


class Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of `node.json`."""

    format: int
    cluster: str
    node: int
    cluster_uuid: str = ""
    """Hexadecimal; "": no manager was met yet."""


class NodeDirectory:
    """A directory this process holds. A context manager: it is free again on exit."""

    def __init__(self, path: Path, lock: int, marker: Marker) -> None:
        self.path = path
        self._lock = lock
        self._marker = marker

    @property
    def cluster_uuid(self) -> bytes:
        """Of the cluster it belongs to; b"": not known yet."""
        return bytes.fromhex(self._marker.cluster_uuid)

    def keep_cluster(self, uuid: bytes) -> None:
        """It belongs to that cluster from here on, durably. Raises `OSError`."""
        marker = msgspec.structs.replace(self._marker, format=FORMAT, cluster_uuid=uuid.hex())
        _write_marker(self.path, marker)
        self._marker = marker

    def keep_config(self, pushed: PushedConfig) -> None:
        """The cluster's configuration is this, for a start that reaches no manager. Commit point: a rename. Where it
        cannot be kept the log says so: such a start works by the one before."""
        try:
            _write(self.path, _CONFIG, msgspec.json.encode(pushed))
        except OSError as error:
            _log.warning("the cluster's configuration cannot be kept in %s: %s", self.path, error.strerror)

    def kept_config(self) -> PushedConfig:
        """What was kept last; version 0: nothing, or it cannot be read."""
        try:
            return msgspec.json.decode((self.path / _CONFIG).read_bytes(), type=PushedConfig)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            _log.warning("the configuration that was kept in %s cannot be read: %s", self.path, error)
        return PushedConfig(0, "")

    def target(self, target: int) -> Path:
        """Where the engine of `target` lives."""
        return self.path / f"target-{target}"

    def stored(self) -> list[int]:
        """Targets that have a folder here."""
        return sorted(int(found[1]) for name in os.listdir(self.path) if (found := _TARGET.fullmatch(name)))

    def remove_target(self, target: int) -> None:
        """Remove its folder with all that is in it; it is not open. Commit point: the rename. Raises `OSError`."""
        gone = self.path / f"retired-{target}"
        shutil.rmtree(gone, ignore_errors=True)
        os.rename(self.target(target), gone)
        _sync(self.path)
        shutil.rmtree(gone)

    def sweep(self) -> None:
        """Remove what a crash has left of removals. What cannot be removed stays."""
        for name in os.listdir(self.path):
            if name.startswith("retired-"):
                shutil.rmtree(self.path / name, ignore_errors=True)

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> "NodeDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def claim(path: Path, cluster: str, node: int, making: Making = Making.IF_MISSING) -> NodeDirectory:
    """Make or take over the directory of `node` of `cluster`. Raises `DirectoryRefused`."""
    _check_making(path, making)
    try:
        made = _make(path)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DirectoryRefused(f"directory {path} cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryRefused(f"directory {path} is in use by another process; stop that one first") from None
        if made:
            _sync(path.parent)
        marker = _check_marker(path, cluster, node)
    except OSError as error:
        os.close(lock)
        raise DirectoryRefused(f"directory {path} cannot be used: {error.strerror}") from None
    except BaseException:
        os.close(lock)
        raise
    return NodeDirectory(path, lock, marker)


def _check_making(path: Path, making: Making) -> None:
    """Before anything is touched."""
    made = (path / _MARKER).exists()
    if made and making is Making.YES:
        raise DirectoryRefused(f"directory {path} is formatted already: start without --format")
    if not made and making is Making.NO:
        raise DirectoryRefused(
            f"directory {path} has no {_MARKER}: mount its disk or restore it; a new one is made once, with --format"
        )


def _make(path: Path) -> bool:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        return False
    return True


def _check_marker(path: Path, cluster: str, node: int) -> Marker:
    try:
        raw = (path / _MARKER).read_bytes()
    except FileNotFoundError:
        strangers = sorted(set(os.listdir(path)) - {_LOCK, _MARKER + ".new"})
        if strangers:
            raise DirectoryRefused(
                f"directory {path} has no {_MARKER} but holds {strangers[0]!r}: it is not a storage daemon's; "
                "name an empty or new directory"
            ) from None
        marker = Marker(FORMAT, cluster, node)
        _write_marker(path, marker)
        return marker
    try:
        marker = msgspec.json.decode(raw, type=Marker)
        bytes.fromhex(marker.cluster_uuid)
    except (msgspec.DecodeError, ValueError) as error:
        raise DirectoryRefused(f"{path / _MARKER} is damaged: {error}") from None
    if marker.format not in (1, FORMAT):
        raise DirectoryRefused(f"directory {path} has format {marker.format}, this release reads {FORMAT}")
    if marker.cluster != cluster:
        raise DirectoryRefused(f"directory {path} belongs to cluster {marker.cluster!r}, not to {cluster!r}")
    if marker.node != node:
        raise DirectoryRefused(f"directory {path} belongs to node {marker.node}, not to node {node}")
    return marker


def _write_marker(path: Path, marker: Marker) -> None:
    _write(path, _MARKER, msgspec.json.encode(marker))


def _write(path: Path, name: str, content: bytes) -> None:
    new = path / (name + ".new")
    with open(new, "wb") as file:
        file.write(content + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path / name)  # commit point
    _sync(path)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
