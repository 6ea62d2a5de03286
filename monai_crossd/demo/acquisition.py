# SPDX-License-Identifier: Apache-2.0
"""How CT, MR and ultrasound see a phantom: contrast, thick slices, blur, noise, speckle and shadow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .anatomy import LIVER_NAMES, Anatomy, Points, blur, paint

__all__ = [
    "ECHO",
    "HOUNSFIELD",
    "RELAXATION",
    "SEQUENCES",
    "Beams",
    "acquire_ct",
    "acquire_mr",
    "acquire_us",
    "make_beams",
    "speckle",
    "spin_echo",
]

HOUNSFIELD = {"air": -1000.0, "fat": -100.0, "muscle": 50.0, "lung": -850.0, "bone": 400.0, "liver": 65.0}
CONTRAST = (70.0, 110.0)  # of vessels and lesion above the liver, HU: drawn per subject
CT_NOISE = (8.0, 16.0)  # standard deviation, HU: drawn per subject
POINT_SPREAD = 0.5  # standard deviation within the slice, voxels
LOWEST = -1024


def _grain(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Noise of unit variance without low frequencies, as filtered back-projection leaves it; slices are independent."""
    white = generator.standard_normal(shape, dtype=np.float32)
    noise = blur(white, (0.5, 0.5, 0)) - blur(white, (1.5, 1.5, 0))
    return noise / noise.std()


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
    value += generator.uniform(*CT_NOISE) * _grain(value.shape, generator)
    return np.rint(np.maximum(value, LOWEST)).astype(np.int16), label[:, :, per_slice // 2 :: per_slice]


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
MR_NOISE = (0.008, 0.016)  # of a signal of proton density 1 in each of the two channels
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
    """Returns signal (int16) and label map (uint8), both (X, Y, Z); arguments as of :func:`acquire_ct`."""
    repetition, echo = (generator.uniform(*limits) for limits in SEQUENCES[sequence])
    table = {tissue: spin_echo(tissue, repetition, echo) for tissue in RELAXATION}
    label, (fine,) = paint(anatomy, points, float(np.mean(spacing[:2])), table)
    per_slice = label.shape[2] // slices
    signal = blur(fine.reshape(*fine.shape[:2], slices, per_slice).mean(-1), (0.4, 0.4, 0))
    signal = signal * _bias_field(signal.shape, generator)
    real, imaginary = generator.uniform(*MR_NOISE) * generator.standard_normal((2, *signal.shape), dtype=np.float32)
    magnitude = np.hypot(signal + real, imaginary) * 10 ** generator.uniform(*SCALE)
    return np.rint(magnitude).astype(np.int16), label[:, :, per_slice // 2 :: per_slice]


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


# strength of the echoes in dB below the liver's, and attenuation in dB per cm and MHz one way
ECHO = {
    "fat": (-5.0, 0.6),
    "muscle": (-9.0, 0.9),
    "liver": (0.0, 0.5),
    "core": (0.0, 0.5),
    "kidney": (-7.0, 0.6),
    "bone": (14.0, 20.0),
    "focus": (-20.0, 0.2),
}
FREQUENCY = 3.5  # MHz
DYNAMIC_RANGE = 55.0  # dB from black to white
US_NOISE = -45.0  # electronic noise in dB below the liver's echoes at the probe
US_RESOLUTION = (1.2, 0.7, 1.6)  # standard deviation of the point spread in mm: lateral, axial, across the slices
FINEST = (0.8, 0.8, 0.5)  # and at least so many samples, else there would be no speckle
SHADOW = 20.0  # dB lost beyond what the liver would take
LABEL_BONE = LIVER_NAMES.index("bone")
LABEL_SHADOW = LIVER_NAMES.index("shadow")


def speckle(amplitude: np.ndarray, sigma: Sequence[float], generator: np.random.Generator) -> np.ndarray:
    """Echoes of many scatterers per resolution cell: complex white noise through a point spread.

    Where ``amplitude`` is constant their magnitude, the envelope, follows a Rayleigh distribution: its mean is 1.91
    times its standard deviation.

    References:
        Wagner et al., "Statistics of speckle in ultrasound B-scans", IEEE Trans. Sonics Ultrason. 1983.

    Args:
        amplitude: of the scatterers, real, any shape.
        sigma: standard deviation of the point spread along each axis, in samples.
        generator: of the scatterers.

    Returns:
        The complex echoes; their mean square is that of ``amplitude`` where it is constant.
    """
    pairs = generator.standard_normal((*amplitude.shape, 2), dtype=np.float32)
    echoes = blur(pairs.view(np.complex64)[..., 0] * amplitude.astype(np.float32), sigma)
    return echoes / np.sqrt(2 * np.prod([_energy(s, n) for s, n in zip(sigma, amplitude.shape, strict=True)]))


def _energy(sigma: float, size: int) -> float:
    """Sum of the squared weights of :func:`blur`."""
    if size == 1 or sigma <= 0:
        return 1.0
    kernel = np.exp(-0.5 * (np.arange(-np.ceil(3 * sigma), np.ceil(3 * sigma) + 1) / sigma) ** 2)
    return float((kernel**2).sum() / kernel.sum() ** 2)


def acquire_us(
    anatomy: Anatomy, points: Points, spacing: Sequence[float], slices: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns grey values (uint8) and label map (uint8), both (X, Y, Z); arguments as of :func:`acquire_ct`.

    Half the subjects are seen by a curved probe (a fan, grey 0 and label 0 outside), half by a linear one.
    """
    x, y, z = points
    size = (x.shape[0], y.shape[1], slices)
    beams = make_beams([n * s / 2 for n, s in zip(size, spacing, strict=True)], size, bool(generator.random() < 0.5))
    echo, attenuation = ({tissue: pair[k] for tissue, pair in ECHO.items()} for k in (0, 1))
    amplitude = {tissue: 10 ** (level / 20) for tissue, level in echo.items()}
    z = z[:, :, z.shape[2] // slices // 2 :: z.shape[2] // slices]  # the thickness of a slice is in the point spread
    samples = (beams.x[..., None], beams.y[..., None], z)
    _, (strength, loss) = paint(anatomy, samples, beams.width, amplitude, attenuation)
    label, _ = paint(anatomy, (x, y, z), float(np.mean(spacing[:2])))

    per_sample = 2 * FREQUENCY * beams.step / 10  # there and back, dB for a loss of 1
    excess = np.cumsum((loss - attenuation["liver"]) * per_sample, axis=1, dtype=np.float32)
    # the time gain compensation undoes the liver's attenuation, but not quite
    left_over = generator.uniform(-0.1, 0.15) * attenuation["liver"] * per_sample * np.arange(loss.shape[1])
    received = np.roll(excess, 1, axis=1)
    received[:, 0] = 0
    sigma = [
        max(r / s, f) for r, s, f in zip(US_RESOLUTION, (beams.width, beams.step, spacing[2]), FINEST, strict=True)
    ]
    echoes = speckle(strength, sigma, generator) * 10 ** (-(received + left_over[:, None].astype(np.float32)) / 20)
    noise = generator.standard_normal((*echoes.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    envelope = np.abs(echoes + np.float32(10 ** (US_NOISE / 20)) * noise)
    brightness = generator.uniform(0.55, 0.7)  # grey of the liver's mean echo, by the gain
    grey = brightness + 20 * np.log10(envelope) / DYNAMIC_RANGE
    image = beams.to_image(grey).clip(0, 1) * beams.inside[..., None]
    hidden = beams.to_image(received) > SHADOW
    label[hidden & (label != LABEL_BONE)] = LABEL_SHADOW
    label[~beams.inside] = 0
    return np.rint(255 * image).astype(np.uint8), label
