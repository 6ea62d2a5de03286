# SPDX-License-Identifier: Apache-2.0
"""A cache on a GPU, and the loader that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from monai.data import CacheDataset, ThreadDataLoader
from monai.data.thread_buffer import buffer_iterator

__all__ = ["DeviceCacheDataset", "DeviceLoader"]


class DeviceCacheDataset(CacheDataset):
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
