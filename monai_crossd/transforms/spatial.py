# SPDX-License-Identifier: Apache-2.0
"""MONAI's Spacingd for dictionaries that hold more than images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.transforms import Spacingd
from monai.utils import ensure_tuple

__all__ = ["KeySafeSpacingd"]


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
