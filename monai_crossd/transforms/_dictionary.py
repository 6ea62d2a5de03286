# SPDX-License-Identifier: Apache-2.0
"""What the dictionary versions of this package's array transforms share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import ImageMetaKey, convert_to_tensor


def file_name(img: NdarrayOrTensor) -> str:
    """File that an image comes from, for messages."""
    return str(img.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "the image")) if isinstance(img, MetaTensor) else "the image"


class MapArrayd(MapTransform):
    """Base: applies an array transform to the image of each key.

    Args:
        keys: of the images.
        transform: takes an image (C, ...) and returns it.
        allow_missing_keys: pass over keys that are not there.
    """

    def __init__(self, keys: KeysCollection, transform: Callable, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = transform

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Transform the image of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key])
        return d


class RandMapArrayd(RandomizableTransform, MapTransform):
    """Base: applies a random array transform to the image of each key, all with the same random numbers.

    Args:
        keys: of the images.
        transform: a RandomizableTransform of probability 1.
        prob: probability of applying it.
        allow_missing_keys: pass over keys that are not there.
    """

    def __init__(
        self, keys: KeysCollection, transform: Any, prob: float = 0.1, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.transform = transform

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandMapArrayd:
        """Seed this transform and the array transform, as MONAI's dictionary transforms do."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Draw once and transform the image of each key."""
        d = dict(data)
        self.randomize(None)
        if self._do_transform:
            self.transform.randomize()
        for key in self.key_iterator(d):
            image = convert_to_tensor(d[key], track_meta=get_track_meta())
            d[key] = self.transform(image, randomize=False) if self._do_transform else image
        return d
