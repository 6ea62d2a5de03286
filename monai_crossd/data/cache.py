# SPDX-License-Identifier: Apache-2.0
"""One word for where a data set keeps what its deterministic transforms make: nowhere, memory, disk or the GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import PathLike
from monai.data import CacheDataset, DataLoader, Dataset, SmartCacheDataset, ThreadDataLoader
from monai.transforms import Compose, RandomizableTrait, Transform
from monai.utils import look_up_option

from .disk_cache import DiskCacheDataset
from .skip import ON_ERROR, find_readable

__all__ = ["CACHES", "DeviceCacheDataset", "build_dataloader", "build_dataset"]

CACHES = ("none", "ram", "disk", "smart", "gpu")
SMART_REPLACE, SMART_CACHE = 0.1, 0.5  # of the items: replaced after each epoch, and held


class _ToDevice(Transform):
    """Moves the tensors of an item; MONAI's needs their keys."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, data: dict) -> dict:
        return {key: value.to(self.device) if isinstance(value, torch.Tensor) else value for key, value in data.items()}


class DeviceCacheDataset(CacheDataset):
    """MONAI's CacheDataset whose cache, and so its random transforms, are on a GPU."""


class _SmartLoader(DataLoader):
    """Starts the replacement of a SmartCacheDataset with the first epoch, and takes it over after each."""

    def __iter__(self) -> Iterator[Any]:
        if self.dataset.is_started():
            self.dataset.update_cache()
        else:
            self.dataset.start()
        return super().__iter__()


def first_random(transform: Compose) -> int:
    """Number of the transforms that are deterministic, and come before any that is not: what MONAI's caches hold."""
    index = transform.get_index_of_first(lambda t: isinstance(t, RandomizableTrait) or not isinstance(t, Transform))
    return len(transform.transforms) if index is None else index


def _on(device: torch.device, transform: Compose) -> Compose:
    at = first_random(transform)
    return Compose([*transform.transforms[:at], _ToDevice(device), *transform.transforms[at:]])


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
        transform: of the items, a Compose.
        cache: one of

            - "none": every epoch reads every file (Dataset);
            - "ram": all in memory (CacheDataset);
            - "disk": in files of ``cache_dir``, kept for later runs (:class:`DiskCacheDataset`);
            - "smart": half of the items in memory, a tenth of them replaced after each epoch, so that an epoch is of
              half of the items (SmartCacheDataset): for training;
            - "gpu": all in the memory of ``device``, and random transforms run there.
        cache_dir: for "disk", a folder of your own.
        device: for "gpu".
        on_error: "raise", or "skip-and-report": items that cannot be read and transformed are found by one pass over
            all before anything else, logged, left out and kept as ``dataset.skipped``, pairs of item and cause.

    Returns:
        The data set; its items are ``dataset.data``.

    Raises:
        ValueError: When a word is unknown, ``cache_dir`` is missing, "gpu" has no GPU, or no item can be read.
        OSError: When ``cache_dir`` cannot be written.

    Example:
        >>> build_dataset([{"x": 1}, {"x": 2}], Compose([]), cache="ram")[1]
        {'x': 2}
    """
    look_up_option(cache, CACHES)
    look_up_option(on_error, ON_ERROR)
    device = torch.device(device)
    if cache == "gpu" and device.type == "cpu":
        raise ValueError(f'cache is "gpu" and the device {device}: give a GPU as device, or choose cache "ram".')
    skipped: list[tuple[Any, str]] = []
    if on_error != "raise":
        data, skipped = find_readable(data, transform, first_random(transform))
    dataset: Dataset
    if cache == "none":
        dataset = Dataset(data, transform)
    elif cache == "ram":
        dataset = CacheDataset(data, transform, progress=False)
    elif cache == "disk":
        if cache_dir is None:
            raise ValueError('cache is "disk" without a cache_dir: name a folder for it.')
        dataset = DiskCacheDataset(data, transform, Path(cache_dir))
    elif cache == "smart":
        dataset = SmartCacheDataset(data, transform, SMART_REPLACE, cache_rate=SMART_CACHE, progress=False)
    else:
        dataset = DeviceCacheDataset(data, _on(device, transform), progress=False)
    dataset.skipped = skipped
    return dataset


def build_dataloader(dataset: Dataset, num_workers: int = 0, **options: Any) -> DataLoader:
    """MONAI's loader for a data set of :func:`build_dataset`.

    A cache on a GPU is read by threads of this process (ThreadDataLoader), which other processes cannot share.

    Args:
        dataset: to load from.
        num_workers: processes; none for a cache on a GPU.
        **options: of MONAI's DataLoader.

    Returns:
        The loader.

    Example:
        >>> dataset = build_dataset([{"x": 1}, {"x": 2}], Compose([]))
        >>> [batch["x"].tolist() for batch in build_dataloader(dataset, batch_size=2)]
        [[1, 2]]
    """
    if isinstance(dataset, DeviceCacheDataset):
        return ThreadDataLoader(dataset, num_workers=0, **options)
    kind = _SmartLoader if isinstance(dataset, SmartCacheDataset) else DataLoader
    return kind(dataset, num_workers=num_workers, **options)
