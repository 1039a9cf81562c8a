"""The cluster's configuration in the metadata store: versions of a text for each kind of daemon.

Invariants: versions grow by one; what is there was valid when it was set; what `current` says is committed. A version
is set by one transaction that finds the manager's lease record and the version before it in place: that is its commit
point. A crash after it: the caller does not know, and finds the new version when it looks.

Called by: the manager, which loads it with its state; the control plane.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from fs_common.config import ConfigError
from fs_common.errors import Code, EmberError
from fs_common.live_config import LiveConfig, parse
from fs_common.records.cluster_config import NO_REPORT, ConfigReport, ConfigVersion, PushedConfig
from fs_common.settings import KINDS
from fs_meta.kv.interface import KeyValueStore, Transaction
from fs_meta.manager.lease import ManagerLease
from fs_meta.manager.records import config_key, config_range, decode, encode

VERSIONS_KEPT: Final = 200
COMMENT_LENGTH_MAX: Final = 1000


class ClusterConfig:
    """One for each metadata server. All methods on one event loop."""

    def __init__(
        self, kv: KeyValueStore, lease: ManagerLease, now_ms: Callable[[], int] = lambda: int(time.time() * 1000)
    ) -> None:
        self._kv = kv
        self._lease = lease
        self._now_ms = now_ms
        self._current = {kind: ConfigVersion(kind, 0, "") for kind in KINDS}
        self._setting = asyncio.Lock()
        """Held from looking at the newest version to the commit of the next."""
        self._live: dict[str, LiveConfig[Any]] = {}
        """By kind: of this process."""

    def follow(self, kind: str, live: LiveConfig[Any]) -> None:
        """The daemon of this kind is this very process: its word counts, and it is told of new versions."""
        self._live[kind] = live

    def own_report(self, kind: str) -> ConfigReport:
        """Of the daemon that is this very process, if it is of this kind."""
        return self._live[kind].report if kind in self._live else NO_REPORT

    async def load(self) -> None:
        """What the store has: when this server becomes the manager. Raises what the store raises."""

        async def newest(txn: Transaction) -> list[ConfigVersion]:
            return [await _newest(txn, kind) for kind in KINDS]

        for version in await self._kv.read(newest):
            self._take(version)

    def current(self, kind: str) -> ConfigVersion:
        """The newest version; version 0 if nothing was ever configured. Raises INVALID for no kind of daemon."""
        _require_kind(kind)
        return self._current[kind]

    def pushed(self, kind: str) -> PushedConfig:
        """The same, as daemons are told."""
        current = self.current(kind)
        return PushedConfig(current.version, current.text)

    async def version(self, kind: str, version: int) -> ConfigVersion:
        """One version; 0: the newest. Raises INVALID: there is none."""
        _require_kind(kind)
        if not version:
            return self._current[kind]

        async def get(txn: Transaction) -> ConfigVersion | None:
            key = config_key(kind, version)
            value = await txn.get(key)
            return None if value is None else decode(key, value, ConfigVersion)

        found = await self._kv.read(get)
        if found is None:
            raise EmberError(
                Code.INVALID, f"the configuration of {kind} has no version {version}: `emberfs config history`"
            )
        return found

    async def versions(self, kind: str, after: int, limit: int) -> list[ConfigVersion]:
        """At most `limit` versions, newest first; those before version `after` (0: all)."""
        _require_kind(kind)

        async def look(txn: Transaction) -> list[ConfigVersion]:
            begin, end = config_range(kind, after)
            return [decode(key, value, ConfigVersion) for key, value in await txn.range(begin, end, limit, True)]

        return await self._kv.read(look)

    def validate(self, kind: str, text: str, comment: str = "") -> None:
        """Raises INVALID, naming the key."""
        _require_kind(kind)
        if len(comment) > COMMENT_LENGTH_MAX:
            raise EmberError(Code.INVALID, f"the comment has more than {COMMENT_LENGTH_MAX} characters")
        try:
            parse(kind, text)
            if kind in self._live:
                self._live[kind].combined(text)
        except ConfigError as error:
            raise EmberError(Code.INVALID, str(error)) from None

    async def set(self, kind: str, text: str, comment: str, expected: int | None) -> ConfigVersion:
        """A new version, durable on return. The manager calls it, and sees to it that it is not cut (`set_config`).

        `expected`: only if that is the newest one; None: whatever is. Raises INVALID, naming the key, or the version
        that was set meanwhile; NOT_MANAGER; what the store raises."""
        self.validate(kind, text, comment)
        async with self._setting:

            async def put(txn: Transaction) -> ConfigVersion:
                await self._lease.validate(txn)
                newest = await _newest(txn, kind)
                if expected is not None and newest.version != expected:
                    raise EmberError(
                        Code.INVALID,
                        f"the configuration of {kind} is at version {newest.version} by now, not {expected}: look at"
                        " it, and set it again",
                    )
                version = ConfigVersion(kind, newest.version + 1, text, comment, self._now_ms())
                txn.put(config_key(kind, version.version), encode(version))
                if version.version > VERSIONS_KEPT:
                    txn.delete(config_key(kind, version.version - VERSIONS_KEPT))
                return version

            try:
                version = await self._kv.transact(put)
            except EmberError:
                await self.load()  # it may have been set
                raise
            self._take(version)
            return version

    def _take(self, version: ConfigVersion) -> None:
        self._current[version.kind] = version
        if version.kind in self._live:
            self._live[version.kind].offer(PushedConfig(version.version, version.text))


async def _newest(txn: Transaction, kind: str) -> ConfigVersion:
    for key, value in await txn.range(*config_range(kind), 1, True):
        return decode(key, value, ConfigVersion)
    return ConfigVersion(kind, 0, "")


async def stored_config(kv: KeyValueStore, kind: str) -> PushedConfig:
    """What a metadata server starts with. Raises what the store raises."""

    async def newest(txn: Transaction) -> ConfigVersion:
        return await _newest(txn, kind)

    version = await kv.read(newest)
    return PushedConfig(version.version, version.text)


def _require_kind(kind: str) -> None:
    if kind not in KINDS:
        raise EmberError(Code.INVALID, f"there is no configuration for {kind!r}: there is one for {', '.join(KINDS)}")
