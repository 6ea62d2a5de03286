# SPDX-License-Identifier: Apache-2.0
"""Where a data set keeps what its deterministic transforms make (memory, disk, GPU), and who loads what of it."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence, Sized
from copy import deepcopy
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.config import PathLike
from monai.data import CacheDataset, DataLoader, Dataset, DistributedSampler, SmartCacheDataset, ThreadDataLoader
from monai.data.thread_buffer import buffer_iterator
from monai.transforms import Compose, convert_to_contiguous

from .._options import look_up_option
from ..transforms import RandByDataSet
from .data_sets import ImageSets
from .disk_cache import DiskCacheDataset
from .preparation import ON_ERROR, THREADS, Preparation, PreparationError, Skipped, count_deterministic, prepare_each

__all__ = [
    "CACHES",
    "DeviceCacheDataset",
    "DeviceLoader",
    "EvaluationSampler",
    "GiveCopies",
    "MemoryCacheDataset",
    "SmartCache",
    "SmartLoader",
    "build_dataloader",
    "build_dataset",
]

HELD, REPLACED = 0.5, 0.1  # parts: of the items, and of those held
CACHES = ("none", "ram", "disk", "smart", "gpu")


class EvaluationSampler(DistributedSampler):
    """MONAI's DistributedSampler of every case once, in order; its error has no numbers.

    Args:
        dataset: Cases to evaluate.
        num_replicas: Number of processes; by default those of the process group.
        rank: Number of this process; by default that in the process group.

    Raises:
        ValueError: If there are fewer cases than processes, in every process: a metric needs a case in each.

    Example:
        >>> list(EvaluationSampler(range(5), num_replicas=2, rank=1))
        [1, 3]
    """

    def __init__(self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None) -> None:
        processes = idist.get_world_size() if num_replicas is None else num_replicas
        if len(dataset) < processes:
            raise ValueError(
                f"The validation has too few cases, {len(dataset)} for {processes} processes, and each scores one: "
                f"start {len(dataset) or 'fewer'} at most (--nproc_per_node), or add cases to the section 'validation'."
            )
        super().__init__(dataset, even_divisible=False, num_replicas=num_replicas, rank=rank, shuffle=False)


class GiveCopies:
    """Lets a CacheDataset of MONAI give a copy of an item also where no random transform makes one.

    Otherwise who changes an item in place changes it for all epochs.
    """

    def _transform(self, index: int) -> Any:
        data = super()._transform(index)  # type: ignore[misc]
        transform = self.transform  # type: ignore[attr-defined]
        return deepcopy(data) if count_deterministic(transform) == len(transform.transforms) else data


class MemoryCacheDataset(GiveCopies, CacheDataset):
    """MONAI's CacheDataset whose items may be changed in place."""


class DeviceCacheDataset(MemoryCacheDataset):
    """MONAI's CacheDataset whose cache, and so its random transforms, are on a GPU."""


class DeviceLoader(ThreadDataLoader):
    """MONAI's ThreadDataLoader that raises what goes wrong in its thread; MONAI's ends the epoch without a word.

    Args:
        dataset: to load from.
        **options: of MONAI's ThreadDataLoader.
    """

    def __iter__(self) -> Iterator[Any]:
        """One epoch."""
        failed: list[Exception] = []

        def batches() -> Iterator[Any]:
            try:
                yield from torch.utils.data.DataLoader.__iter__(self)
            except Exception as error:
                failed.append(error)

        yield from buffer_iterator(batches(), self.buffer_size, self.buffer_timeout, self.repeats)
        if failed:
            raise failed[0]


class SmartCache(GiveCopies, SmartCacheDataset):
    """Holds half of the items, and replaces a tenth of them after each epoch.

    Two things differ from MONAI's SmartCacheDataset. It waits for ever when a replacement cannot be read; this one
    raises, when the epoch begins that would need it. And seeds of worker processes end at it, so that the augmentation
    of all workers and epochs is the same; this one passes them on to its transforms.

    Args:
        data: items; they are shuffled once.
        transform: of the items.
    """

    def __init__(self, data: Sequence, transform: Preparation) -> None:
        held = math.ceil(len(data) * HELD)
        super().__init__(data, transform, REPLACED, cache_num=held, num_init_workers=THREADS, progress=False)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> SmartCache:
        """Seeds the data set and its random transforms."""
        super().set_random_state(seed, state)
        if hasattr(self, "transform"):  # not yet when MONAI first calls
            self.transform.set_random_state(seed, state)
        return self

    def _replace_cache_thread(self, index: int) -> None:
        try:
            super()._replace_cache_thread(index)
        except PreparationError as error:
            self._replacements[index] = error

    def update_cache(self) -> None:
        """Takes over the replacements.

        Raises:
            PreparationError: When one could not be read.
        """
        super().update_cache()
        for item in self._cache:
            if isinstance(item, PreparationError):
                self.shutdown()
                raise item

    def held(self) -> torch.Tensor:
        """Numbers, in ``data``, of the items held at present, in their order."""
        return (self._start_pos + torch.arange(self.cache_num)) % len(self.data)


class SmartLoader(DataLoader):
    """Loads from a :class:`SmartCache` and lets it replace items while an epoch runs.

    Weights of a sampler are those of all items, ``dataset.data``; each epoch draws by those of the items held. The
    background thread ends with the loader.

    Args:
        dataset: to load from.
        **options: of MONAI's DataLoader.

    Raises:
        ValueError: When workers shall live longer than an epoch: they would keep the items of the first.
    """

    def __init__(self, dataset: SmartCache, **options: Any) -> None:
        if options.get("persistent_workers"):
            raise ValueError('persistent_workers is true; expected false with cache "smart", whose items change.')
        super().__init__(dataset, **options)
        self.weights = getattr(self.sampler, "weights", None)
        if self.weights is not None and len(self.weights) != len(dataset.data):
            raise ValueError(f"The sampler has {len(self.weights)} weights; expected {len(dataset.data)}, one an item.")
        weakref.finalize(self, dataset.shutdown)

    def __iter__(self) -> Iterator[Any]:
        """One epoch."""
        if self.dataset.is_started():
            self.dataset.update_cache()
        else:
            self.dataset.start()
        if self.weights is not None:
            self.sampler.weights = torch.as_tensor(self.weights)[self.dataset.held()]
        yield from super().__iter__()


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
