# SPDX-License-Identifier: Apache-2.0
"""What a phantom is made of: a torso for CT and MR, a liver under skin and a rib for ultrasound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .lesion import focal_layers
from .shapes import Anatomy, Layer, Points, Vector, ellipsoid, warp

__all__ = ["LIVER_NAMES", "TORSO_NAMES", "liver", "torso"]

TORSO_NAMES = ("background", "fat", "soft tissue", "right lung", "left lung", "spine", "liver", "vessel", "lesion")
LIVER_NAMES = ("background", "fat", "muscle", "liver", "kidney", "bone", "vessel", "lesion", "shadow")
DEFORMATION = 0.05  # of half the field of view


def _vary(values: Vector, spread: float, generator: np.random.Generator) -> np.ndarray:
    return np.asarray(values) * generator.uniform(1 - spread, 1 + spread, len(values))


def torso(half: np.ndarray, flat: bool, kind: str, anatomy: np.random.Generator, focus: np.random.Generator) -> Anatomy:
    """Draws an upper abdomen: x to the left, y to the back, z to the head, as in DICOM.

    Args:
        half: half the field of view along x, y and z in mm.
        flat: everything of interest lies in the plane z = 0.
        kind: what the liver holds, see :data:`~.lesion.CLASSES`.
        anatomy: generator of all but that.
        focus: generator of vessels and lesion.
    """
    deform = warp(half, DEFORMATION, anatomy)
    cylinder = (1, 1, np.inf)
    height = 0 if flat else 1  # the lungs lie higher than the liver, unless there is one slice

    def organ(centre: Vector, axes: Vector, exponent: float = 2.0) -> Callable[..., np.ndarray]:
        place = (np.asarray(centre) + anatomy.uniform(-0.03, 0.03, 3)) * half
        size = _vary(axes, 0.1, anatomy) * half
        return lambda points, grow=0.0: ellipsoid(points, place, size, exponent, grow)

    outline = organ((0, 0, 0), (0.86, 0.68, np.inf), 2.5)
    skin = anatomy.uniform(0.03, 0.1) * half[:2].min()
    right = organ((-0.40, -0.02, 0.55 * height), (0.33, 0.46, 0.9))
    left = organ((0.42, 0.0, 0.35 * height), (0.29, 0.45, 1.1))
    spine = organ((0, 0.40, 0), np.multiply((0.12, 0.14, 1), cylinder))
    aorta = organ((0.08, 0.18, 0), np.multiply((0.055, 0.055, 1), cylinder))
    # lies within the right lung's x and y, so that a recess of the lung is behind it
    centre = np.array([-0.34, -0.07, -0.35 * height]) + anatomy.uniform(-0.02, 0.02, 3)
    axes = np.array([0.41, 0.42, 0.85]) * anatomy.uniform(0.95, 1.1)

    def liver(points: Points) -> np.ndarray:
        return ellipsoid(points, centre * half, axes * half)

    reach = np.array([0.19, 0.19, 0 if flat else 0.4])
    box = [(c - r, c + r) for c, r in zip(centre * half, reach * half, strict=True)]
    if flat:
        box[2] = (0.0, 0.0)
    layers = [
        Layer(0, "air", outline),
        Layer(1, "fat", outline),
        Layer(2, "muscle", lambda points: outline(points, -skin)),
        Layer(3, "lung", right),
        Layer(4, "lung", left),
        Layer(5, "bone", spine),
        Layer(7, "focus", aorta),
        Layer(6, "liver", liver),
        *focal_layers(kind, (7, 8), liver, deform, box, half[:2].min(), focus),
    ]
    return Anatomy(layers, deform)


def liver(half: np.ndarray, flat: bool, kind: str, anatomy: np.random.Generator, focus: np.random.Generator) -> Anatomy:
    """Draws a liver as an ultrasound probe at y = -half[1] sees it: x along the probe, y into depth, z across.

    The arguments are those of :func:`torso`. A rib stands on one side, vessels and lesion on the other.
    """
    deform = warp(half, DEFORMATION, anatomy)
    side = anatomy.choice([-1, 1])
    fat, muscle = np.cumsum(anatomy.uniform([0.08, 0.06], [0.2, 0.14])) * half[1]
    rib = np.array([side * anatomy.uniform(0.5, 0.6), -0.55, 0]) * half
    rib_axes = np.multiply(_vary((0.13, 0.06, 1), 0.15, anatomy) * half, (1, 1, np.inf))
    kidney = np.array([-side * anatomy.uniform(0.1, 0.35), anatomy.uniform(0.75, 0.85), 0]) * half
    kidney_axes = _vary((0.42, 0.24, 0.9), 0.1, anatomy) * half

    def everywhere(points: Points) -> np.ndarray:
        return np.full(np.broadcast_shapes(*(p.shape for p in points)), -np.inf)

    reach = 0.0 if flat else 0.45 * half[2]
    box = [tuple(sorted((-side * 0.4 * half[0], side * 0.05 * half[0]))), (-0.3 * half[1], 0.3 * half[1])]
    layers = [
        Layer(3, "liver", everywhere),
        Layer(4, "kidney", lambda points: ellipsoid(points, kidney, kidney_axes)),
        *focal_layers(kind, (6, 7), everywhere, deform, [*box, (-reach, reach)], half[:2].min(), focus),
        Layer(2, "muscle", lambda points: points[1] + half[1] - muscle),
        Layer(1, "fat", lambda points: points[1] + half[1] - fat),
        Layer(5, "bone", lambda points: ellipsoid(points, rib, rib_axes)),
    ]
    return Anatomy(layers, deform)
