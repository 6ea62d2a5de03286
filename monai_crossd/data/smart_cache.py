# SPDX-License-Identifier: Apache-2.0
"""MONAI's SmartCacheDataset, run by its loader, so that nothing else has to start, update and end it."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader, SmartCacheDataset

from .device_cache import GiveCopies
from .preparation import Preparation, PreparationError
from .skip import THREADS

__all__ = ["SmartCache", "SmartLoader"]

HELD, REPLACED = 0.5, 0.1  # parts: of the items, and of those held


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
