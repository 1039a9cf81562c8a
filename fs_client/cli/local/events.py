"""What a supervisor says while it works: shown by the foreground, written to its log, sent to the launcher."""

import enum
import time
from datetime import UTC, datetime

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


def log_line(event: "Event", *, json: bool) -> str:
    """As the supervisor's log has it."""
    if not json:
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {event.kind} {event.name} {event.text}"
    moment = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    fields = {"event": f"{event.kind} {event.text}".rstrip(), "level": "info", "logger": "fs_client.cli.local"}
    fields |= {"process": "supervisor", "timestamp": moment} | ({"daemon": event.name} if event.name else {})
    return msgspec.json.encode(fields).decode()


class Event(msgspec.Struct, frozen=True):
    kind: Kind
    name: str = ""
    """The daemon it is about; empty: the cluster."""
    text: str = ""
