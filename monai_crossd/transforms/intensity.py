# SPDX-License-Identifier: Apache-2.0
"""Intensities of CT, MR and ultrasound brought to the range that a network reads, the same at each call."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, NormalizeIntensityd, ScaleIntensityRanged

from .._options import look_up_option
from .mr import ClipPercentilesd, N4BiasFieldCorrectiond
from .ultrasound import LogCompressd

__all__ = ["WINDOWS", "ct_intensity", "intensity_transforms", "mr_intensity", "us_intensity", "xray_intensity"]

# name: (level, width) in HU. The typical values of Radiopaedia's article "Windowing (CT)", the middle where it gives a
# range; "wide" is this package's: from air to dense cancellous bone.
WINDOWS: dict[str, tuple[float, float]] = {
    "abdomen": (50, 400),
    "bone": (400, 1800),
    "brain": (40, 80),
    "liver": (30, 150),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "soft_tissue": (40, 375),
    "spine": (50, 250),
    "stroke": (40, 40),
    "subdural": (75, 215),
    "temporal_bone": (600, 2800),
    "wide": (0, 2000),
}


def _check_pair(name: str, pair: Sequence[float]) -> tuple[float, float]:
    if isinstance(pair, str) or len(pair) != 2 or not -math.inf < pair[0] < pair[1] < math.inf:
        raise ValueError(f"{name} is {pair!r}; expected two finite numbers in rising order.")
    return float(pair[0]), float(pair[1])


def ct_intensity(keys: KeysCollection = "image", window: str | Sequence[float] = "wide") -> list[MapTransform]:
    """A window of Hounsfield units mapped to -1 ... 1, and clipped.

    x = 2 (HU - low) / (high - low) - 1, with low and high = level -/+ width / 2.

    Args:
        keys: of the images.
        window: a name of WINDOWS, or (low, high) in HU.

    Returns:
        MONAI dictionary transforms.

    Raises:
        ValueError: when the window is unknown or not rising.

    Example:
        >>> import torch
        >>> (transform,) = ct_intensity(window="lung")  # -1350 ... 150
        >>> transform({"image": torch.tensor([[-2000.0, -600.0, 150.0]])})["image"].tolist()
        [[-1.0, 0.0, 1.0]]
    """
    if isinstance(window, str):
        level, width = WINDOWS[look_up_option(window, list(WINDOWS))]
        window = (level - width / 2, level + width / 2)
    low, high = _check_pair("window", window)
    return [ScaleIntensityRanged(keys, low, high, -1, 1, clip=True)]


def mr_intensity(
    keys: KeysCollection = "image",
    bias_correction: bool = False,
    percentiles: Sequence[float] = (0.5, 99.5),
    nonzero: bool = True,
) -> list[MapTransform]:
    """Z-score of each channel after its outliers are clipped; optionally N4 first.

    MR intensities have no unit, so that each image is normalized by itself.

    Args:
        keys: of the images.
        bias_correction: corrects the bias field by N4 (SimpleITK on the CPU, seconds per volume).
        percentiles: lower and upper one to clip at.
        nonzero: percentiles, mean and standard deviation are those of the voxels that are not 0, and only these change:
            for images whose background is 0.

    Returns:
        MONAI dictionary transforms.

    Raises:
        ValueError: when the percentiles are not in order within 0 to 100.
    """
    lower, upper = _check_pair("percentiles", percentiles)
    correction: list[MapTransform] = [N4BiasFieldCorrectiond(keys)] if bias_correction else []
    return [
        *correction,
        ClipPercentilesd(keys, lower, upper, nonzero),
        NormalizeIntensityd(keys, nonzero=nonzero, channel_wise=True),
    ]


def us_intensity(
    keys: KeysCollection = "image",
    log_compressed: bool = True,
    value_range: Sequence[float] | None = None,
    dynamic_range: float | None = None,
) -> list[MapTransform]:
    """Ultrasound brought to -1 (no echo) ... 1, on a scale of decibels.

    Args:
        keys: of the images.
        log_compressed: True for pictures as a scanner shows and stores them; False for linear envelope data.
        value_range: (black, white) of pictures, (0, 255) by default: give (0, 65535) for 16 bits. Kept from the file's
            dtype, not from each image, so that dark images stay dark.
        dynamic_range: of envelope data, in dB below the largest value of the image; 60 by default.

    Returns:
        MONAI dictionary transforms.

    Raises:
        ValueError: when a range is not positive, or belongs to the other kind of data.
    """
    if log_compressed:
        if dynamic_range is not None:
            raise ValueError(f"dynamic_range={dynamic_range} is for envelope data: set log_compressed=False.")
        black, white = _check_pair("value_range", (0, 255) if value_range is None else value_range)
        return [ScaleIntensityRanged(keys, black, white, -1, 1, clip=True)]
    if value_range is not None:
        raise ValueError(f"value_range={value_range} is for compressed pictures: set log_compressed=True.")
    return [LogCompressd(keys, 60.0 if dynamic_range is None else dynamic_range)]


def xray_intensity(keys: KeysCollection = "image", value_range: Sequence[float] = (0, 255)) -> list[MapTransform]:
    """A radiograph, or any grey picture as somebody has windowed it, brought to -1 (black) ... 1.

    Args:
        keys: of the images.
        value_range: (black, white); give (0, 4095) for 12 bits.

    Returns:
        MONAI dictionary transforms.

    Raises:
        ValueError: when the range is not rising.
    """
    black, white = _check_pair("value_range", value_range)
    return [ScaleIntensityRanged(keys, black, white, -1, 1, clip=True)]


PRESETS: dict[str, Callable[..., list[MapTransform]]] = {
    "ct": ct_intensity,
    "mr": mr_intensity,
    "us": us_intensity,
    "xray": xray_intensity,
}


def intensity_transforms(modality: str, keys: KeysCollection = "image", **options: Any) -> list[MapTransform]:
    """Intensity transforms of a modality, as a list to be joined with others in one Compose.

    The transforms are deterministic. A Compose within a Compose would count as random, and CacheDataset would stop
    caching before it: that is why this is a list.

    Args:
        modality: "ct" (:func:`ct_intensity`), "mr" (:func:`mr_intensity`), "us" (:func:`us_intensity`) or "xray"
            (:func:`xray_intensity`).
        keys: of the images.
        options: of that function. One that is None has its default, so that a configuration can name the options of
            every modality.

    Returns:
        MONAI dictionary transforms.

    Raises:
        ValueError: when the modality is unknown, or an option is wrong or of another modality.

    Example:
        >>> [type(t).__name__ for t in intensity_transforms("mr", window=None)]
        ['ClipPercentilesd', 'NormalizeIntensityd']
    """
    preset = PRESETS[look_up_option(modality, list(PRESETS))]
    given = {name: value for name, value in options.items() if value is not None}
    known = list(inspect.signature(preset).parameters)[1:]
    for name, value in given.items():
        if name not in known:
            raise ValueError(f'{name}={value!r} is no option of "{modality}", which has {", ".join(known)}.')
    return preset(keys, **given)
