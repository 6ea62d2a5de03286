# SPDX-License-Identifier: Apache-2.0
"""What a phantom is made of: signed distances, layers of tissue, and with them a torso, a liver and its lesion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

__all__ = [
    "CLASSES",
    "LIVER_NAMES",
    "TORSO_NAMES",
    "Anatomy",
    "Distance",
    "Layer",
    "Points",
    "Vector",
    "blur",
    "ellipsoid",
    "focal_layers",
    "liver",
    "paint",
    "spheres",
    "torso",
    "tube",
    "warp",
]

Vector = Sequence[float] | np.ndarray
Points = tuple[np.ndarray, np.ndarray, np.ndarray]
"""x, y and z in mm, arrays that broadcast to the grid."""


Distance = Callable[[Points], np.ndarray]
"""Signed distance to a surface in mm, negative inside."""


class Layer(NamedTuple):
    """A structure.

    Attributes:
        label: its number; None keeps the label below it.
        tissue: key into the tables of a modality.
        distance: to its surface.
        rigid: it is not deformed with the anatomy around it.
    """

    label: int | None
    tissue: str
    distance: Distance
    rigid: bool = False


class Anatomy(NamedTuple):
    """Layers from the bottom up, and the deformation of all that are not rigid."""

    layers: list[Layer]
    deform: Callable[[Points], Points]


def ellipsoid(points: Points, center: Vector, axes: Vector, exponent: float = 2.0, grow: float = 0.0) -> np.ndarray:
    """Distance to a superellipsoid along the ray from its center, negative inside.

    Args:
        points: x, y, z in mm.
        center: in mm.
        axes: semi-axes in mm; ``inf`` makes a cylinder along that axis.
        exponent: 2 is an ellipsoid, more is nearer to a box.
        grow: mm added all around.

    >>> ellipsoid((np.array([0.0, 3.0]), np.array(0.0), np.array(0.0)), (0, 0, 0), (2, 2, 2)).tolist()
    [-2.0, 1.0]
    """
    offsets = [(p - c, a) for p, c, a in zip(points, center, axes, strict=True) if np.isfinite(a)]
    radius = sum(np.abs(o / a) ** exponent for o, a in offsets) ** (1 / exponent)
    length = np.sqrt(sum(o**2 for o, _ in offsets))
    scale = np.where(radius > 1e-3, length / np.maximum(radius, 1e-3), min(a for _, a in offsets))
    return (radius - 1) * scale - grow


def tube(points: Points, center: Vector, direction: Vector, radius: float, length: float) -> np.ndarray:
    """Distance to a straight tube with flat ends; ``direction`` is a unit vector, the rest in mm."""
    offsets = [p - c for p, c in zip(points, center, strict=True)]
    along = sum(o * d for o, d in zip(offsets, direction, strict=True))
    across = np.sqrt(np.maximum(sum(o**2 for o in offsets) - along**2, 0))
    return np.maximum(across - radius, np.abs(along) - length / 2)


def spheres(points: Points, centers: np.ndarray, radius: float) -> np.ndarray:
    """Distance to the union of spheres of one radius; ``centers`` is (n, 3) in mm."""
    squared = [sum((p - c) ** 2 for p, c in zip(points, center, strict=True)) for center in centers]
    return np.sqrt(np.minimum.reduce(squared)) - radius


def warp(half: Vector, amplitude: float, generator: np.random.Generator) -> Callable[[Points], Points]:
    """Draws a smooth deformation: each coordinate is moved by three plane waves about as long as the field of view.

    Args:
        half: half the field of view along each axis in mm.
        amplitude: largest movement along an axis, as a part of ``half``.
        generator: of the draw.
    """
    waves = (generator.uniform(-2.2, 2.2, (3, 3, 3)) / np.asarray(half)).astype(np.float32)
    phases = generator.uniform(0, 2 * np.pi, (3, 3)).astype(np.float32)

    def deform(points: Points) -> Points:
        moved = []
        for axis in range(3):
            shift = sum(
                np.sin(sum(k * p for k, p in zip(wave, points, strict=True)) + phase)
                for wave, phase in zip(waves[axis], phases[axis], strict=True)
            )
            moved.append(points[axis] + np.float32(amplitude / 3 * half[axis]) * shift)
        return moved[0], moved[1], moved[2]

    return deform


def paint(
    anatomy: Anatomy, points: Points, width: float, *properties: Mapping[str, float]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Fills voxels with layers, each over those before it; a voxel at a border holds its part of both (partial volume).

    Args:
        anatomy: its first layer fills everything whatever its distance.
        points: x, y, z in mm.
        width: of a voxel in mm.
        properties: values by tissue, mixed in proportion.

    Returns:
        The label map (uint8): the structure that fills more than half the voxel; and a float32 array per property.
    """
    shape = np.broadcast_shapes(*(p.shape for p in points))
    layers, deformed = anatomy.layers, anatomy.deform(points)
    label = np.full(shape, layers[0].label, np.uint8)
    values = [np.full(shape, table[layers[0].tissue], np.float32) for table in properties]
    for layer in layers[1:]:
        fraction = np.clip(0.5 - layer.distance(points if layer.rigid else deformed) / width, 0, 1).astype(np.float32)
        if layer.label is not None:
            np.copyto(label, layer.label, where=fraction > 0.5)
        for value, table in zip(values, properties, strict=True):
            value += fraction * (np.float32(table[layer.tissue]) - value)
    return label, values


def blur(values: np.ndarray, sigma: Sequence[float]) -> np.ndarray:
    """Gaussian filter of three standard deviations' reach, edges repeated.

    Args:
        values: any number of axes, real or complex.
        sigma: standard deviation along each axis in samples; 0 leaves an axis alone.

    >>> blur(np.array([0.0, 0.0, 1.0, 0.0, 0.0]), [0.5]).round(2).tolist()
    [0.0, 0.11, 0.79, 0.11, 0.0]
    """
    for axis, width in enumerate(sigma):
        if width <= 0 or values.shape[axis] == 1:
            continue
        reach = int(np.ceil(3 * width))
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
        kernel = (kernel / kernel.sum()).astype(values.real.dtype)
        padding = [(reach, reach) if a == axis else (0, 0) for a in range(values.ndim)]
        padded = np.moveaxis(np.pad(values, padding, mode="edge"), axis, 0)
        length = values.shape[axis]
        total = np.zeros_like(padded[:length])
        for shift, weight in enumerate(kernel):
            total += weight * padded[shift : shift + length]
        values = np.moveaxis(total, 0, axis)
    return values


CLASSES = ("no lesion", "solid lesion", "shell lesion", "lobulated lesion")

RADIUS = (0.13, 0.18)  # of a solid lesion, of half the field of view
TUBE_RADIUS = (0.075, 0.105)
TUBE_SURPLUS = 1.35  # vessels lose tissue where they cross and where the organ ends
CORE = 0.62  # radius of a shell's core, of the shell's
LOBES = 4
LOBE_RADIUS, LOBE_OFFSET = 0.5, 0.8  # of the lesion's radius; one more such sphere is in the center
# part of a disc and of a ball that is filled with the tissue; of the lobes by counting random points in 40 lesions
FILLED = {
    "solid lesion": (1.0, 1.0),
    "shell lesion": (1 - CORE**2, 1 - CORE**3),
    "lobulated lesion": (0.97, 0.55),
}


class _Vessel(NamedTuple):
    center: Vector
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


def _lesion_layers(label: int, kind: str, center: np.ndarray, radius: float, directions: np.ndarray) -> list[Layer]:
    if kind == "lobulated lesion":
        centers = center + LOBE_OFFSET * radius * np.vstack([np.zeros(3), directions])
        return [Layer(label, "focus", lambda points: spheres(points, centers, LOBE_RADIUS * radius), rigid=True)]
    layers = [Layer(label, "focus", lambda points: spheres(points, center[None], radius), rigid=True)]
    if kind == "shell lesion":
        layers.append(Layer(None, "core", lambda points: spheres(points, center[None], CORE * radius), rigid=True))
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
        box: range of their centers along x, y and z in mm; a third axis of no width makes a flat picture.
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
    center = candidates[clear[0] if len(clear) else clearance.argmax()]
    directions = np.array([_direction(flat, generator) for _ in range(LOBES)])
    return layers + _lesion_layers(labels[1], kind, center, radius, directions)


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
        kind: what the liver holds, see :data:`CLASSES`.
        anatomy: generator of all but that.
        focus: generator of vessels and lesion.
    """
    deform = warp(half, DEFORMATION, anatomy)
    cylinder = (1, 1, np.inf)
    height = 0 if flat else 1  # the lungs lie higher than the liver, unless there is one slice

    def organ(center: Vector, axes: Vector, exponent: float = 2.0) -> Callable[..., np.ndarray]:
        place = (np.asarray(center) + anatomy.uniform(-0.03, 0.03, 3)) * half
        size = _vary(axes, 0.1, anatomy) * half
        return lambda points, grow=0.0: ellipsoid(points, place, size, exponent, grow)

    outline = organ((0, 0, 0), (0.86, 0.68, np.inf), 2.5)
    skin = anatomy.uniform(0.03, 0.1) * half[:2].min()
    right = organ((-0.40, -0.02, 0.55 * height), (0.33, 0.46, 0.9))
    left = organ((0.42, 0.0, 0.35 * height), (0.29, 0.45, 1.1))
    spine = organ((0, 0.40, 0), np.multiply((0.12, 0.14, 1), cylinder))
    aorta = organ((0.08, 0.18, 0), np.multiply((0.055, 0.055, 1), cylinder))
    # lies within the right lung's x and y, so that a recess of the lung is behind it
    center = np.array([-0.34, -0.07, -0.35 * height]) + anatomy.uniform(-0.02, 0.02, 3)
    axes = np.array([0.41, 0.42, 0.85]) * anatomy.uniform(0.95, 1.1)

    def liver(points: Points) -> np.ndarray:
        return ellipsoid(points, center * half, axes * half)

    reach = np.array([0.19, 0.19, 0 if flat else 0.4])
    box = [(c - r, c + r) for c, r in zip(center * half, reach * half, strict=True)]
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
