# SPDX-License-Identifier: Apache-2.0
"""Log compression of ultrasound.

A B-mode image shows 20 log10 of the echo's amplitude. With -1 the bottom of the displayed dynamic range of R dB and 1
its top, x = 1 + 2/R 20 log10(amplitude / top), so a factor on the amplitude is a term on x. The bottom itself (no echo,
outside of the sector) stands for amplitude 0 and stays.
"""

from __future__ import annotations

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from ._dictionary import MapArrayd

__all__ = ["LogCompress", "LogCompressd", "add_decibels", "check_dynamic_range"]


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
    """

    backend = LogCompress.backend

    def __init__(self, keys: KeysCollection, dynamic_range: float = 60.0, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, LogCompress(dynamic_range), allow_missing_keys)
