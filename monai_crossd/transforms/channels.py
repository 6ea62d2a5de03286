# SPDX-License-Identifier: Apache-2.0
"""Colour images for networks of grey ones, and grey images for networks of colour ones."""

from __future__ import annotations

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from ._dictionary import MapArrayd, file_name

__all__ = ["EnsureChannels", "EnsureChannelsd"]

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
    """

    backend = EnsureChannels.backend

    def __init__(self, keys: KeysCollection, channels: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, EnsureChannels(channels), allow_missing_keys)
