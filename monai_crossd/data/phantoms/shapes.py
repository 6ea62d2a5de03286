# SPDX-License-Identifier: Apache-2.0
"""Shapes in millimetres: signed distances, smooth deformation, and how layers of them fill voxels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Anatomy", "Distance", "Layer", "Points", "Vector", "blur", "ellipsoid", "paint", "spheres", "tube", "warp"]

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


def ellipsoid(points: Points, centre: Vector, axes: Vector, exponent: float = 2.0, grow: float = 0.0) -> np.ndarray:
    """Distance to a superellipsoid along the ray from its centre, negative inside.

    Args:
        points: x, y, z in mm.
        centre: in mm.
        axes: semi-axes in mm; ``inf`` makes a cylinder along that axis.
        exponent: 2 is an ellipsoid, more is nearer to a box.
        grow: mm added all around.

    >>> ellipsoid((np.array([0.0, 3.0]), np.array(0.0), np.array(0.0)), (0, 0, 0), (2, 2, 2)).tolist()
    [-2.0, 1.0]
    """
    offsets = [(p - c, a) for p, c, a in zip(points, centre, axes, strict=True) if np.isfinite(a)]
    radius = sum(np.abs(o / a) ** exponent for o, a in offsets) ** (1 / exponent)
    length = np.sqrt(sum(o**2 for o, _ in offsets))
    scale = np.where(radius > 1e-3, length / np.maximum(radius, 1e-3), min(a for _, a in offsets))
    return (radius - 1) * scale - grow


def tube(points: Points, centre: Vector, direction: Vector, radius: float, length: float) -> np.ndarray:
    """Distance to a straight tube with flat ends; ``direction`` is a unit vector, the rest in mm."""
    offsets = [p - c for p, c in zip(points, centre, strict=True)]
    along = sum(o * d for o, d in zip(offsets, direction, strict=True))
    across = np.sqrt(np.maximum(sum(o**2 for o in offsets) - along**2, 0))
    return np.maximum(across - radius, np.abs(along) - length / 2)


def spheres(points: Points, centres: np.ndarray, radius: float) -> np.ndarray:
    """Distance to the union of spheres of one radius; ``centres`` is (n, 3) in mm."""
    squared = [sum((p - c) ** 2 for p, c in zip(points, centre, strict=True)) for centre in centres]
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
