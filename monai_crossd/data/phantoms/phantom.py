# SPDX-License-Identifier: Apache-2.0
"""One synthetic subject: its image, its label map and its class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from monai.utils import look_up_option

from .anatomy import LIVER_NAMES, TORSO_NAMES, liver, torso
from .ct import acquire_ct
from .lesion import CLASSES
from .mr import SEQUENCES, acquire_mr
from .us import acquire_us

__all__ = ["CLASSES", "MODALITIES", "Phantom", "make_phantom"]


class _Modality(NamedTuple):
    anatomy: Callable
    acquire: Callable
    names: tuple[str, ...]
    extent: tuple[float, float, float]  # usual field of view in mm


_TORSO_EXTENT = (360.0, 360.0, 200.0)
_MODALITIES = {
    "ct": _Modality(torso, acquire_ct, TORSO_NAMES, _TORSO_EXTENT),
    **{name: _Modality(torso, partial(acquire_mr, sequence=name), TORSO_NAMES, _TORSO_EXTENT) for name in SEQUENCES},
    "us": _Modality(liver, acquire_us, LIVER_NAMES, (120.0, 120.0, 70.0)),
}
MODALITIES = tuple(_MODALITIES)
SMALLEST = 16  # pixels along an axis of a slice: a lesion is then two or three pixels wide
MOST_POINTS = 5  # through one thick slice


class Phantom(NamedTuple):
    """A synthetic subject.

    Attributes:
        image: (X, Y, Z) or (X, Y); x to the left, y to the back (ultrasound: into depth), z to the head. CT: HU, int16;
            MR: int16; ultrasound: uint8.
        label: uint8, same shape, numbers of ``names``.
        class_number: index into :data:`CLASSES`.
        names: of the labels.
        spacing: in mm.
    """

    image: np.ndarray
    label: np.ndarray
    class_number: int
    names: tuple[str, ...]
    spacing: tuple[float, ...]


def _spacing(size: Sequence[int], extent: Sequence[float], generator: np.random.Generator) -> tuple[float, ...]:
    pixel = extent[0] / max(size[:2])
    usual = (pixel, pixel, *(extent[2] / n for n in size[2:]))
    return tuple(
        round(s * f, 4) for s, f in zip(usual, np.repeat(generator.uniform(0.9, 1.1, 2), (2, 1)), strict=False)
    )


def make_phantom(
    modality: str,
    subject: int,
    size: Sequence[int] = (64, 64, 32),
    spacing: Sequence[float] | None = None,
    seed: int = 0,
    num_classes: int = 3,
) -> Phantom:
    """Makes one synthetic subject; the same arguments give the same voxels, whatever else is made.

    The anatomy fills the field of view, so that any size shows all of it. Organs are deformed superellipsoids. What
    decides the class of a subject is its lesion, all else has the same distribution in every class:

    - 0, no lesion: vessels alone;
    - 1, solid lesion: a sphere;
    - 2, shell lesion: a sphere with a core of healthy tissue;
    - 3, lobulated lesion: five spheres grown together.

    Vessels and lesion are one tissue, and in class 0 one more vessel stands in the lesion's place with about as much of
    it. So neither mean intensity nor the amount of that tissue tells; a vessel cut across is as round as a lesion and
    differs by going on through the slices. In a phantom of one slice the vessels run within it.

    - CT: Hounsfield units, partial volume, thick slices, blur and grainy noise.
    - MR (T2-weighted ``"mr"``, T1-weighted ``"mr_t1"``): spin-echo signal, bias field, Rician noise, arbitrary scale.
    - Ultrasound: Rayleigh speckle of an anisotropic point spread, attenuation, a rib with its shadow, log compression,
      a fan or a rectangle as field of view.

    Subject i has the same torso in CT and both kinds of MR.

    Args:
        modality: ``"ct"``, ``"mr"``, ``"mr_t1"`` or ``"us"``.
        subject: number from 0; ``subject % num_classes`` is its class.
        size: (X, Y, Z), or (X, Y) for one slice; X and Y at least 16.
        spacing: of the voxels in mm, one number per axis. By default the one at which the anatomy has a human's size,
            a little different in each subject.
        seed: of the whole set.
        num_classes: 2 to 4, the first so many of :data:`CLASSES`.

    Raises:
        ValueError: When an argument is out of its range.

    Example:
        >>> phantom = make_phantom("ct", subject=4, size=(32, 32, 8))
        >>> phantom.image.shape, phantom.image.dtype, CLASSES[phantom.class_number]
        ((32, 32, 8), dtype('int16'), 'solid lesion')
        >>> phantom.names[phantom.label[0, 0, 0]], bool(phantom.image[0, 0, 0] < -900)
        ('background', True)
    """
    recipe = look_up_option(modality, _MODALITIES)
    if len(size) not in (2, 3) or min(size[:2]) < SMALLEST or size[-1] < 1:
        raise ValueError(f"size is {tuple(size)}; expected (X, Y) or (X, Y, Z) with X and Y at least {SMALLEST}.")
    if subject < 0 or seed < 0:
        raise ValueError(f"subject is {subject} and seed {seed}; expected integers from 0.")
    if not 2 <= num_classes <= len(CLASSES):
        raise ValueError(f"num_classes is {num_classes}; expected 2 to {len(CLASSES)}: {CLASSES}.")
    anatomy, focus, physics = (np.random.default_rng(s) for s in np.random.SeedSequence([seed, subject]).spawn(3))
    usual = _spacing(size, recipe.extent, anatomy)
    if spacing is None:
        spacing = usual
    if len(spacing) != len(size) or min(spacing) <= 0:
        raise ValueError(f"spacing is {tuple(spacing)}; expected {len(size)} positive numbers, in mm.")
    # one slice is as thick as a pixel is wide
    grid, step = ((*a, *b)[:3] for a, b in ((size, (1,)), (spacing, (spacing[0],))))
    half = np.array([n * s / 2 for n, s in zip(grid, step, strict=True)])
    flat = grid[2] == 1
    if flat:
        half[2] = half[0]  # of the organs that the slice is cut from
    through = 1 if flat else min(MOST_POINTS, 2 * max(0, round((step[2] / step[0] - 1) / 2)) + 1)
    counts = np.array(grid) * (1, 1, through)
    steps = np.array(step) / (1, 1, through)
    x, y, z = (((np.arange(n) + 0.5 - n / 2) * s).astype(np.float32) for n, s in zip(counts, steps, strict=True))
    points = (x[:, None, None], y[None, :, None], z[None, None, :])
    kind = CLASSES[subject % num_classes]
    scene = recipe.anatomy(half, flat, kind, anatomy, focus)
    image, label = recipe.acquire(scene, points, step, grid[2], physics)
    shape = tuple(size)
    return Phantom(image.reshape(shape), label.reshape(shape), subject % num_classes, recipe.names, tuple(spacing))
