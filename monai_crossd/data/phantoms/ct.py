# SPDX-License-Identifier: Apache-2.0
"""How CT sees a phantom: Hounsfield units, thick slices, the blur of the reconstruction and its grainy noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .shapes import Anatomy, Points, blur, paint

__all__ = ["HOUNSFIELD", "acquire_ct"]

HOUNSFIELD = {"air": -1000.0, "fat": -100.0, "muscle": 50.0, "lung": -850.0, "bone": 400.0, "liver": 65.0}
CONTRAST = (70.0, 110.0)  # of vessels and lesion above the liver, HU: drawn per subject
NOISE = (8.0, 16.0)  # standard deviation, HU: drawn per subject
POINT_SPREAD = 0.5  # standard deviation within the slice, voxels
LOWEST = -1024


def _noise(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Noise of unit variance without low frequencies, as filtered back-projection leaves it; slices are independent."""
    white = generator.standard_normal(shape, dtype=np.float32)
    grain = blur(white, (0.5, 0.5, 0)) - blur(white, (1.5, 1.5, 0))
    return grain / grain.std()


def acquire_ct(
    anatomy: Anatomy, points: Points, spacing: Sequence[float], slices: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns HU (int16) and label map (uint8), both (X, Y, Z).

    Args:
        anatomy: what is there.
        points: of the grid, with an odd number of points through each slice.
        spacing: of the voxels in mm.
        slices: number of slices.
        generator: of contrast and noise.
    """
    liver = HOUNSFIELD["liver"] + generator.uniform(-8, 8)
    table = HOUNSFIELD | {"liver": liver, "core": liver, "focus": liver + generator.uniform(*CONTRAST)}
    label, (fine,) = paint(anatomy, points, float(np.mean(spacing[:2])), table)
    per_slice = label.shape[2] // slices
    value = fine.reshape(*fine.shape[:2], slices, per_slice).mean(-1)
    value = blur(value, (POINT_SPREAD, POINT_SPREAD, 0))
    value += generator.uniform(*NOISE) * _noise(value.shape, generator)
    return np.rint(np.maximum(value, LOWEST)).astype(np.int16), label[:, :, per_slice // 2 :: per_slice]
