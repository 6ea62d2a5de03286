# SPDX-License-Identifier: Apache-2.0
"""How MR sees a phantom: spin-echo contrast, a bias field, Rician noise, and a scale that means nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .shapes import Anatomy, Points, blur, paint

__all__ = ["RELAXATION", "SEQUENCES", "acquire_mr", "spin_echo"]

# proton density, T1 and T2 in ms at 1.5 T, after Stanisz et al. and de Bazelaire et al., rounded
RELAXATION = {
    "air": (0.0, 1000.0, 100.0),
    "fat": (0.9, 340.0, 60.0),
    "muscle": (0.75, 1000.0, 40.0),
    "lung": (0.15, 1200.0, 40.0),
    "bone": (0.6, 550.0, 50.0),
    "liver": (0.75, 580.0, 46.0),
    "core": (0.75, 580.0, 46.0),
    "focus": (0.85, 1100.0, 95.0),
}
# ranges of TR and TE in ms: drawn per subject
SEQUENCES = {"mr": ((2500.0, 4500.0), (65.0, 95.0)), "mr_t1": ((400.0, 600.0), (9.0, 14.0))}
NOISE = (0.008, 0.016)  # of a signal of proton density 1 in each of the two channels
BIAS = 0.35  # largest logarithm of the bias field
SCALE = (2.5, 3.5)  # log10 of a signal of 1


def spin_echo(tissue: str, repetition: float, echo: float) -> float:
    """Signal of a spin echo, PD (1 - exp(-TR/T1)) exp(-TE/T2).

    References:
        Stanisz et al., "T1, T2 relaxation and magnetization transfer in tissue at 3T", MRM 2005 (1.5 T beside 3 T).
        de Bazelaire et al., "MR imaging relaxation times of abdominal and pelvic tissues", Radiology 2004.

    >>> round(spin_echo("liver", 3000.0, 46.0), 3)
    0.274
    """
    density, t1, t2 = RELAXATION[tissue]
    return density * (1 - math.exp(-repetition / t1)) * math.exp(-echo / t2)


def _bias_field(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Smooth positive field: exp of a polynomial of second order."""
    grid = [np.linspace(-1, 1, n).reshape([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(shape)]
    linear, square = generator.uniform(-1, 1, (2, 3))
    field = sum(a * g + b * (g**2 - 1 / 3) for a, b, g in zip(linear, square, grid, strict=True))
    return np.exp(BIAS * field / np.abs(field).max())


def acquire_mr(
    anatomy: Anatomy,
    points: Points,
    spacing: Sequence[float],
    slices: int,
    generator: np.random.Generator,
    sequence: str = "mr",
) -> tuple[np.ndarray, np.ndarray]:
    """Returns signal (int16) and label map (uint8), both (X, Y, Z); arguments as of :func:`~.ct.acquire_ct`."""
    repetition, echo = (generator.uniform(*limits) for limits in SEQUENCES[sequence])
    table = {tissue: spin_echo(tissue, repetition, echo) for tissue in RELAXATION}
    label, (fine,) = paint(anatomy, points, float(np.mean(spacing[:2])), table)
    per_slice = label.shape[2] // slices
    signal = blur(fine.reshape(*fine.shape[:2], slices, per_slice).mean(-1), (0.4, 0.4, 0))
    signal = signal * _bias_field(signal.shape, generator)
    real, imaginary = generator.uniform(*NOISE) * generator.standard_normal((2, *signal.shape), dtype=np.float32)
    magnitude = np.hypot(signal + real, imaginary) * 10 ** generator.uniform(*SCALE)
    return np.rint(magnitude).astype(np.int16), label[:, :, per_slice // 2 :: per_slice]
