# SPDX-License-Identifier: Apache-2.0
"""Where the voxels of an image and its label map are: checked, and resampled."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor, affine_to_spacing, to_affine_nd
from monai.transforms import MapTransform, Spacingd
from monai.utils import MetaKeys, ensure_tuple

from ._dictionary import file_name

__all__ = ["CheckGridd", "KeySafeSpacingd", "has_geometry", "same_grid"]

TOLERANCE = 0.05  # voxels: headers are rounded to float32 or to a few decimals
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".npy")


def has_geometry(path: str | Path) -> bool:
    """Whether a file's format says where its voxels are; pictures and arrays do not."""
    return not str(path).lower().endswith(_PICTURES) and ".npz#" not in str(path)


def same_grid(affine: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether two affines put the corners of an image in the same places, up to a twentieth of a voxel.

    Args:
        affine: (4, 4) in mm.
        other: the same, of the other image.
        shape: spatial, of both.

    Example:
        >>> same_grid(np.eye(4), np.diag([1, 1, -1, 1]), (8, 8, 4))
        False
    """
    sizes = [*shape, 1, 1][:3]
    corners = np.array([(*corner, 1) for corner in product(*[(0, n - 1) for n in sizes])])
    affines = [to_affine_nd(3, np.asarray(a, float)) for a in (affine, other)]
    apart = np.linalg.norm((corners @ (affines[0] - affines[1]).T)[:, :3], axis=1).max()
    return bool(apart <= TOLERANCE * affine_to_spacing(affines[0]).min())


def describe_dimensions(shape: Sequence[int], spatial_dims: int) -> str:
    """The end of a message about an image of other dimensions than the network's."""
    remedy = {
        2: "Save its slices one by one, or use a 3D network",
        3: "Give the folder of a series or a file of several slices, or use a 2D network",
    }
    return (
        f"has {len(shape)} dimensions, shape {tuple(shape)}; expected {spatial_dims} (spatial_dims={spatial_dims}). "
        f"{remedy[spatial_dims]}."
    )


def describe_grids(affine: np.ndarray, other: np.ndarray) -> str:
    """The end of a message about two grids that differ."""
    rows = [np.asarray(a).round(4).tolist() for a in (affine, other)]
    return (
        f"are on other grids: their affines are {rows[0]} and {rows[1]}. Resample the label map to the image, or "
        "give it the image's header if its voxels are in the same order."
    )


class CheckGridd(MapTransform):
    """Refuse images of other dimensions than the network's, and label maps on another grid than their image.

    A volume of one slice is an image where images are asked for. A label map in a format without geometry (PNG, .npy)
    is taken for one on the image's grid, if it has its shape.

    Args:
        keys: of an image and, where there is one, its label map; channels first.
        spatial_dims: 2 or 3.

    Raises:
        ValueError: When an image has other dimensions, or a label map another shape or affine than its image.

    Example:
        >>> import torch
        >>> CheckGridd("image", 2)({"image": MetaTensor(torch.zeros(1, 8, 6, 1))})["image"].shape
        torch.Size([1, 8, 6])
    """

    def __init__(self, keys: Hashable | Sequence[Hashable], spatial_dims: int) -> None:
        super().__init__(keys)
        self.spatial_dims = spatial_dims

    def _check_dimensions(self, image: MetaTensor) -> MetaTensor:
        shape = tuple(image.shape[1:])
        if self.spatial_dims == 2 and shape[2:] == (1,):
            image = image[..., 0]
            image.spatial_ndim = 2  # MONAI 1.6 keeps that of the volume
            return image
        if len(shape) != self.spatial_dims:
            raise ValueError(f"{file_name(image)} {describe_dimensions(shape, self.spatial_dims)}")
        return image

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Check the images of an item."""
        d = dict(data)
        for key in self.keys:
            d[key] = self._check_dimensions(d[key])
        image, *labels = [d[key] for key in self.keys]
        for label in labels:
            names = f"image {file_name(image)} and label map {file_name(label)}"
            shapes = tuple(image.shape[1:]), tuple(label.shape[1:])
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"{names} have the shapes {shapes[0]} and {shapes[1]}: resample one to the grid of the other, or "
                    "correct the pairing."
                )
            if not has_geometry(file_name(label)):
                label.meta[MetaKeys.AFFINE] = image.affine.clone()
            elif not has_geometry(file_name(image)):
                image.meta[MetaKeys.AFFINE] = label.affine.clone()
            if not same_grid(image.affine.numpy(), label.affine.numpy(), shapes[0]):
                raise ValueError(f"{names} {describe_grids(image.affine.numpy(), label.affine.numpy())}")
        return d


class KeySafeSpacingd(Spacingd):
    """MONAI's Spacingd, with its arguments, in which an entry such as "image_path" may stand beside "image".

    For an image that was read from NIfTI, MONAI 1.6 updates every entry whose key starts with `image_` as if it held
    metadata, and fails on the string that MONAI Label puts there. Here it sees such entries only if they are
    dictionaries; the others come out as they went in, and so do keys that are no strings. MONAI repeats the last number
    of a pixdim that is too short; here that is an error.

    Raises:
        ValueError: If pixdim has neither one number nor one for each axis, or one that is not above 0 and not -1.

    Example:
        >>> from monai.data import MetaTensor
        >>> image = MetaTensor(torch.zeros(1, 4, 4, 4), meta={"filename_or_obj": "a.nii.gz"})
        >>> item = KeySafeSpacingd("image", pixdim=(2, 2, 2))({"image": image, "image_path": "a.nii.gz"})
        >>> item["image"].shape, item["image_path"]
        (torch.Size([1, 2, 2, 2]), 'a.nii.gz')
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        """Resample the image of each key."""
        pixdim = [float(size) for size in ensure_tuple(self.spacing_transform.pixdim)]
        for key in self.key_iterator(data):
            dims = data[key].ndim - 1
            if len(pixdim) not in (1, dims) or any(size <= 0 and size != -1 for size in pixdim):
                raise ValueError(f"pixdim is {pixdim}; expected {dims} numbers above 0, or -1 to keep an axis.")
        prefixes = tuple(f"{key}_" for key in self.keys)
        seen = {
            key: value
            for key, value in data.items()
            if key in self.keys
            or (isinstance(key, str) and (not key.startswith(prefixes) or isinstance(value, Mapping)))
        }
        done = super().__call__(seen, lazy)
        return {key: done.get(key, value) for key, value in data.items()}
