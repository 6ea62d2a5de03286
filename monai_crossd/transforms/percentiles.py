# SPDX-License-Identifier: Apache-2.0
"""Percentiles of images of any size, where the image is."""

from __future__ import annotations

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor
from torch import Tensor

from ._dictionary import MapArrayd

__all__ = ["ClipPercentiles", "ClipPercentilesd"]


def _percentiles(values: Tensor, percents: tuple[float, float]) -> list[Tensor]:
    """numpy.percentile of a vector, on its device: torch.quantile stops at 16 million values."""
    ordered = values.sort().values
    found = []
    for percent in percents:
        position = (len(ordered) - 1) * percent / 100
        below = int(position)
        above = min(below + 1, len(ordered) - 1)
        found.append(torch.lerp(ordered[below], ordered[above], position - below))
    return found


class ClipPercentiles(Transform):
    """Clip each channel of an image at two of its percentiles.

    MONAI's ClipIntensityPercentiles moves images of more than a million voxels to numpy for it, and has no foreground;
    here the work stays on the image's device, and the percentiles may be those of the voxels that are not 0.

    Args:
        lower: percentile from 0 to below `upper`.
        upper: percentile up to 100.
        nonzero: take the percentiles of the voxels that are not 0, and clip only these.

    Raises:
        ValueError: when the percentiles are not in order within 0 to 100.

    Example:
        >>> ClipPercentiles(25, 75)(torch.tensor([[0.0, 1, 2, 3, 4, 5]])).tolist()
        [[0.0, 2.0, 2.0, 3.0, 4.0, 4.0]]
    """

    backend = (TransformBackends.TORCH,)

    def __init__(self, lower: float = 0.5, upper: float = 99.5, nonzero: bool = True) -> None:
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"The percentiles are {lower} and {upper}; expected 0 <= lower < upper <= 100.")
        self.percents = (lower, upper)
        self.nonzero = nonzero

    def _clip(self, channel: Tensor) -> Tensor:
        if not self.nonzero:
            return channel.clamp(*_percentiles(channel.flatten(), self.percents))
        foreground = channel != 0
        values = channel[foreground]
        if len(values) == 0:
            return channel
        return torch.where(foreground, channel.clamp(*_percentiles(values, self.percents)), channel)

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        """Clip an image (C, ...); integers become float32."""
        image: Tensor = convert_to_tensor(img, track_meta=get_track_meta())
        plain = convert_to_tensor(image, track_meta=False)
        plain = plain if plain.is_floating_point() else plain.float()
        clipped = torch.stack([self._clip(channel) for channel in plain])
        return convert_to_dst_type(clipped, image, dtype=clipped.dtype)[0]


class ClipPercentilesd(MapArrayd):
    """Dictionary version of :class:`ClipPercentiles`.

    Args:
        keys: of the images.
        lower: as there, like the next two.
        upper: percentile.
        nonzero: of the foreground only.
        allow_missing_keys: pass over keys that are not there.
    """

    backend = ClipPercentiles.backend

    def __init__(
        self,
        keys: KeysCollection,
        lower: float = 0.5,
        upper: float = 99.5,
        nonzero: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, ClipPercentiles(lower, upper, nonzero), allow_missing_keys)
