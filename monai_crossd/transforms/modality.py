# SPDX-License-Identifier: Apache-2.0
"""From the files of a modality to what a network reads, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.transforms import (
    Compose,
    EnsureTyped,
    LoadImaged,
    MapTransform,
    Orientationd,
    RandSpatialCropd,
    Resized,
    SpatialPadd,
)

from .._options import look_up_option
from .augmentation import augmentation_transforms
from .grid import CheckGridd, KeySafeSpacingd
from .intensity import intensity_transforms
from .labels import RoundLabelsd
from .voxels import EnsureChannelsd, ReplaceNonFinited

__all__ = ["load_transforms", "modality_transforms"]

READER = "monai_crossd.data.SimpleITKReader"  # by its path: transforms import no data


def _check_size(name: str, size: Sequence[float] | float, spatial_dims: int) -> tuple:
    """One number for each axis, positive or -1 (the image's own)."""
    sizes = tuple(size) if isinstance(size, Sequence) else (size,) * spatial_dims
    if len(sizes) != spatial_dims or any(s <= 0 and s != -1 for s in sizes):
        raise ValueError(f"{name} is {size}; expected {spatial_dims} numbers above 0, or -1 to keep an axis.")
    return sizes


def load_transforms(
    spatial_dims: int,
    image_key: str = "image",
    label_key: str | None = None,
    *,
    channels: int = 1,
    pixdim: Sequence[float] | float | None = None,
    spatial_size: Sequence[int] | int | None = None,
    reader: str = READER,
    device: torch.device | str | None = None,
    num_classes: int | None = None,
) -> list[MapTransform]:
    """Transforms from a file to a float32 image (C, H, W) or (C, H, W, D), as a list to be joined in one Compose.

    In this order: read, compare dimensions and grids (:class:`CheckGridd`), move to the device, replace voxels that are
    not finite, round label maps (:class:`RoundLabels`), adapt the channels, turn volumes to RAS, resample to `pixdim`,
    resize. All are deterministic.

    Args:
        spatial_dims: 2 or 3; an image of other dimensions is an error, but a volume of one slice is an image.
        image_key: of the image's path.
        label_key: of the path of a label map, which goes the same way with its nearest labels. None where there is
            none, or where the label is a class number.
        channels: of the result; colour becomes grey by its luminance, grey is repeated as colour.
        pixdim: voxel size in mm; -1 keeps that of the file. None does not resample.
        spatial_size: voxels that the whole image is resized to, by averages; -1 keeps an axis. None does not resize.
        reader: of MONAI's LoadImaged, a name or dotted path.
        device: of the images from here on. None is the CPU.
        num_classes: of the label map, with the background; labels from there on are an error. None accepts all.

    Returns:
        MONAI dictionary transforms.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> [type(transform).__name__ for transform in load_transforms(2, spatial_size=64)][:2]
        ['LoadImaged', 'CheckGridd']
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims is {spatial_dims}; expected 2 or 3.")
    keys = [image_key] if label_key is None else [image_key, label_key]
    transforms: list[MapTransform] = [
        LoadImaged(keys, reader=reader, ensure_channel_first=True),
        CheckGridd(keys, spatial_dims),
    ]
    if device is not None:
        transforms.append(EnsureTyped(keys, device=torch.device(device)))
    transforms.append(ReplaceNonFinited(image_key))
    if label_key is not None:
        transforms.append(RoundLabelsd(label_key, num_classes))
    transforms.append(EnsureChannelsd(image_key, channels))
    if spatial_dims == 3:
        transforms.append(Orientationd(keys, axcodes="RAS", labels=None))
    if pixdim is not None:
        voxel = _check_size("pixdim", pixdim, spatial_dims)
        transforms.append(KeySafeSpacingd(keys, pixdim=voxel, mode=["bilinear", "nearest"][: len(keys)]))
    if spatial_size is not None:
        size = _check_size("spatial_size", spatial_size, spatial_dims)
        transforms.append(Resized(keys, spatial_size=size, mode=["area", "nearest-exact"][: len(keys)]))
    return transforms


def modality_transforms(
    modality: str,
    spatial_dims: int,
    stage: str,
    image_key: str = "image",
    label_key: str | None = None,
    *,
    channels: int = 1,
    pixdim: Sequence[float] | float | None = None,
    spatial_size: Sequence[int] | int | None = None,
    roi_size: Sequence[int] | int | None = None,
    intensity: Mapping[str, Any] | None = None,
    augmentation: Mapping[str, Any] | None = None,
    reader: str = READER,
    device: torch.device | str | None = None,
    num_classes: int | None = None,
) -> Compose:
    """Everything from a data set's item to what the network reads.

    The deterministic part comes first (:func:`load_transforms`, :func:`intensity_transforms`), so that MONAI's cached
    data sets keep its results; "train" adds the random part (a crop of `roi_size`, :func:`augmentation_transforms`).

    Args:
        modality: "ct", "mr", "us" or "xray".
        spatial_dims: 2 or 3.
        stage: "train", "validate" or "infer"; the last needs no label and leaves one alone.
        image_key: of the image's path.
        label_key: of the path of a label map, for segmentation. None for classification: a class number stays.
        channels: as in :func:`load_transforms`, like the next two.
        pixdim: voxel size in mm.
        spatial_size: voxels that the whole image is resized to.
        roi_size: voxels of a random crop in training, of images padded by their edge where they are smaller; -1 keeps
            an axis. The other stages see whole images, for a sliding window.
        intensity: options of :func:`intensity_transforms`, such as {"window": "lung"}.
        augmentation: options of :func:`augmentation_transforms`, such as {"flip_axes": [0]}.
        reader: as in :func:`load_transforms`.
        device: as there.
        num_classes: as there.

    Returns:
        A Compose that takes {image_key: path, ...} and returns {image_key: MetaTensor, ...}.

    Raises:
        ValueError: when an argument is unknown or out of range.

    Example:
        >>> compose = modality_transforms("ct", 3, "train", label_key="label", roi_size=[64, 64, 8])
        >>> [type(t).__name__ for t in compose.transforms[:2]]
        ['LoadImaged', 'CheckGridd']
    """
    look_up_option(stage, ("train", "validate", "infer"))
    label_key = None if stage == "infer" else label_key
    keys = [image_key] if label_key is None else [image_key, label_key]
    transforms = [
        *load_transforms(
            spatial_dims,
            image_key,
            label_key,
            channels=channels,
            pixdim=pixdim,
            spatial_size=spatial_size,
            reader=reader,
            device=device,
            num_classes=num_classes,
        ),
        *intensity_transforms(modality, image_key, **(intensity or {})),
    ]
    # wrong options are refused at every stage
    random = augmentation_transforms(modality, spatial_dims, keys, keys[1:], **(augmentation or {}))
    roi = None if roi_size is None else _check_size("roi_size", roi_size, spatial_dims)
    if stage == "train":
        if roi is not None:
            transforms.append(SpatialPadd(keys, spatial_size=roi, mode="edge"))
            transforms.append(RandSpatialCropd(keys, roi_size=roi, random_size=False))
        transforms += random
    return Compose(transforms)
