# SPDX-License-Identifier: Apache-2.0
"""One word for where a data set keeps what its deterministic transforms make: nowhere, memory, disk or the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import PathLike
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, convert_to_contiguous

from .._options import look_up_option
from ..transforms import RandByDataSet
from .device_cache import DeviceCacheDataset, DeviceLoader, MemoryCacheDataset
from .disk_cache import DiskCacheDataset
from .image_sets import ImageSets
from .preparation import Preparation, count_deterministic
from .skip import ON_ERROR, THREADS, Skipped, prepare_each
from .smart_cache import SmartCache, SmartLoader

__all__ = ["CACHES", "build_dataloader", "build_dataset"]

CACHES = ("none", "ram", "disk", "smart", "gpu")


def _check_device(device: torch.device) -> torch.device:
    if device.type == "cpu" or (device.type == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f'cache is "gpu" and the device {device}: give a GPU as device, or choose cache "ram".')
    return device


def _build(data: Sequence, preparation: Preparation, cache: str, cache_dir: PathLike | None) -> Dataset:
    if cache == "none":
        return Dataset(data, preparation)
    if cache == "disk":
        if cache_dir is None:
            raise ValueError('cache is "disk" without a cache_dir: name a folder for it.')
        return DiskCacheDataset(data, preparation, Path(cache_dir))
    if cache == "smart":
        return SmartCache(data, preparation)
    kind = MemoryCacheDataset if cache == "ram" else DeviceCacheDataset
    return kind(data, preparation, num_workers=THREADS, progress=False)


def _build_readable(
    data: Sequence, preparation: Preparation, cache: str, cache_dir: PathLike | None
) -> tuple[Dataset, list[Skipped]]:
    """As `_build`, of the items that can be prepared; what a cache holds is made once."""
    if cache == "disk":
        dataset = _build(data, preparation, cache, cache_dir)
        dataset.data, _, skipped = prepare_each(data, dataset.prepare)
        return dataset, skipped
    if cache in ("none", "smart"):
        readable, _, skipped = prepare_each(data, preparation.prepare)
        return _build(readable, preparation, cache, cache_dir), skipped
    readable, made, skipped = prepare_each(data, lambda item: convert_to_contiguous(preparation.prepare(item)), True)
    kind = MemoryCacheDataset if cache == "ram" else DeviceCacheDataset
    dataset = kind(readable, preparation, runtime_cache=made, progress=False)
    dataset.runtime_cache = False  # `set_data` makes a cache of its own
    return dataset, skipped


def build_dataset(
    data: Sequence,
    transform: Compose,
    cache: str = "ram",
    cache_dir: PathLike | None = None,
    device: torch.device | str = "cpu",
    on_error: str = "raise",
) -> Dataset:
    """MONAI's data set for a way of caching. What is cached are the transforms before the first random one.

    Args:
        data: items.
        transform: of the items, a Compose. "image" and "label", where both are images, must have one spatial shape
            after the transforms before the first random one.
        cache: one of

            - "none": every epoch reads every file (Dataset);
            - "ram": all in memory, as the files are when it is built (CacheDataset);
            - "disk": in files of ``cache_dir``, kept for later runs (:class:`DiskCacheDataset`);
            - "smart": half of the items in memory, a tenth of them replaced after each epoch, so that an epoch is of
              half of the items (SmartCacheDataset): for training, not for validation;
            - "gpu": all in the memory of ``device``, and random transforms run there (CacheDataset).
        cache_dir: for "disk", a folder of your own, which may lie among the images. Delete it to free the space.
        device: for "gpu".
        on_error: "raise": a file that cannot be read is named, when it is cached or read. "skip-and-report": such items
            are found by one pass over all before anything else (which also fills the cache of "ram", "disk" and "gpu"),
            logged, left out and kept as ``dataset.skipped``, pairs of item and cause, with those that ``data`` had left
            out before (``data.skipped``). Every process finds the same.

    Returns:
        The data set; its items are ``dataset.data``. Where the one random transform is a :class:`RandByDataSet` and the
        cache "ram" or "disk", an :class:`ImageSets`.

    Raises:
        ValueError: When a word is unknown, ``cache_dir`` is missing, "gpu" has no GPU, or no item can be read.
        PreparationError: When a file cannot be read or transformed; a RuntimeError that names it.
        OSError: When ``cache_dir`` cannot be written.

    Example:
        >>> build_dataset([{"x": 1}, {"x": 2}], Compose([]), cache="ram")[1]
        {'x': 2}
    """
    look_up_option(cache, CACHES)
    look_up_option(on_error, ON_ERROR)
    *first, last = transform.transforms or [None]
    if isinstance(last, RandByDataSet) and cache in ("ram", "disk") and count_deterministic(transform) == len(first):
        prepared = build_dataset(data, Compose(first), "none" if cache == "ram" else cache, cache_dir, device, on_error)
        dataset = ImageSets(prepared, last)
        dataset.skipped = prepared.skipped
        return dataset
    preparation = Preparation(transform, _check_device(torch.device(device)) if cache == "gpu" else None)
    skipped: list[Skipped] = []
    if on_error == "raise":
        dataset = _build(data, preparation, cache, cache_dir)
    else:
        dataset, skipped = _build_readable(data, preparation, cache, cache_dir)
    dataset.skipped = [*getattr(data, "skipped", []), *skipped]
    return dataset


def build_dataloader(dataset: Dataset, num_workers: int = 0, **options: Any) -> DataLoader:
    """MONAI's loader for a data set of :func:`build_dataset`.

    A cache on a GPU is read by a thread of this process (ThreadDataLoader), because other processes cannot share it. A
    smart cache is started, updated and ended by its loader.

    Args:
        dataset: to load from.
        num_workers: processes; none for a cache on a GPU.
        **options: of MONAI's DataLoader.

    Returns:
        The loader.

    Raises:
        ValueError: When a smart cache gets ``persistent_workers``.

    Example:
        >>> dataset = build_dataset([{"x": 1}, {"x": 2}], Compose([]))
        >>> [batch["x"].tolist() for batch in build_dataloader(dataset, batch_size=2)]
        [[1, 2]]
    """
    if isinstance(dataset, DeviceCacheDataset):
        return DeviceLoader(dataset, num_workers=0, **options)
    kind = SmartLoader if isinstance(dataset, SmartCache) else DataLoader
    return kind(dataset, num_workers=num_workers, **options)
