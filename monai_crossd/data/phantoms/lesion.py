# SPDX-License-Identifier: Apache-2.0
"""What decides a phantom's class: a lesion among vessels of the same tissue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .shapes import Distance, Layer, Points, Vector, spheres, tube

__all__ = ["CLASSES", "focal_layers"]

CLASSES = ("no lesion", "solid lesion", "shell lesion", "lobulated lesion")

RADIUS = (0.13, 0.18)  # of a solid lesion, of half the field of view
TUBE_RADIUS = (0.075, 0.105)
TUBE_SURPLUS = 1.35  # vessels lose tissue where they cross and where the organ ends
CORE = 0.62  # radius of a shell's core, of the shell's
LOBES = 4
LOBE_RADIUS, LOBE_OFFSET = 0.5, 0.8  # of the lesion's radius; one more such sphere is in the centre
# part of a disc and of a ball that is filled with the tissue; of the lobes by counting random points in 40 lesions
FILLED = {
    "solid lesion": (1.0, 1.0),
    "shell lesion": (1 - CORE**2, 1 - CORE**3),
    "lobulated lesion": (0.97, 0.55),
}


class _Vessel(NamedTuple):
    centre: Vector
    direction: Vector
    radius: float
    length: float


def _direction(flat: bool, generator: np.random.Generator) -> np.ndarray:
    vector = generator.standard_normal(3) * (1, 1, 0 if flat else 1)
    return vector / np.linalg.norm(vector)


def _draw_vessel(
    lower: np.ndarray, upper: np.ndarray, flat: bool, scale: float, generator: np.random.Generator
) -> _Vessel:
    """A tube with as much tissue as a solid lesion might have."""
    radius, ball = scale * generator.uniform(*TUBE_RADIUS), scale * generator.uniform(*RADIUS)
    length = TUBE_SURPLUS * (np.pi * ball**2 / (2 * radius) if flat else 4 / 3 * ball**3 / radius**2)
    return _Vessel(generator.uniform(lower, upper), _direction(flat, generator), radius, length)


def _vessel_layer(label: int, organ: Distance, vessel: _Vessel) -> Layer:
    def distance(points: Points) -> np.ndarray:
        return np.maximum(tube(points, *vessel), organ(points) + vessel.radius / 2)

    return Layer(label, "focus", distance)


def _lesion_layers(label: int, kind: str, centre: np.ndarray, radius: float, directions: np.ndarray) -> list[Layer]:
    if kind == "lobulated lesion":
        centres = centre + LOBE_OFFSET * radius * np.vstack([np.zeros(3), directions])
        return [Layer(label, "focus", lambda points: spheres(points, centres, LOBE_RADIUS * radius), rigid=True)]
    layers = [Layer(label, "focus", lambda points: spheres(points, centre[None], radius), rigid=True)]
    if kind == "shell lesion":
        layers.append(Layer(None, "core", lambda points: spheres(points, centre[None], CORE * radius), rigid=True))
    return layers


def focal_layers(
    kind: str,
    labels: tuple[int, int],
    organ: Distance,
    deform: Callable[[Points], Points],
    box: Sequence[tuple[float, float]],
    scale: float,
    generator: np.random.Generator,
) -> list[Layer]:
    """Draws one or two vessels and, in the place of one more, a lesion of the same tissue.

    A vessel and a lesion are both bright (or both dark) and, cut across, both round; a vessel goes on through the
    slices. Each holds about as much of the tissue, so that its amount says nothing about the class.

    Args:
        kind: one of :data:`CLASSES`.
        labels: of vessel and lesion.
        organ: distance to the organ that holds them.
        deform: the deformation of the anatomy.
        box: range of their centres along x, y and z in mm; a third axis of no width makes a flat picture.
        scale: half the field of view in mm.
        generator: of the draw.
    """
    lower, upper = np.transpose(box)
    flat = bool(upper[2] == lower[2])
    number = int(generator.integers(1, 3)) + (kind == CLASSES[0])
    vessels = [_draw_vessel(lower, upper, flat, scale, generator) for _ in range(number)]
    layers = [_vessel_layer(labels[0], organ, vessel) for vessel in vessels]
    if kind == CLASSES[0]:
        return layers
    filled = FILLED[kind][0] ** (-1 / 2) if flat else FILLED[kind][1] ** (-1 / 3)
    radius = scale * generator.uniform(*RADIUS) * filled
    candidates = generator.uniform(lower, upper, (64, 3))
    places = deform((candidates[:, 0], candidates[:, 1], candidates[:, 2]))
    # the lesion stays inside the organ and clear of the vessels
    clearance = np.min([-organ(places), *(tube(places, *vessel) / 1.25 for vessel in vessels)], axis=0)
    clear = np.flatnonzero(clearance > radius)
    centre = candidates[clear[0] if len(clear) else clearance.argmax()]
    directions = np.array([_direction(flat, generator) for _ in range(LOBES)])
    return layers + _lesion_layers(labels[1], kind, centre, radius, directions)
