# SPDX-License-Identifier: Apache-2.0
"""MR: non-uniform intensities, corrected (N4, through SimpleITK) or simulated, and outliers, clipped at percentiles."""

from __future__ import annotations

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.transforms import RandBiasField, RandBiasFieldd, Transform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_numpy, convert_to_tensor
from torch import Tensor

from ._dictionary import MapArrayd

__all__ = [
    "ClipPercentiles",
    "ClipPercentilesd",
    "N4BiasFieldCorrection",
    "N4BiasFieldCorrectiond",
    "RandNonuniformity",
    "RandNonuniformityd",
]

# Voxels that shrinking leaves along an axis: on 10 the finest of four levels fits noise, and shading gets worse.
_MIN_SIZE = 32


class N4BiasFieldCorrection(Transform):
    """Divide an MR image by the smooth field that N4 finds in it.

    The field is estimated on a shrunken image within Otsu's foreground and evaluated at full resolution. Each channel
    has its own. SimpleITK computes on the CPU: a tensor on another device goes there and comes back. Meant for the
    deterministic part of a pipeline, where it is cached; it takes seconds. A constant channel is returned as it is, and
    an axis of one voxel is left out, so that a volume of one slice is corrected as an image.

    References:
        N. J. Tustison, B. B. Avants, P. A. Cook, Y. Zheng, A. Egan, P. A. Yushkevich and J. C. Gee, N4ITK: Improved N3
        Bias Correction, IEEE Transactions on Medical Imaging, 2010.

    Args:
        shrink_factor: of the image that the field is estimated on, at least 1; smaller along axes with few voxels.
        iterations: at most, on each level; every level halves the spline's spacing. Images of less than about 20 voxels
            want fewer levels.

    Raises:
        ValueError: when an argument is out of range, or the image has less than two axes of more than one voxel.

    Example:
        >>> ramp = torch.linspace(1, 2, 32).view(1, 32, 1)
        >>> disc = 1.0 + (torch.linspace(-1, 1, 32).square() < 0.5).float()
        >>> field = ramp * disc * disc.view(32, 1)
        >>> N4BiasFieldCorrection(shrink_factor=1)(field).shape
        torch.Size([1, 32, 32])
    """

    backend = (TransformBackends.NUMPY,)

    def __init__(self, shrink_factor: int = 4, iterations: tuple[int, ...] = (50, 50, 50, 50)) -> None:
        if shrink_factor < 1:
            raise ValueError(f"shrink_factor is {shrink_factor}; expected at least 1.")
        if not iterations or min(iterations) < 1:
            raise ValueError(f"iterations is {iterations}; expected a number of at least 1 for each level.")
        self.shrink_factor = shrink_factor
        self.iterations = tuple(iterations)

    def _correct(self, channel: np.ndarray, spacing: list[float]) -> np.ndarray:
        if channel.min() == channel.max():
            return channel
        import SimpleITK as sitk  # takes longer to import than the rest of the package, which mostly goes without N4

        image = sitk.GetImageFromArray(channel)
        image.SetSpacing(spacing[::-1])
        mask = sitk.OtsuThreshold(image, 0, 1, 200)
        shrink = [max(1, min(self.shrink_factor, size // _MIN_SIZE)) for size in image.GetSize()]
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations(self.iterations)
        n4.Execute(sitk.Shrink(image, shrink), sitk.Shrink(mask, shrink))
        return channel / np.exp(sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)))

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        """Correct an image (C, H, W) or (C, H, W, D); the result is float32."""
        image: Tensor = convert_to_tensor(img, track_meta=get_track_meta())
        array = convert_to_numpy(image).astype(np.float32)
        axes = [axis for axis in range(1, array.ndim) if array.shape[axis] > 1]
        if len(axes) < 2:
            raise ValueError(f"The image has shape {array.shape}; N4 needs two axes of more than one voxel.")
        pixdim = image.pixdim if isinstance(image, MetaTensor) else torch.ones(array.ndim - 1)
        spacing = [float(pixdim[axis - 1]) for axis in axes]
        planes = array.reshape(len(array), *(array.shape[axis] for axis in axes))
        corrected = np.stack([self._correct(plane, spacing) for plane in planes]).reshape(array.shape)
        return convert_to_dst_type(corrected, image, dtype=torch.float32)[0]


class N4BiasFieldCorrectiond(MapArrayd):
    """Dictionary version of :class:`N4BiasFieldCorrection`.

    Args:
        keys: of the images.
        shrink_factor: as there.
        iterations: as there.
        allow_missing_keys: pass over keys that are not there.

    Example:
        >>> flat = torch.full((1, 16, 16, 8), 100.0)
        >>> N4BiasFieldCorrectiond("image", shrink_factor=2)({"image": flat})["image"].shape
        torch.Size([1, 16, 16, 8])
    """

    backend = N4BiasFieldCorrection.backend

    def __init__(
        self,
        keys: KeysCollection,
        shrink_factor: int = 4,
        iterations: tuple[int, ...] = (50, 50, 50, 50),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, N4BiasFieldCorrection(shrink_factor, iterations), allow_missing_keys)


class RandNonuniformity(RandBiasField):
    """MONAI's RandBiasField for images that are z-scored already, on the image's device.

    A coil multiplies intensities, which are not negative. So the image is taken from its smallest value up: with the
    field b, x becomes (x - min) b + min. Voxels of exactly 0, the background of a z-score over the foreground, stay.

    Args:
        degree: as in RandBiasField, like the others.
        coeff_range: of the coefficients of the Legendre polynomials in log b.
        dtype: of the result.
        prob: probability of applying it.
    """

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> Tensor:
        """Multiply an image (C, H, W) or (C, H, W, D)."""
        image: Tensor = convert_to_tensor(img, track_meta=get_track_meta())
        if randomize:
            self.randomize(image.shape[1:])
        if not self._do_transform:
            return image
        log_field = self._generate_random_field(image.shape[1:], self.degree, self._coeff)
        field = torch.as_tensor(np.exp(log_field), dtype=torch.float32, device=image.device)
        low = image.min()
        shaded = torch.where(image == 0, image, (image - low) * field + low)
        return convert_to_dst_type(shaded, image, dtype=self.dtype)[0]


class RandNonuniformityd(RandBiasFieldd):
    """Dictionary version of :class:`RandNonuniformity`, with the arguments of MONAI's RandBiasFieldd.

    Example:
        >>> transform = RandNonuniformityd("image", prob=1.0).set_random_state(0)
        >>> transform({"image": torch.ones(1, 8, 8)})["image"].shape
        torch.Size([1, 8, 8])
    """

    def __init__(
        self,
        keys: KeysCollection,
        degree: int = 3,
        coeff_range: tuple[float, float] = (-0.1, 0.1),
        prob: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, degree, coeff_range, prob=prob, allow_missing_keys=allow_missing_keys)
        self.rand_bias_field = RandNonuniformity(degree, coeff_range, prob=1.0)


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

    Example:
        >>> ClipPercentilesd("image", 0, 50)({"image": torch.arange(5.0)[None]})["image"].max().item()
        2.5
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
