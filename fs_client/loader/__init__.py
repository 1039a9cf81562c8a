"""Datasets, packed files and epoch orders for training loops.

    from fs_client.loader import ElasticBatchSampler, FileDataset, PackedDataset, collate, pack

Each name is loaded when it is first used; none of them imports torch before a batch is collated.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fs_client.loader.batch import Batch, SampleError
    from fs_client.loader.file_dataset import FileDataset
    from fs_client.loader.packed_dataset import PackedDataset
    from fs_client.loader.packing import pack
    from fs_client.loader.sampler import ElasticBatchSampler
    from fs_client.loader.torch_collate import collate, collate_padded

__all__ = [
    "Batch",
    "ElasticBatchSampler",
    "FileDataset",
    "PackedDataset",
    "SampleError",
    "collate",
    "collate_padded",
    "pack",
]

_DEFINED_IN = {
    "Batch": "batch",
    "ElasticBatchSampler": "sampler",
    "FileDataset": "file_dataset",
    "PackedDataset": "packed_dataset",
    "SampleError": "batch",
    "collate": "torch_collate",
    "collate_padded": "torch_collate",
    "pack": "packing",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'fs_client.loader' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fs_client.loader.{_DEFINED_IN[name]}"), name)
    globals()[name] = value
    return value
