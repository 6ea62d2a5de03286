# SPDX-License-Identifier: Apache-2.0
"""What every image needs before its intensities are looked at: finite voxels, and the channels of the network."""

from __future__ import annotations

import math
import warnings

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from ._dictionary import MapArrayd, file_name

__all__ = ["EnsureChannels", "EnsureChannelsd", "ReplaceNonFinite", "ReplaceNonFinited"]


class ReplaceNonFinite(Transform):
    """Replace NaN and infinite voxels, with a warning that counts them.

    They stand for "not measured" (outside the field of view, division by zero in a parametric map) or for overflow. NaN
    and -Inf become the smallest finite value of the image, which is its background in CT, MR and ultrasound; +Inf
    becomes the largest one. No neighbours are consulted: whole regions may be missing. Other images, and integers, are
    returned as they are.

    Args:
        fill: put this number in the place of all of them instead.

    Raises:
        ValueError: when the image has no voxel or no finite one, with its file.

    Example:
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     ReplaceNonFinite()(torch.tensor([[float("nan"), -2.0, 5.0, float("inf")]])).tolist()
        [[-2.0, -2.0, 5.0, 5.0]]
    """

    backend = (TransformBackends.TORCH,)

    def __init__(self, fill: float | None = None) -> None:
        if fill is not None and not math.isfinite(fill):
            raise ValueError(f"fill is {fill}; expected a finite number.")
        self.fill = fill

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        """Repair an image of any shape."""
        image: Tensor = convert_to_tensor(img, track_meta=get_track_meta())
        if image.numel() == 0:
            raise ValueError(
                f"{file_name(image)} has no voxels: its shape is {tuple(image.shape)}. Check the crop or file."
            )
        finite = torch.isfinite(image)
        if bool(finite.all()):
            return image
        if not bool(finite.any()):
            raise ValueError(f"{file_name(image)} has only NaN or infinite voxels: remove it from the data set.")
        warnings.warn(
            f"{file_name(image)} has {int((~finite).sum())} NaN or infinite voxels of {image.numel()}; they are "
            "replaced.",
            stacklevel=2,
        )
        if self.fill is not None:
            return image.nan_to_num(self.fill, self.fill, self.fill)
        values = image[finite]
        low, high = float(values.min()), float(values.max())
        return image.nan_to_num(low, posinf=high, neginf=low)


class ReplaceNonFinited(MapArrayd):
    """Dictionary version of :class:`ReplaceNonFinite`.

    Args:
        keys: of the images.
        fill: as there.
        allow_missing_keys: pass over keys that are not there.

    Example:
        >>> image = torch.tensor([[float("nan"), 0.5, 1.0]])
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # it says how many there were
        ...     ReplaceNonFinited("image")({"image": image})["image"].tolist()
        [[0.5, 0.5, 1.0]]
    """

    backend = ReplaceNonFinite.backend

    def __init__(self, keys: KeysCollection, fill: float | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, ReplaceNonFinite(fill), allow_missing_keys)


# luma of ITU-R BT.601, of standard television and JPEG: what PIL's convert("L") uses too
_LUMA = (0.299, 0.587, 0.114)


class EnsureChannels(Transform):
    """Give an image the number of channels that a network reads.

    Three channels become one by their luminance 0.299 R + 0.587 G + 0.114 B (float32), one becomes three by repetition
    (grey as RGB), and the right number stays as it is.

    Args:
        channels: of the result, at least 1.

    Raises:
        ValueError: when the channels of an image cannot be brought to that number.

    Example:
        >>> EnsureChannels(1)(torch.full((3, 4, 4), 7, dtype=torch.uint8)).shape
        torch.Size([1, 4, 4])
        >>> EnsureChannels(3)(torch.zeros(1, 4, 4)).shape
        torch.Size([3, 4, 4])
    """

    backend = (TransformBackends.TORCH,)

    def __init__(self, channels: int) -> None:
        if channels < 1:
            raise ValueError(f"channels is {channels}; expected at least 1.")
        self.channels = channels

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        """Adapt an image (C, ...)."""
        image: Tensor = convert_to_tensor(img, track_meta=get_track_meta())
        found = image.shape[0]
        if found == self.channels:
            return image
        if (found, self.channels) == (1, 3):
            return image.repeat_interleave(self.channels, 0)
        if (found, self.channels) == (3, 1):
            luma = torch.tensor(_LUMA, device=image.device).view(-1, *[1] * (image.dim() - 1))
            return (image.float() * luma).sum(0, keepdim=True)
        other = {1: " or of 3 (RGB)", 3: " or of 1 (grey)"}.get(self.channels, "")
        name = file_name(image).replace("the image", "The image")
        raise ValueError(
            f"{name} has {found} channels (shape {tuple(image.shape)}); {self.channels} can be made of "
            f"{self.channels}{other}. Set channels to {found} (in_channels of a bundle), or convert the files."
        )


class EnsureChannelsd(MapArrayd):
    """Dictionary version of :class:`EnsureChannels`.

    Args:
        keys: of the images.
        channels: as there.
        allow_missing_keys: pass over keys that are not there.

    Example:
        >>> EnsureChannelsd("image", channels=3)({"image": torch.zeros(1, 4, 4)})["image"].shape
        torch.Size([3, 4, 4])
    """

    backend = EnsureChannels.backend

    def __init__(self, keys: KeysCollection, channels: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, EnsureChannels(channels), allow_missing_keys)
