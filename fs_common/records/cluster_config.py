"""The cluster's configuration as the manager keeps it and as nodes take it.

One text of TOML for each kind of daemon, under a version that grows with each change. What a daemon runs on is:
built-in values, over them the cluster's text, over that the daemon's own file.
"""

import enum

import msgspec


class ConfigStatus(enum.IntEnum):
    """How a node stands to the cluster's configuration."""

    NORMAL = 1
    """It runs on the newest version."""
    DIRTY = 2
    """It has it, and some keys take effect when it is started again."""
    FAILED = 3
    """It could not take it, and runs on what it had before."""
    STALE = 4
    """It has not said yet that it has it."""
    UNKNOWN = 5
    """It does not run, or is of a release that says nothing of it."""


class ConfigReport(msgspec.Struct, frozen=True, array_like=True):
    """What a daemon says of its configuration."""

    version: int = 0
    """That it has taken, or could not take; 0: none."""
    status: ConfigStatus = ConfigStatus.UNKNOWN
    reason: str = ""
    """With FAILED: one line."""
    waiting: list[str] = []
    """With DIRTY: the keys that take effect at the next start."""
    own: str = ""
    """TOML: the keys of the cluster's configuration that the daemon's own file sets."""


NO_REPORT = ConfigReport()
"""Of a daemon that says nothing."""


class PushedConfig(msgspec.Struct, frozen=True, array_like=True):
    """What a daemon is told."""

    version: int
    """0: nothing was ever configured."""
    text: str
    """TOML."""


class ConfigVersion(msgspec.Struct, frozen=True, array_like=True):
    """One version of the text for one kind of daemon."""

    kind: str
    """"meta" or "storage"."""
    version: int
    """From 1; 0: nothing was ever configured."""
    text: str
    comment: str = ""
    set_ms: int = 0
    """When, in ms of the epoch by the server's clock; for people."""


class Setting(msgspec.Struct, frozen=True, array_like=True):
    """One key that the cluster's configuration may have."""

    key: str
    value: str
    """TOML, as `built_in`."""
    built_in: str
    origin: str
    """built-in, cluster, file."""
    live: bool
    """A change takes effect at once; False: when the daemon is started again."""
    waiting: bool
    """It has changed, and the daemon has not been started since."""
