# SPDX-License-Identifier: Apache-2.0
"""How ultrasound sees a phantom: speckle, attenuation and shadow along the beams, log compression, a field of view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .anatomy import LIVER_NAMES
from .beams import make_beams
from .shapes import Anatomy, Points, blur, paint

__all__ = ["ECHO", "acquire_us", "speckle"]

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
NOISE = -45.0  # electronic noise in dB below the liver's echoes at the probe
RESOLUTION = (1.2, 0.7, 1.6)  # standard deviation of the point spread in mm: lateral, axial, across the slices
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
    """Sum of the squared weights of :func:`~.shapes.blur`."""
    if size == 1 or sigma <= 0:
        return 1.0
    kernel = np.exp(-0.5 * (np.arange(-np.ceil(3 * sigma), np.ceil(3 * sigma) + 1) / sigma) ** 2)
    return float((kernel**2).sum() / kernel.sum() ** 2)


def acquire_us(
    anatomy: Anatomy, points: Points, spacing: Sequence[float], slices: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns grey values (uint8) and label map (uint8), both (X, Y, Z); arguments as of :func:`~.ct.acquire_ct`.

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
    sigma = [max(r / s, f) for r, s, f in zip(RESOLUTION, (beams.width, beams.step, spacing[2]), FINEST, strict=True)]
    echoes = speckle(strength, sigma, generator) * 10 ** (-(received + left_over[:, None].astype(np.float32)) / 20)
    noise = generator.standard_normal((*echoes.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    envelope = np.abs(echoes + np.float32(10 ** (NOISE / 20)) * noise)
    brightness = generator.uniform(0.55, 0.7)  # grey of the liver's mean echo, by the gain
    grey = brightness + 20 * np.log10(envelope) / DYNAMIC_RANGE
    image = beams.to_image(grey).clip(0, 1) * beams.inside[..., None]
    hidden = beams.to_image(received) > SHADOW
    label[hidden & (label != LABEL_BONE)] = LABEL_SHADOW
    label[~beams.inside] = 0
    return np.rint(255 * image).astype(np.uint8), label
