# SPDX-License-Identifier: Apache-2.0
"""Gain of ultrasound along the depth."""

from __future__ import annotations

from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import RandomizableTransform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from ._dictionary import RandMapArrayd
from .log_compression import add_decibels, check_dynamic_range

__all__ = ["RandDepthGain", "RandDepthGaind"]


class RandDepthGain(RandomizableTransform):
    """Change gain, attenuation and time gain compensation of a log-compressed ultrasound image (-1 ... 1).

    Along the beam the image gains a + b t + c(t) dB, t from 0 to 1: a overall gain, b attenuation that is
    compensated too much or too little, c what eight sliders of a console add, joined by straight lines.

    Args:
        gain: largest |a|, in dB.
        attenuation: largest |b|, in dB over the whole depth.
        sliders: largest shift of each slider, in dB.
        beam_axis: spatial axis along the beam; 1 is down the page in pictures and cine loops as MONAI reads them.
        dynamic_range: of the compression, in dB.
        prob: probability of applying it.

    Raises:
        ValueError: when a range is negative, `dynamic_range` is not positive or the image has no such axis.

    Example:
        >>> RandDepthGain(prob=1.0).set_random_state(0)(torch.zeros(1, 32, 48)).shape
        torch.Size([1, 32, 48])
    """

    backend = (TransformBackends.TORCH,)

    def __init__(
        self,
        gain: float = 4.0,
        attenuation: float = 6.0,
        sliders: float = 2.0,
        beam_axis: int = 1,
        dynamic_range: float = 60.0,
        prob: float = 0.1,
    ) -> None:
        super().__init__(prob)
        self.ranges = (gain, attenuation, sliders)
        if min(self.ranges) < 0:
            raise ValueError(f"gain, attenuation and sliders are {self.ranges} dB; expected none below 0.")
        self.beam_axis = beam_axis
        self.dynamic_range = check_dynamic_range(dynamic_range)
        self._decibels = torch.zeros(8)

    def randomize(self, data: Any = None) -> None:
        """Draw the gain at eight depths."""
        super().randomize(None)
        if self._do_transform:
            gain, attenuation, sliders = self.ranges
            curve = self.R.uniform(-gain, gain) + self.R.uniform(-attenuation, attenuation) * torch.linspace(0, 1, 8)
            self._decibels = curve + torch.from_numpy(self.R.uniform(-sliders, sliders, 8)).float()

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> Tensor:
        """Change an image (C, H, W) or (C, H, W, D)."""
        image: Tensor = convert_to_tensor(img, track_meta=get_track_meta())
        rank = image.dim() - 1
        if not -rank <= self.beam_axis < rank:
            raise ValueError(f"beam_axis is {self.beam_axis}; the image has the shape {tuple(image.shape)}.")
        if randomize:
            self.randomize()
        if not self._do_transform:
            return image
        axis = self.beam_axis % rank + 1
        knots = self._decibels.to(image.device).view(1, 1, -1)
        curve = torch.nn.functional.interpolate(knots, size=image.shape[axis], mode="linear", align_corners=True)
        return add_decibels(image, curve.view(-1, *[1] * (rank - axis)), self.dynamic_range)


class RandDepthGaind(RandMapArrayd):
    """Dictionary version of :class:`RandDepthGain`.

    Args:
        keys: of the images.
        gain: as there, like the next four.
        attenuation: in dB.
        sliders: in dB.
        beam_axis: spatial axis.
        dynamic_range: in dB.
        prob: probability of applying it.
        allow_missing_keys: pass over keys that are not there.
    """

    backend = RandDepthGain.backend

    def __init__(
        self,
        keys: KeysCollection,
        gain: float = 4.0,
        attenuation: float = 6.0,
        sliders: float = 2.0,
        beam_axis: int = 1,
        dynamic_range: float = 60.0,
        prob: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        transform = RandDepthGain(gain, attenuation, sliders, beam_axis, dynamic_range, prob=1.0)
        super().__init__(keys, transform, prob, allow_missing_keys)
