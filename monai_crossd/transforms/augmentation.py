# SPDX-License-Identifier: Apache-2.0
"""Random changes that a network should not mind, by modality."""

from __future__ import annotations

from collections.abc import Sequence

from monai.config import KeysCollection
from monai.transforms import (
    MapTransform,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGibbsNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from monai.utils import ensure_tuple

from .._options import look_up_option
from .mr import RandNonuniformityd
from .ultrasound import RandDepthGaind, RandSpeckled

__all__ = ["augmentation_transforms", "noise_transforms"]


def noise_transforms(modality: str, keys: KeysCollection = "image") -> list[MapTransform]:
    """Random changes of a modality's intensities, as a list to be joined with others in one Compose.

    CT and X-ray get a factor, an offset and noise; MR a bias field, a gamma, Gibbs ringing and noise; ultrasound
    speckle and a gain along the depth (spatial axis 1). They expect intensities from :func:`intensity_transforms`.

    Args:
        modality: "ct", "mr", "us" or "xray".
        keys: of the images.

    Returns:
        MONAI dictionary transforms.

    Raises:
        ValueError: If the modality is unknown.

    Example:
        >>> [type(transform).__name__ for transform in noise_transforms("us")]
        ['RandSpeckled', 'RandDepthGaind']
    """
    look_up_option(modality, ("ct", "mr", "us", "xray"))
    if modality in ("ct", "xray"):
        return [
            RandScaleIntensityd(keys, factors=0.15, prob=0.5),
            RandShiftIntensityd(keys, offsets=0.1, prob=0.5),
            RandGaussianNoised(keys, std=0.05, prob=0.3),
        ]
    if modality == "mr":
        return [
            RandNonuniformityd(keys, coeff_range=(-0.1, 0.1), prob=0.3),
            RandAdjustContrastd(keys, gamma=(0.7, 1.5), prob=0.3),
            RandGibbsNoised(keys, alpha=(0.0, 0.4), prob=0.1),
            # above the noise floor Rician noise is Gaussian, and a z-score has lost the zero of the magnitude
            RandGaussianNoised(keys, std=0.1, prob=0.3),
        ]
    return [RandSpeckled(keys, prob=0.5), RandDepthGaind(keys, prob=0.5)]


def augmentation_transforms(
    modality: str,
    spatial_dims: int,
    keys: KeysCollection = "image",
    label_keys: KeysCollection = "label",
    flip_axes: Sequence[int] | None = None,
    rotation: float = 0.2,
    scaling: float = 0.15,
    depth_axis: int | None = -1,
) -> list[MapTransform]:
    """Random transforms of a modality, as a list to be joined with others in one Compose.

    Flips and affine maps move images and label maps alike, labels by the nearest neighbour. After them images, not
    labels, get what :func:`noise_transforms` gives.

    Args:
        modality: "ct", "mr", "us" or "xray".
        spatial_dims: 2 or 3.
        keys: of images and label maps; a class number is not among them.
        label_keys: those of `keys` that are label maps; others are ignored.
        flip_axes: spatial axes to flip with probability 1/2 each. None flips ultrasound along axis 0, across the beam,
            and nothing else: CT, MR and X-ray show on which side the heart is.
        rotation: largest angle, in radians.
        scaling: largest relative change of size.
        depth_axis: the axis through the slices of a volume, kept as it is: rotation and scaling happen within the
            slices. Voxels of thick slices are not cubes, and a rotation of the voxel grid across them would shear the
            anatomy. None rotates and scales about all axes, for nearly cubic voxels. 2D ignores the default and takes
            no other.

    Returns:
        MONAI dictionary transforms.

    Raises:
        ValueError: when an argument is unknown or out of range.

    Example:
        >>> [type(t).__name__ for t in augmentation_transforms("us", 2)]
        ['RandFlipd', 'RandAffined', 'RandSpeckled', 'RandDepthGaind']
    """
    look_up_option(modality, ("ct", "mr", "us", "xray"))
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims is {spatial_dims}; expected 2 or 3.")
    axes = tuple(range(-spatial_dims, spatial_dims))
    if flip_axes is None:
        flip_axes = (0,) if modality == "us" else ()
    if any(axis not in axes for axis in flip_axes):
        raise ValueError(f"flip_axes is {flip_axes}; expected axes of {spatial_dims} dimensions.")
    if depth_axis != -1 and (spatial_dims == 2 or depth_axis not in (*axes, None)):
        raise ValueError(f"depth_axis is {depth_axis}; expected an axis of a volume or None, and nothing in 2D.")
    if rotation < 0 or not 0 <= scaling < 1:
        raise ValueError(f"rotation is {rotation}, scaling {scaling}; expected radians >= 0, and 0 <= scaling < 1.")
    moved = ensure_tuple(keys)
    images = [key for key in moved if key not in ensure_tuple(label_keys)]
    if not images:
        raise ValueError(f"keys {moved} are all label_keys; expected an image among them.")
    if spatial_dims == 2:
        angles, scales = [rotation], [scaling] * 2
    elif depth_axis is None:
        angles, scales = [rotation] * 3, [scaling] * 3
    else:
        angles, scales = [0.0] * 3, [scaling] * 3
        angles[depth_axis], scales[depth_axis] = rotation, 0.0
    return [
        *(RandFlipd(moved, prob=0.5, spatial_axis=axis) for axis in flip_axes),
        RandAffined(
            moved,
            prob=0.7,
            rotate_range=angles,
            scale_range=scales,
            mode=["bilinear" if key in images else "nearest" for key in moved],
            padding_mode="border",
        ),
        *noise_transforms(modality, images),
    ]
