"""EmberFS for Python programs: the public names, in one package of the distribution's name.

    import emberfs

    fs = emberfs.connect()                         # or connect("host:port,host:port")
    with fs.open("/data/a.bin", "wb") as file:
        file.write(b"...")
    views = fs.read_ranges([("/data/a.bin", 0, 4096)])

`emberfs.connect` blocks; `emberfs.aio.connect` has the same names for asyncio programs. `emberfs.loader` has datasets
and samplers for training loops, `emberfs.errors` what is raised.

Nothing is defined here. Each name is loaded from `fs_client` or `fs_common` when it is first used, so that a command or
a worker that needs little of it starts quickly.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fs_common.release import RELEASE as __version__

if TYPE_CHECKING:
    from emberfs import aio, errors, loader
    from fs_client.dir_entry import DirEntry
    from fs_client.file_ref import FileRef
    from fs_client.filesystem import FileSystem, connect
    from fs_client.loader.batch import Batch, SampleError
    from fs_client.loader.file_dataset import FileDataset
    from fs_client.loader.packed_dataset import PackedDataset
    from fs_client.loader.packing import pack
    from fs_client.loader.sampler import ElasticBatchSampler
    from fs_client.loader.torch_collate import collate, collate_padded
    from fs_client.stat_result import StatResult
    from fs_common.errors import Code, EmberError
    from fs_common.layout import Durability, Layout

__all__ = [
    "Batch",
    "Code",
    "DirEntry",
    "Durability",
    "ElasticBatchSampler",
    "EmberError",
    "FileDataset",
    "FileRef",
    "FileSystem",
    "Layout",
    "PackedDataset",
    "SampleError",
    "StatResult",
    "__version__",
    "aio",
    "collate",
    "collate_padded",
    "connect",
    "errors",
    "loader",
    "pack",
]

_MODULES = frozenset({"aio", "errors", "loader"})
_DEFINED_IN = {
    "Batch": "fs_client.loader.batch",
    "Code": "fs_common.errors",
    "DirEntry": "fs_client.dir_entry",
    "Durability": "fs_common.layout",
    "ElasticBatchSampler": "fs_client.loader.sampler",
    "EmberError": "fs_common.errors",
    "FileDataset": "fs_client.loader.file_dataset",
    "FileRef": "fs_client.file_ref",
    "FileSystem": "fs_client.filesystem",
    "Layout": "fs_common.layout",
    "PackedDataset": "fs_client.loader.packed_dataset",
    "SampleError": "fs_client.loader.batch",
    "StatResult": "fs_client.stat_result",
    "collate": "fs_client.loader.torch_collate",
    "collate_padded": "fs_client.loader.torch_collate",
    "connect": "fs_client.filesystem",
    "pack": "fs_client.loader.packing",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"emberfs.{name}")
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'emberfs' has no attribute {name!r}")
    value = getattr(importlib.import_module(_DEFINED_IN[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
