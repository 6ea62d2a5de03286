# SPDX-License-Identifier: Apache-2.0
"""What decides a phantom's class: a lesion among vessels of the same tissue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .shapes import Distance, Layer, Points, spheres, tube

__all__ = ["CLASSES", "focal_layers"]

CLASSES = ("no lesion", "solid lesion", "shell lesion", "lobulated lesion")

LESION_RADIUS = (0.13, 0.18)  # of half the field of view
TUBE_RADIUS = (0.06, 0.09)  # a tube through the organ then holds about as much as a lesion
CORE = 0.62  # radius of a shell's core, of the shell's


def _direction(flat: bool, generator: np.random.Generator) -> np.ndarray:
    vector = generator.standard_normal(3) * (1, 1, 0 if flat else 1)
    return vector / np.linalg.norm(vector)


def _tube_layer(
    label: int,
    organ: Distance,
    through: np.ndarray,
    direction: np.ndarray,
    radius: float,
) -> Layer:
    """A vessel that ends inside the organ."""

    def distance(points: Points) -> np.ndarray:
        return np.maximum(tube(points, through, direction, radius), organ(points) + radius / 2)

    return Layer(label, "focus", distance)


def _lesion_layers(label: int, kind: str, centre: np.ndarray, radius: float, directions: np.ndarray) -> list[Layer]:
    if kind == "lobulated lesion":
        centres = centre + 0.7 * radius * np.vstack([np.zeros(3), directions])
        return [Layer(label, "focus", lambda points: spheres(points, centres, 0.55 * radius), rigid=True)]
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
    slices. How much of the tissue there is says nothing about the class.

    Args:
        kind: one of :data:`CLASSES`.
        labels: of vessel and lesion.
        organ: distance to the organ that holds them.
        deform: the deformation of the anatomy.
        box: range of their centres along x, y and z in mm; an axis of no width makes a flat picture.
        scale: half the field of view in mm.
        generator: of the draw.
    """
    lower, upper = np.transpose(box)
    flat = upper[2] == lower[2]
    tubes = int(generator.integers(1, 3)) + (kind == CLASSES[0])
    radii = scale * generator.uniform(*TUBE_RADIUS, tubes)
    lines = [(generator.uniform(lower, upper), _direction(flat, generator)) for _ in range(tubes)]
    layers = [
        _tube_layer(labels[0], organ, through, direction, radius)
        for (through, direction), radius in zip(lines, radii, strict=True)
    ]
    if kind == CLASSES[0]:
        return layers
    radius = scale * generator.uniform(*LESION_RADIUS)
    candidates = generator.uniform(lower, upper, (64, 3))
    places = deform((candidates[:, 0], candidates[:, 1], candidates[:, 2]))
    # the lesion stays inside the organ and clear of the vessels
    to_tubes = [tube(places, *line, radius=r) for line, r in zip(lines, radii, strict=True)]
    clearance = np.min([-organ(places), *(distance / 1.25 for distance in to_tubes)], axis=0)
    clear = np.flatnonzero(clearance > radius)
    centre = candidates[clear[0] if len(clear) else clearance.argmax()]
    directions = np.array([_direction(flat, generator) for _ in range(5)])
    return layers + _lesion_layers(labels[1], kind, centre, radius, directions)
