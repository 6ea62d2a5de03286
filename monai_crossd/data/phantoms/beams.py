# SPDX-License-Identifier: Apache-2.0
"""The beams of an ultrasound probe: where they sample, and how their samples become pixels (scan conversion)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Beams", "make_beams"]


class Beams(NamedTuple):
    """Samples along the beams, twice as fine in depth as the image.

    Attributes:
        x: of the samples in mm, (beams, depths).
        y: of the samples in mm, (beams, depths).
        column: beam of each pixel (X, Y), in samples.
        row: depth of each pixel (X, Y), in samples.
        inside: whether a pixel is in the field of view, (X, Y).
        width: of a beam at half depth in mm.
        step: length of a sample in mm.
    """

    x: np.ndarray
    y: np.ndarray
    column: np.ndarray
    row: np.ndarray
    inside: np.ndarray
    width: float
    step: float

    def to_image(self, values: np.ndarray) -> np.ndarray:
        """Bilinear interpolation of samples (beams, depths, Z) at the pixels (X, Y, Z)."""
        column = self.column.clip(0, values.shape[0] - 1.001)
        row = self.row.clip(0, values.shape[1] - 1.001)
        i, j = column.astype(int), row.astype(int)
        u, v = ((a - b)[..., None].astype(np.float32) for a, b in ((column, i), (row, j)))
        near = values[i, j] * (1 - v) + values[i, j + 1] * v
        far = values[i + 1, j] * (1 - v) + values[i + 1, j + 1] * v
        return near * (1 - u) + far * u


def make_beams(half: Sequence[float], size: Sequence[int], fan: bool) -> Beams:
    """Lays out the beams of a curved probe (a fan) or a linear one at the upper edge of the image.

    Args:
        half: half the field of view along x and y in mm.
        size: of the image, X and Y; there are X beams.
        fan: whether the probe is curved.
    """
    lines, samples = size[0], 2 * size[1]
    x, y = ((np.arange(n) + 0.5) / n * 2 * h for n, h in zip(size[:2], half[:2], strict=True))
    across, down = (x - half[0])[:, None], y[None, :]  # of pixels; depth counts from the probe
    step = 2 * half[1] / samples
    depth = (np.arange(samples, dtype=np.float32) + 0.5)[None, :] * np.float32(step)
    beam = (np.arange(lines, dtype=np.float32) + 0.5)[:, None] / lines * 2 - 1  # -1 to 1
    if fan:
        radius = 0.6 * half[1]  # of the probe, whose middle touches the upper edge of the image
        widest = np.arctan2(half[0], radius + half[1])
        angle, distance = np.arctan2(across, down + radius), np.hypot(across, down + radius) - radius
        inside = (np.abs(angle) <= widest) & (distance >= 0) & (distance <= 2 * half[1])
        beam_x = (radius + depth) * np.sin(beam * widest)
        beam_y = (radius + depth) * np.cos(beam * widest) - radius - half[1]
        position, width = angle / widest, 2 * widest / lines * (radius + half[1])
    else:
        beam_x, beam_y = np.broadcast_arrays(beam * half[0], depth - half[1])
        position, distance = np.broadcast_arrays(across / half[0], down)
        inside = np.ones(position.shape, bool)
        width = 2 * half[0] / lines
    column, row = (position + 1) / 2 * lines - 0.5, distance / step - 0.5
    return Beams(beam_x.astype(np.float32), beam_y.astype(np.float32), column, row, inside, float(width), float(step))
