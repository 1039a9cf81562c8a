"""What the cluster configures for all mounts, taken while a mount runs: how much it logs.

Beneath what the mount was told itself (`-o`), key by key, as for daemons (`fs_common.live_config`). A mount has no
connection to the manager: it asks a metadata server over the data plane, when it begins and every `LOOK_S`. Where no
manager answers it goes on with what it had.

Called by: `daemon`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from fs_client.settle import ended
from fs_common import methods
from fs_common.endless import keep
from fs_common.errors import Code, EmberError
from fs_common.live_config import LiveConfig
from fs_common.records.cluster_config import PushedConfig
from fs_common.records.control import GetMountConfig
from fs_common.settings import MOUNT, MountConfig

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

logger = logging.getLogger(__name__)

LOOK_S: Final = 30.0
CALL_S: Final = 5.0


class ClusterSettings:
    """Of one mount."""

    def __init__(self, fs: "AsyncFileSystem", own: Mapping[str, Any], apply: Callable[[MountConfig], None]) -> None:
        """`own`: what the mount was told itself. `apply` makes a changed configuration take effect."""
        self._fs = fs
        self._live: LiveConfig[MountConfig] = LiveConfig(MOUNT, MountConfig, own)
        self._live.connect(apply)
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = keep(self._run, "cluster's configuration", end_on=())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await ended([self._task])

    async def _run(self) -> None:
        while True:
            for address in self._fs.options.addresses:
                try:
                    pushed: PushedConfig = await self._fs.pool.call(
                        address, methods.GET_MOUNT_CONFIG, GetMountConfig(), timeout=CALL_S
                    )
                except EmberError as error:
                    if error.code is Code.UNKNOWN_METHOD:
                        logger.info("the cluster configures no mounts: it is of an older version")
                        return
                    logger.debug("the cluster's configuration: %s", error)
                else:
                    self._live.offer(pushed)
                    break
            await asyncio.sleep(LOOK_S)
