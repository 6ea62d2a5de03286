# SPDX-License-Identifier: Apache-2.0
"""Weights that keep small structures from drowning in large ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..transforms.label_map import WHITE
from .label_maps import count_labels, tell_of_binary

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
        ValueError: When a label map holds a number that is no class, or none holds anything but background.
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
