"""What a supervisor says while it works: shown by the foreground, written to its log, sent to the launcher."""

import enum

import msgspec


class Kind(enum.StrEnum):
    STARTING = "starting"
    """A daemon has been started."""
    SERVING = "serving"
    """A daemon said that it serves."""
    READY = "ready"
    """The cluster is ready; `text` is its address."""
    ENDED = "ended"
    """A daemon ended without being asked to; `text` says how, and what happens next."""
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    """The cluster could not be started; `text` is the one line that says why."""


class Event(msgspec.Struct, frozen=True):
    kind: Kind
    name: str = ""
    """The daemon it is about; empty: the cluster."""
    text: str = ""
