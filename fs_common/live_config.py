"""A daemon's configuration while it runs: what the cluster says beneath what its own file says, and what becomes of it.

Pure but for `apply`, the one place of each daemon that makes a changed configuration take effect.

Invariants:

* `running` is what the process works by: as it was started, with the live keys of what was taken since.
* What cannot be taken changes nothing, and is reported as FAILED with its reason.
* The daemon's own file wins over the cluster's configuration, key by key.

Called by: the daemons' `__main__`, and the control plane's client, which is told of new versions.
"""

import json
import logging
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final, Generic, TypeVar

import msgspec

from fs_common.config import NOT_TOML, ConfigError, in_words
from fs_common.records.cluster_config import ConfigReport, ConfigStatus, PushedConfig
from fs_common.settings import KINDS, Settings, keys_of

logger = logging.getLogger(__name__)

TEXT_BYTES_MAX: Final = 64 * 1024
C = TypeVar("C", bound=Settings)


def parse(kind: str, text: str) -> dict[str, Any]:
    """The keys and values of the cluster's configuration for a kind of daemon.

    Raises `ConfigError`, one line: it is not TOML, a key is not among those that it may have, a value is none for its
    key, values do not go together.
    """
    settings = KINDS.get(kind)
    if settings is None:
        raise ConfigError(f"there is no configuration for {kind!r}: there is one for {' and for '.join(KINDS)}")
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise ConfigError(f"{kind}: more than {TEXT_BYTES_MAX} bytes")
    try:
        tree = tomllib.loads(text)
    except NOT_TOML as error:
        raise ConfigError(f"{kind}: is not TOML: {error}") from None
    keys = keys_of(settings)
    for key in tree:
        if key not in keys:
            near = get_close_matches(key, keys, 1)
            hint = f"did you mean {near[0]}?" if near else "it may be one of a daemon's own file"
            raise ConfigError(f"{kind}: the cluster's configuration has no key {key}: {hint}")
    try:
        msgspec.convert(tree, settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{kind}: {in_words(str(error))}") from None
    return tree


def toml_value(value: Any) -> str:
    """A value of a setting, as TOML writes it: its basic strings are JSON's."""
    return json.dumps(value, ensure_ascii=False)


def toml_text(values: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in values.items())


class LiveConfig(Generic[C]):
    """`offer` what is known at the start, build the daemon from `running`, `connect` it, and `offer` what comes."""

    def __init__(self, kind: str, model: type[C], own: Mapping[str, Any]) -> None:
        """`own`: what the daemon's own file and environment say. Raises `ConfigError` where that alone is none."""
        self._kind = kind
        self._model = model
        self._own = dict(own)
        self._apply: Callable[[C], None] | None = None
        """None: nothing is built yet, and every key can be taken."""
        said = {key: own[key] for key in keys_of(KINDS[kind]) if key in own}
        self._report = ConfigReport(0, ConfigStatus.NORMAL, own=toml_text(said))
        self.running: C = self._combined({})

    @property
    def report(self) -> ConfigReport:
        """What the manager is told."""
        return self._report

    def combined(self, text: str) -> C:
        """What the daemon would be started with under the cluster's configuration `text`. Raises `ConfigError`."""
        return self._combined(parse(self._kind, text))

    def connect(self, apply: Callable[[C], None]) -> None:
        """`apply` makes the live keys of a configuration take effect; it is called whenever one of them has changed."""
        self._apply = apply

    def offer(self, pushed: PushedConfig) -> bool:
        """The cluster's configuration is this now: take it. False: it could not be, or is there already."""
        if pushed.version == self._report.version:
            return False
        live = KINDS[self._kind].LIVE
        try:
            wanted = self.combined(pushed.text)
            differs = [key for key in keys_of(KINDS[self._kind]) if getattr(wanted, key) != getattr(self.running, key)]
            changes = {key: getattr(wanted, key) for key in differs if key in live or self._apply is None}
            if changes and self._apply is None:
                self.running = wanted
            elif changes and self._apply is not None:
                running = self._convert(msgspec.structs.asdict(self.running) | changes)
                self._apply(running)
                self.running = running
        except ConfigError as error:
            self._fail(pushed.version, str(error))
            return False
        except Exception as error:  # a daemon goes on with what it had
            logger.exception("version %d of the configuration cannot take effect", pushed.version)
            self._fail(pushed.version, f"{type(error).__name__}: {error}")
            return False
        waiting = sorted(key for key in differs if key not in changes)
        status = ConfigStatus.DIRTY if waiting else ConfigStatus.NORMAL
        self._report = ConfigReport(pushed.version, status, "", waiting, self._report.own)
        logger.info(
            "version %d of the cluster's configuration: %s%s",
            pushed.version,
            ", ".join(f"{key} = {toml_value(value)}" for key, value in changes.items()) or "nothing changes at once",
            f"; at the next start: {', '.join(waiting)}" if waiting else "",
        )
        return True

    def _fail(self, version: int, reason: str) -> None:
        logger.error("version %d of the cluster's configuration is not taken: %s", version, reason)
        self._report = ConfigReport(version, ConfigStatus.FAILED, reason, own=self._report.own)

    def _combined(self, cluster: Mapping[str, Any]) -> C:
        return self._convert({**cluster, **self._own})

    def _convert(self, values: Mapping[str, Any]) -> C:
        try:
            return msgspec.convert(values, self._model)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{self._kind}: {in_words(str(error))}, with what the daemon's own file says") from None
