"""Datasets, packed files and epoch orders for training loops.

    from emberfs.loader import ElasticBatchSampler, FileDataset, PackedDataset, collate, pack

Each name is loaded when it is first used; none of them imports torch before a batch is collated.
"""

from typing import TYPE_CHECKING, Any

import fs_client.loader
from fs_client.loader import __all__ as __all__

if TYPE_CHECKING:
    from fs_client.loader import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name not in fs_client.loader.__all__:
        raise AttributeError(f"module 'emberfs.loader' has no attribute {name!r}")
    return getattr(fs_client.loader, name)


def __dir__() -> list[str]:
    return sorted(__all__)
