# SPDX-License-Identifier: Apache-2.0
"""Label maps read as the training reads them, and the classes that they hold."""

from __future__ import annotations

import logging

import torch
from monai.transforms import LoadImage
from torch import Tensor

from ..transforms.label_map import WHITE, RoundLabels
from .sitk_reader import SimpleITKReader

__all__ = ["count_labels", "is_dense", "number_labels", "tell_of_binary"]

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
