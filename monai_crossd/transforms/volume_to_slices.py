# SPDX-License-Identifier: Apache-2.0
"""The slices of a volume as 2D images, each with what its label map says of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import nibabel as nib
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform, MultiSampleTrait, Transform
from monai.utils import ImageMetaKey, convert_to_tensor
from torch import Tensor

from .pseudo3d import volume_affine, with_grid

__all__ = ["KeepSlices", "KeepSlicesd", "VolumeToSlices", "VolumeToSlicesd", "slice_fractions"]

_AXES = {-3: 0, -2: 1, -1: 2, 0: 0, 1: 1, 2: 2}


def _check_axis(axis: int) -> int:
    if axis not in _AXES:
        raise ValueError(f"axis is {axis}; expected a spatial axis, -3 to 2.")
    return _AXES[axis]


def _check_every(every: int) -> int:
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise ValueError(f"every is {every!r}; expected a whole number of at least 1.")
    return every


def slice_fractions(label: NdarrayOrTensor, num_classes: int, axis: int = -1) -> Tensor:
    """Part of each slice that each structure of a label map fills.

    Args:
        label: label map (1, H, W, D) of whole numbers, 0 being the background.
        num_classes: number of labels, the background among them.
        axis: spatial axis across which the slices are cut.

    Returns:
        Fractions (slices, num_classes), float32; each row sums to 1.

    Raises:
        ValueError: when the label map has several channels, or numbers that are not 0, 1, ..., num_classes - 1.

    Example:
        >>> label = torch.zeros(1, 2, 2, 3)
        >>> label[0, 0, 0, 1] = 2
        >>> slice_fractions(label, 3).tolist()
        [[1.0, 0.0, 0.0], [0.75, 0.0, 0.25], [1.0, 0.0, 0.0]]
    """
    array = convert_to_tensor(label)
    if array.ndim != 4 or array.shape[0] != 1:
        raise ValueError(f"the label map has the shape {tuple(array.shape)}; expected (1, H, W, D), so no one-hot map.")
    numbers = array[0].movedim(_check_axis(axis), 0).flatten(1)
    whole = numbers.long()
    if not torch.equal(whole.to(numbers.dtype), numbers) or whole.min() < 0 or whole.max() >= num_classes:
        raise ValueError(
            f"the label map holds numbers from {numbers.min().item():g} to {numbers.max().item():g}; expected "
            f"the whole numbers 0 to {num_classes - 1}. Correct num_classes={num_classes} or the label map."
        )
    counts = torch.zeros(len(whole), num_classes, device=whole.device)
    counts.scatter_add_(1, whole, torch.ones_like(whole, dtype=counts.dtype))
    return counts / whole.shape[1]


class VolumeToSlices(Transform, MultiSampleTrait):
    """Cut a volume (C, H, W, D) into its slices, a list of 2D images (C, ., .) in the order of the axis.

    The affine (4, 4) of a slice has the two axes left over as its first columns and the slice distance as the third
    one, so :class:`RepeatToVolume` puts a slice back where it was. Its number is in the meta as "patch_index", from
    which SaveImage makes its name.

    Args:
        axis: spatial axis across which the slices are cut; -1 is the slice axis of MONAI's volumes.
        every: distance of the slices that are cut: 1 for all, k for each k-th from the first one on.

    Raises:
        ValueError: when there is no such axis, `every` is not a whole number above 0, or the image is not (C, H, W, D).

    Example:
        >>> slices = VolumeToSlices()(torch.zeros(1, 32, 24, 16))
        >>> len(slices), slices[0].shape
        (16, torch.Size([1, 32, 24]))
    """

    def __init__(self, axis: int = -1, every: int = 1) -> None:
        self.axis = _check_axis(axis)
        self.every = _check_every(every)

    def __call__(self, img: NdarrayOrTensor) -> list[Tensor]:
        """Cut a volume (C, H, W, D)."""
        volume = convert_to_tensor(img, track_meta=get_track_meta())
        if volume.ndim != 4:
            raise ValueError(f"the volume has the shape {tuple(volume.shape)}; expected (C, H, W, D).")
        in_plane = [axis for axis in range(3) if axis != self.axis]
        affine = volume_affine(volume, None, [*in_plane, self.axis, 3])
        slices = []
        arrays = volume.as_subclass(torch.Tensor).unbind(self.axis + 1)
        for number, array in list(enumerate(arrays))[:: self.every]:
            place = affine.clone()
            place[:3, 3] += number * affine[:3, 2]
            # a copy, for a view would keep, and send to other processes, the whole volume
            image = with_grid(array.clone(memory_format=torch.contiguous_format), volume, place)
            if isinstance(image, MetaTensor):
                image.meta[ImageMetaKey.PATCH_INDEX] = number
            slices.append(image)
        return slices


class VolumeToSlicesd(MapTransform, MultiSampleTrait):
    """Cut the volumes of a dictionary into one dictionary for each slice, a list that MONAI's loaders flatten.

    Other entries are in each of them, as they are. Where a label map is named, a slice also has

    - ``<label_key>_fractions``: part of the slice that each label fills, (num_classes,);
    - ``<label_key>_present``: 1 for each label in the slice, 0 for the others, (num_classes,);
    - ``<label_key>_dominant``: the structure, background aside, that fills most of it; 0 where there is none. It is
      the class of the slice for pretraining a 2D classifier.

    Args:
        keys: of the volumes, all of the same size; the label map too, if its slices are wanted.
        label_key: of a label map (1, H, W, D).
        num_classes: number of its labels, the background among them.
        axis: spatial axis across which the slices are cut.
        every: distance of the slices that are cut: 1 for all, k for each k-th from the first one on, as people
            annotate. Only what is in them is seen, so that labels elsewhere are not needed.
        skip_empty: leave out slices without a structure. The list is empty where no slice has one.
        allow_missing_keys: pass over keys that are not there.

    Raises:
        ValueError: when the arguments do not fit together, or the volumes differ in the number of slices.

    Example:
        >>> label = torch.zeros(1, 4, 4, 3)
        >>> label[..., 1] = 2
        >>> cut = VolumeToSlicesd("image", label_key="label", num_classes=3, skip_empty=True)
        >>> [item] = cut({"image": torch.zeros(1, 4, 4, 3), "label": label})
        >>> item["image"].shape, item["label_dominant"], item["label_present"].tolist()
        (torch.Size([1, 4, 4]), 2, [0, 0, 1])
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str | None = None,
        num_classes: int | None = None,
        axis: int = -1,
        skip_empty: bool = False,
        allow_missing_keys: bool = False,
        every: int = 1,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if (label_key is None) != (num_classes is None) or (skip_empty and label_key is None):
            raise ValueError(
                f"label_key={label_key!r}, num_classes={num_classes}, skip_empty={skip_empty}: "
                "label_key and num_classes go together, and skip_empty needs them."
            )
        if num_classes is not None and num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}; expected at least 2, the background and one structure.")
        self.cut = VolumeToSlices(axis, every)
        self.label_key = label_key
        self.num_classes = num_classes
        self.skip_empty = skip_empty

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Cut the volumes of `keys`."""
        slices = {key: self.cut(data[key]) for key in self.key_iterator(data)}
        counts = {key: data[key].shape[self.cut.axis + 1] for key in slices}  # of all slices, also those left out
        found = {}
        if self.label_key is not None and self.num_classes is not None:
            found = self._describe(slice_fractions(data[self.label_key], self.num_classes, self.cut.axis))
            counts |= {key: len(values) for key, values in found.items()}
            found = {key: values[:: self.cut.every] for key, values in found.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"the volumes have different numbers of slices, {counts}: resample them to one grid.")
        # the label map itself does not go along with each slice unless it is cut
        shared = {key: value for key, value in data.items() if key not in slices and key != self.label_key}
        items = [
            {**shared, **{key: values[i] for key, values in {**slices, **found}.items()}}
            for i in range(len(next(iter({**slices, **found}.values()), [])))
        ]
        if self.skip_empty:
            items = [item for item in items if item[f"{self.label_key}_dominant"]]
        return items

    def _describe(self, fractions: Tensor) -> dict[Hashable, Any]:
        largest, dominant = fractions[:, 1:].max(dim=1)
        return {
            f"{self.label_key}_fractions": list(fractions),
            f"{self.label_key}_present": list((fractions > 0).long()),
            f"{self.label_key}_dominant": torch.where(largest > 0, dominant + 1, 0).tolist(),
        }


class KeepSlices(Transform):
    """Keep every k-th axial slice of a volume (C, H, W, D), a volume of the slices that somebody annotated.

    Slices are counted from the file's first one on, so that it comes before Orientationd, which may turn their order;
    they are cut across the axis that runs from the feet to the head, whichever of the file's that is.

    Args:
        every: distance of the slices that are kept: 1 for all, k for each k-th from the first one on.

    Raises:
        ValueError: When `every` is not a whole number above 0, or the image is not (C, H, W, D).

    Example:
        >>> KeepSlices(8)(torch.zeros(1, 32, 24, 17)).shape
        torch.Size([1, 32, 24, 3])
    """

    def __init__(self, every: int = 1) -> None:
        self.every = _check_every(every)

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        """Thin a volume (C, H, W, D)."""
        volume = convert_to_tensor(img, track_meta=get_track_meta())
        if volume.ndim != 4:
            raise ValueError(f"the volume has the shape {tuple(volume.shape)}; expected (C, H, W, D).")
        affine = volume_affine(volume, None, [0, 1, 2, 3])
        axis = nib.io_orientation(affine.numpy())[:, 0].tolist().index(2)
        affine[:, axis] *= self.every
        array = volume.as_subclass(torch.Tensor).movedim(axis + 1, 0)[:: self.every].movedim(0, axis + 1)
        return with_grid(array.clone(memory_format=torch.contiguous_format), volume, affine)


class KeepSlicesd(MapTransform):
    """Dictionary form of :class:`KeepSlices`, of an image and its label map.

    Args:
        keys: of the volumes.
        every: as there.
        allow_missing_keys: pass over keys that are not there.

    Example:
        >>> KeepSlicesd("image", every=3)({"image": torch.zeros(1, 8, 8, 10)})["image"].shape
        torch.Size([1, 8, 8, 4])
    """

    def __init__(self, keys: KeysCollection, every: int = 1, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.keep = KeepSlices(every)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Thin the volumes of `keys`."""
        return {**data, **{key: self.keep(data[key]) for key in self.key_iterator(data)}}
