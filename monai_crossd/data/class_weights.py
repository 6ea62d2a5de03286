# SPDX-License-Identifier: Apache-2.0
"""Weights that keep small structures from drowning in large ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.transforms import LoadImage

from .sitk_reader import SimpleITKReader

__all__ = ["class_weights"]


def class_weights(items: Sequence[dict], num_classes: int, power: float = 0.5) -> torch.Tensor:
    """Weight per class for a loss, from the voxel counts n of the label maps: (median(n) / n) ** power.

    Args:
        items: with the path of a label map under "label".
        num_classes: with the background.
        power: 1 is inverse frequency, 0 no weighting.

    Returns:
        (num_classes,), float32; a class that no map holds gets the weight 0.

    Raises:
        ValueError: When a label map holds a number that is no class.
    """
    counts = np.zeros(num_classes)
    read = LoadImage(reader=SimpleITKReader, image_only=True, dtype=np.int64)
    for item in items:
        found = np.bincount(np.asarray(read(item["label"])).ravel(), minlength=num_classes)
        if len(found) > num_classes:
            raise ValueError(
                f"{item['label']} holds the label {len(found) - 1}, but there are {num_classes} classes (0 to "
                f"{num_classes - 1}): correct the file or the labels of dataset.json."
            )
        counts += found
    present = counts > 0
    weights = np.zeros(num_classes)
    weights[present] = (np.median(counts[present]) / counts[present]) ** power
    return torch.tensor(weights, dtype=torch.float32)
