# SPDX-License-Identifier: Apache-2.0
"""Caches in memory and on a GPU, and the loader that reads the latter."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from monai.data import CacheDataset, ThreadDataLoader
from monai.data.thread_buffer import buffer_iterator

from .preparation import count_deterministic

__all__ = ["DeviceCacheDataset", "DeviceLoader", "GiveCopies", "MemoryCacheDataset"]


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
