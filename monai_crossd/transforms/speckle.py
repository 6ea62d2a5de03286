# SPDX-License-Identifier: Apache-2.0
"""Speckle of ultrasound, in the linear domain."""

from __future__ import annotations

import math
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import RandomizableTransform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from ._dictionary import RandMapArrayd
from .log_compression import add_decibels, check_dynamic_range

__all__ = ["RandSpeckle", "RandSpeckled"]


class RandSpeckle(RandomizableTransform):
    """Multiply the amplitude of each pixel of a log-compressed image (-1 ... 1) by speckle.

    The factor is the root of the summed power of L complex Gaussian variates, divided by its expectation: a Nakagami
    variate of mean 1 and variance L (Gamma(L) / Gamma(L + 1/2))^2 - 1. L = 1 is fully developed (Rayleigh) speckle with
    a variance of 4/pi - 1; more looks (compounding) are milder. Pixels are independent. Images have speckle already, so
    that the default adds about 1 to 2 dB.

    References:
        C. B. Burckhardt, Speckle in Ultrasound B-Mode Scans, IEEE Transactions on Sonics and Ultrasonics, 1978.
        P. M. Shankar, A General Statistical Model for Ultrasonic Backscattering from Tissues, IEEE Transactions on
        Ultrasonics, Ferroelectrics, and Frequency Control, 2000.

    Args:
        looks: smallest and largest L, at least 1; each image draws one.
        dynamic_range: of the compression, in dB.
        prob: probability of applying it.

    Raises:
        ValueError: when `looks` or `dynamic_range` is out of range.

    Example:
        >>> speckle = RandSpeckle(prob=1.0).set_random_state(0)
        >>> bool(speckle(torch.zeros(1, 64, 64)).std() > 0.03)
        True
    """

    backend = (TransformBackends.TORCH,)

    def __init__(self, looks: tuple[int, int] = (4, 16), dynamic_range: float = 60.0, prob: float = 0.1) -> None:
        super().__init__(prob)
        if len(looks) != 2 or not 1 <= looks[0] <= looks[1] or any(int(look) != look for look in looks):
            raise ValueError(f"looks is {looks}; expected two whole numbers of at least 1, in rising order.")
        self.looks = (int(looks[0]), int(looks[1]))
        self.dynamic_range = check_dynamic_range(dynamic_range)
        self._looks = self.looks[0]
        self._seed = 0

    def randomize(self, data: Any = None) -> None:
        """Draw the number of looks, and the seed of the noise, which is made on the image's device."""
        super().randomize(None)
        if self._do_transform:
            self._looks = int(self.R.randint(self.looks[0], self.looks[1] + 1))
            self._seed = int(self.R.randint(2**31 - 1))

    def factor(self, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
        """The speckle of the last draw, of mean 1."""
        generator = torch.Generator(device).manual_seed(self._seed)
        power = torch.zeros(shape, device=device)
        noise = torch.empty(shape, device=device)
        for _ in range(2 * self._looks):  # real and imaginary part of each look
            noise.normal_(generator=generator)
            power.addcmul_(noise, noise, value=0.5)
        return power.sqrt_() * math.exp(math.lgamma(self._looks) - math.lgamma(self._looks + 0.5))

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> Tensor:
        """Add speckle to an image of any shape."""
        image: Tensor = convert_to_tensor(img, track_meta=get_track_meta())
        if randomize:
            self.randomize()
        if not self._do_transform:
            return image
        return add_decibels(image, 20 * self.factor(tuple(image.shape), image.device).log10(), self.dynamic_range)


class RandSpeckled(RandMapArrayd):
    """Dictionary version of :class:`RandSpeckle`.

    Args:
        keys: of the images.
        looks: as there.
        dynamic_range: as there.
        prob: probability of applying it.
        allow_missing_keys: pass over keys that are not there.
    """

    backend = RandSpeckle.backend

    def __init__(
        self,
        keys: KeysCollection,
        looks: tuple[int, int] = (4, 16),
        dynamic_range: float = 60.0,
        prob: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandSpeckle(looks, dynamic_range, prob=1.0), prob, allow_missing_keys)
