# SPDX-License-Identifier: Apache-2.0
"""Ultrasound: compression of its amplitudes, speckle and gain along the beam.

A B-mode image shows 20 log10 of the echo's amplitude. With -1 the bottom of the displayed dynamic range of R dB and 1
its top, x = 1 + 2/R 20 log10(amplitude / top), so a factor on the amplitude is a term on x. The bottom itself (no echo,
outside of the sector) stands for amplitude 0 and stays.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import RandomizableTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from ._dictionary import MapArrayd, RandMapArrayd

__all__ = [
    "LogCompress",
    "LogCompressd",
    "RandDepthGain",
    "RandDepthGaind",
    "RandSpeckle",
    "RandSpeckled",
    "add_decibels",
    "check_dynamic_range",
]


def check_dynamic_range(dynamic_range: float) -> float:
    """Return a dynamic range in dB, or raise ValueError."""
    if not 0 < dynamic_range < float("inf"):
        raise ValueError(f"dynamic_range is {dynamic_range}; expected decibels above 0, 60 being usual.")
    return dynamic_range


def add_decibels(image: Tensor, decibels: Tensor, dynamic_range: float) -> Tensor:
    """Multiply the amplitudes of a compressed image (-1 ... 1) by a factor given in dB."""
    brighter = (image + decibels * (2 / dynamic_range)).clamp(-1, 1)
    return torch.where(image <= -1, image, brighter)


class LogCompress(Transform):
    """Compress the linear amplitude (envelope) of an ultrasound image to -1 ... 1.

    1 + 2/R max(20 log10(amplitude / largest), -R), with R the dynamic range; an image of zeros becomes -1.

    Args:
        dynamic_range: R in dB: what is further below the largest amplitude of the image becomes -1.

    Raises:
        ValueError: when `dynamic_range` is not positive, or an image has negative values and so is no envelope.

    Example:
        >>> [round(x, 3) for x in LogCompress(60)(torch.tensor([1000.0, 100.0, 1.0, 0.0])).tolist()]
        [1.0, 0.333, -1.0, -1.0]
    """

    backend = (TransformBackends.TORCH,)

    def __init__(self, dynamic_range: float = 60.0) -> None:
        self.dynamic_range = check_dynamic_range(dynamic_range)

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        """Compress an image of any shape."""
        image: Tensor = convert_to_tensor(img, dtype=torch.float32, track_meta=get_track_meta())
        if bool(image.min() < 0):
            raise ValueError(
                f"The smallest value is {float(image.min()):g}; amplitudes are not negative. Take the envelope of "
                "radio-frequency data first (monai.transforms.DetectEnvelope), or say log_compressed=True."
            )
        # of an image of zeros the ratio is 0 too, whose logarithm the clamp turns into the bottom
        ratio = image / image.max().clamp_min(torch.finfo(image.dtype).tiny)
        return 1 + (2 / self.dynamic_range) * (20 * ratio.log10()).clamp_min(-self.dynamic_range)


class LogCompressd(MapArrayd):
    """Dictionary version of :class:`LogCompress`.

    Args:
        keys: of the images.
        dynamic_range: as there.
        allow_missing_keys: pass over keys that are not there.

    Example:
        >>> LogCompressd("image")({"image": torch.tensor([[[1e-9, 1.0]]])})["image"].tolist()
        [[[-1.0, 1.0]]]
    """

    backend = LogCompress.backend

    def __init__(self, keys: KeysCollection, dynamic_range: float = 60.0, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, LogCompress(dynamic_range), allow_missing_keys)


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

    Example:
        >>> transform = RandSpeckled("image", prob=1.0).set_random_state(0)
        >>> transform({"image": torch.zeros(1, 8, 8)})["image"].shape
        torch.Size([1, 8, 8])
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

    Example:
        >>> transform = RandDepthGaind("image", prob=1.0).set_random_state(0)
        >>> transform({"image": torch.zeros(1, 8, 8)})["image"].shape
        torch.Size([1, 8, 8])
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
