# SPDX-License-Identifier: Apache-2.0
"""Label maps read as the training reads them, the classes that they hold, and weights for small structures."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from monai.transforms import LoadImage
from torch import Tensor

from ..transforms.labels import WHITE, RoundLabels
from .simpleitk import SimpleITKReader

__all__ = ["class_weights", "count_labels", "is_dense", "number_labels", "tell_of_binary"]

logger = logging.getLogger(__name__)


def count_labels(path: str, num_classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Reads a label map and counts its voxels, as the numbers that are in the file.

    Args:
        path: of the file.
        num_classes: as in :class:`~monai_crossd.transforms.RoundLabels`, for the check alone.

    Returns:
        The labels, int64 in rising order, and their numbers of voxels.

    Raises:
        ValueError: When it cannot be read, or its values are no labels; see ``RoundLabels``.
    """
    image = LoadImage(reader=SimpleITKReader, image_only=True, ensure_channel_first=True)(path)
    RoundLabels(num_classes)(image)
    return torch.unique(torch.as_tensor(image).round().long(), return_counts=True)


def tell_of_binary(place: object) -> None:
    """The word about a mask of 0 and 255."""
    logger.warning("%s: the label maps hold 0 and 255; 255 is read as label 1.", place)


def is_dense(numbers: set[int]) -> bool:
    """Whether numbers are those of classes: 0 is there, and at least half of 1 to the highest."""
    return 0 in numbers and (len(numbers) == 1 or 2 * (len(numbers) - 1) >= max(numbers))


def number_labels(found: dict[int, str], place: object) -> dict[int, str]:
    """Names the labels of maps by their numbers.

    Args:
        found: a file that holds it, by label.
        place: the data set, for messages.

    Returns:
        Names of 0 to the highest number.

    Raises:
        ValueError: When more than half of the numbers up to the highest are missing, classes without a voxel.
    """
    numbers = sorted(number for number in found if number)
    if numbers == [WHITE]:
        tell_of_binary(place)
        numbers = [1]
    if not numbers:
        logger.warning("%s: no label map holds a label other than 0; there is nothing to segment.", place)
    highest = max(numbers, default=0)
    if missing := [number for number in range(1, highest) if number not in found]:
        words = f"{place}: the label maps hold the labels {numbers[:20]}, and not {missing[:5]}"
        if not is_dense({0, *numbers}):
            raise ValueError(
                f"{words}, ...: {highest + 1} classes, most without a voxel ({found[highest]} holds {highest}). "
                'Renumber them 1, 2, 3, ..., or name all in dataset.json: "labels": {"0": "background", "1": ...}.'
            )
        logger.warning("%s, which become classes without a voxel.", words)
    return {0: "background", **{number: f"label {number}" for number in range(1, highest + 1)}}


def class_weights(items: Sequence[dict], num_classes: int, power: float = 0.5) -> torch.Tensor:
    """Weight per class for a loss, from the voxel counts n of the label maps: (median(n) / n) ** power.

    Args:
        items: with the path of a label map under "label".
        num_classes: with the background.
        power: 1 is inverse frequency, 0 no weighting.

    Returns:
        (num_classes,), float32; a class that no map holds gets the weight 0.

    Raises:
        ValueError: When a label map holds a number that is no class, or none holds anything but background.

    Example:
        >>> import nibabel
        >>> import numpy as np
        >>> from tempfile import TemporaryDirectory
        >>> voxels = np.array([[[0, 0, 0, 0], [0, 0, 0, 1]]], np.uint8)
        >>> with TemporaryDirectory() as folder:
        ...     nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), f"{folder}/label.nii.gz")
        ...     class_weights([{"label": f"{folder}/label.nii.gz"}], num_classes=2, power=1)
        tensor([0.5714, 4.0000])
    """
    counts = torch.zeros(num_classes, dtype=torch.float64)
    binary = False
    for item in items:
        numbers, voxels = count_labels(item["label"], num_classes)
        binary |= num_classes == 2 and int(numbers[-1]) == WHITE
        counts[numbers.clamp(max=1) if num_classes == 2 else numbers] += voxels
    if binary:
        tell_of_binary(items[0]["label"])
    if items and not counts[1:].any():
        raise ValueError(
            f"None of {len(items)} label maps holds a label other than 0 ({items[0]['label']}, ...): there is "
            "nothing to learn. Correct the files or the pairing."
        )
    present = counts > 0
    weights = torch.zeros(num_classes)
    weights[present] = ((counts[present].quantile(0.5) / counts[present]) ** power).float()
    return weights
