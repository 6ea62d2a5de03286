# SPDX-License-Identifier: Apache-2.0
"""2D patches and 3D blocks of a labelled volume, labelled by the dominant structure at their centre."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from numpy.lib.stride_tricks import sliding_window_view

__all__ = [
    "BLOCK_DEPTH",
    "PATCH_SIZE",
    "SPACING",
    "WINDOW",
    "dominant_label",
    "sample_blocks",
    "sample_patches",
    "to_isotropic",
]

PATCH_SIZE = 48
BLOCK_DEPTH = 12
CENTRE_SIZE = 7
SPACING = 3.0
WINDOW = (-1000, 1000)


def to_isotropic(
    image: sitk.Image, label: sitk.Image, voxel: float = SPACING, window: tuple[float, float] = WINDOW
) -> tuple[np.ndarray, np.ndarray]:
    """Resamples an image and its label map to cubic voxels and a window of grey values to 8 bit.

    Args:
        image: three-dimensional.
        label: label map on the same grid.
        voxel: size of the new voxels in mm.
        window: values that become 0 and 255.

    Returns:
        Grey values (X, Y, Z) uint8 (linear) and labels (X, Y, Z) uint8 (nearest neighbour), index order of the image.
    """
    spacing = np.array(image.GetSpacing())
    size = np.round(np.array(image.GetSize()) * spacing / voxel).astype(int).tolist()
    # both grids begin at the same voxel border, not at the same voxel centre
    origin = image.TransformContinuousIndexToPhysicalPoint(((voxel / spacing - 1) / 2).tolist())
    resample = sitk.ResampleImageFilter()
    resample.SetSize(size)
    resample.SetOutputSpacing([voxel] * 3)
    resample.SetOutputOrigin(origin)
    resample.SetOutputDirection(image.GetDirection())
    resample.SetDefaultPixelValue(window[0])
    resample.SetInterpolator(sitk.sitkLinear)
    grey = sitk.IntensityWindowing(
        resample.Execute(sitk.Cast(image, sitk.sitkFloat32)), *map(float, window), 0.0, 255.0
    )
    resample.SetDefaultPixelValue(0)
    resample.SetInterpolator(sitk.sitkNearestNeighbor)
    return (
        np.rint(sitk.GetArrayFromImage(grey)).astype(np.uint8).transpose(2, 1, 0),
        sitk.GetArrayFromImage(resample.Execute(label)).transpose(2, 1, 0),
    )


def dominant_label(label: np.ndarray) -> np.ndarray:
    """Label with the most voxels in the 7x7 window around each pixel of each slice; the smaller one in a tie.

    Args:
        label: slices (S, H, W) of small non-negative integers; outside counts as 0.

    Returns:
        Labels (S, H, W).

    >>> dominant_label(np.eye(9, dtype=np.uint8)[None] + 1)[0, 4, 4].item()
    1
    """
    half = CENTRE_SIZE // 2
    padded = np.pad(label, ((0, 0), (half, half), (half, half)))
    best, most = np.zeros_like(label), np.zeros(label.shape, np.int64)
    for value in range(int(label.max()) + 1):
        votes = sliding_window_view((padded == value).astype(np.int64), CENTRE_SIZE, axis=1).sum(-1)
        votes = sliding_window_view(votes, CENTRE_SIZE, axis=2).sum(-1)
        better = votes > most
        best[better], most[better] = value, votes[better]
    return best


def sample_patches(
    volumes: Sequence[tuple[np.ndarray, np.ndarray]], labels: Sequence[int], count: int, seed: int
) -> list[tuple[np.ndarray, int]]:
    """Draws patches of 48x48 pixels without replacement, ``count`` of each label or as many as there are.

    Args:
        volumes: pairs of grey values and labels, both (X, Y, Z). A slice smaller than a patch is padded with 0 (air).
        labels: the labels to draw; each is the dominant one in the patch's central 7x7 window, 0 competing with them.
        count: patches per label.
        seed: of the draw; same seed, same patches.

    Returns:
        Pairs of patch (48, 48) and label, grouped by label. A patch's axes are two of X, Y, Z in that order.
    """
    slices: list[np.ndarray] = []
    places: list[np.ndarray] = []
    for grey, label in volumes:
        for axis in (2, 1, 0):  # axial, coronal, sagittal
            dominant = dominant_label(np.moveaxis(label, axis, 0))
            index = np.argwhere(np.isin(dominant, labels))
            places.append(np.column_stack([np.full(len(index), len(slices)), index, dominant[tuple(index.T)]]))
            half = PATCH_SIZE // 2
            slices.append(np.pad(np.moveaxis(grey, axis, 0), ((0, 0), (half, half), (half, half))))
    candidates = np.concatenate(places)
    generator = np.random.default_rng(seed)
    patches = []
    for value in labels:
        choice = candidates[candidates[:, -1] == value]
        for stack, s, i, j, _ in generator.permutation(choice)[:count]:
            patches.append((slices[stack][s, i : i + PATCH_SIZE, j : j + PATCH_SIZE], int(value)))
    return patches


def sample_blocks(
    volumes: Sequence[tuple[np.ndarray, np.ndarray]], labels: Sequence[int], count: int, seed: int
) -> list[tuple[np.ndarray, int]]:
    """Draws axial blocks of 48x48x12 voxels without replacement, ``count`` of each label or as many as there are.

    Args:
        volumes: pairs of grey values and labels, both (X, Y, Z). A block that reaches out of its volume is padded with
            0 (air).
        labels: the labels to draw; each is the dominant one in the central 7x7 window of the block's middle slice.
        count: blocks per label.
        seed: of the draw; same seed, same blocks.

    Returns:
        Pairs of block (48, 48, 12) and label, grouped by label.
    """
    half, above = PATCH_SIZE // 2, BLOCK_DEPTH // 2
    padded = [np.pad(grey, ((half, half), (half, half), (above, above))) for grey, _ in volumes]
    places = []
    for number, (_, label) in enumerate(volumes):
        dominant = dominant_label(np.moveaxis(label, 2, 0))
        index = np.argwhere(np.isin(dominant, labels))
        places.append(np.column_stack([np.full(len(index), number), index, dominant[tuple(index.T)]]))
    candidates = np.concatenate(places)
    generator = np.random.default_rng(seed)
    blocks = []
    for value in labels:
        choice = candidates[candidates[:, -1] == value]
        for number, s, i, j, _ in generator.permutation(choice)[:count]:
            blocks.append((padded[number][i : i + PATCH_SIZE, j : j + PATCH_SIZE, s : s + BLOCK_DEPTH], int(value)))
    return blocks
