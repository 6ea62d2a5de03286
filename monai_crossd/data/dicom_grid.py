# SPDX-License-Identifier: Apache-2.0
"""Where the slices of a volume lie, in a folder or in one file: their order, and one grid for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai.data import orientation_ras_lps

from .dicom_header import DataSet, Dicom
from .dicom_voxels import COLUMNS, FRAME_GROUPS, ROWS, count_frames, frame_groups

__all__ = ["Slice", "find_grid", "list_slices"]

OFFSETS, DETECTOR_SPACING = 0x3004000C, 0x00181164  # of X-rays: the size on the detector
POSITION, ORIENTATION, SPACING, THICKNESS, DISTANCE = 0x00200032, 0x00200037, 0x00280030, 0x00180050, 0x00180088
PLACES, DIRECTIONS, MEASURES = 0x00209113, 0x00209116, 0x00289110
TOLERANCE = 0.1  # part of the slice distance: scanners round positions, a missing slice is 1


@dataclass(frozen=True)
class Slice:
    """One frame of a file in the patient, in DICOM's axes (LPS) and mm.

    Attributes:
        name: for messages.
        size: columns and rows.
        spacing: between rows and between columns, as DICOM has them; none where the file has no pixel size.
        orientation: directions of a row and of a column.
        position: of the first pixel; none where the file names no place.
        thickness: distance between slices, or their thickness, or 1.
    """

    name: str
    size: tuple[int, int]
    spacing: list[float]
    orientation: list[float]
    position: list[float]
    thickness: float

    @property
    def axes(self) -> np.ndarray:
        """Steps to the next column, the next row and along the normal as the columns of a matrix, in mm."""
        row, column = np.reshape(self.orientation, (2, 3))
        down, right = self.spacing or [1.0, 1.0]
        return np.column_stack([row * right, column * down, np.cross(row, column)])


def _positions(elements: DataSet, count: int) -> list[list[float]]:
    """Place of each frame; none where only the file as a whole has one and says no distances."""
    found = [group.decimals(POSITION) for group in frame_groups(elements, PLACES)]
    if count == 1 or elements.sequence(FRAME_GROUPS):
        return found
    offsets, orientation = elements.decimals(OFFSETS), elements.decimals(ORIENTATION)
    if len(offsets) != count or not orientation or not found[0]:
        return [[]] * count
    normal = np.cross(orientation[:3], orientation[3:])  # frames of a radiation dose
    return [(np.array(found[0]) + (offset - offsets[0]) * normal).tolist() for offset in offsets]


def list_slices(dicom: Dicom) -> list[Slice]:
    """The frames of a file, in the order of the file.

    Raises:
        ValueError: When it describes another number of frames than it has.
    """
    elements, name = dicom.elements, Path(dicom.path).name
    size = ((elements.words(COLUMNS) or [0])[0], (elements.words(ROWS) or [0])[0])
    groups = [frame_groups(elements, tag) for tag in (DIRECTIONS, MEASURES)]
    count = count_frames(elements)
    if len(groups[0]) != count:
        raise ValueError(f"{dicom.path} has {count} frames and describes {len(groups[0])}: replace the file.")
    one = count == 1 and not elements.sequence(FRAME_GROUPS)
    return [
        Slice(
            name if one else f"{name}, frame {index + 1}",
            size,
            (measures.decimals(SPACING) or elements.decimals(DETECTOR_SPACING))[:2],
            directions.decimals(ORIENTATION) or [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            position,
            (measures.decimals(DISTANCE) or measures.decimals(THICKNESS) or [1.0])[0] or 1.0,
        )
        for index, (position, directions, measures) in enumerate(zip(_positions(elements, count), *groups, strict=True))
    ]


def _check_planes(source: str, slices: Sequence[Slice]) -> None:
    first = slices[0]
    for other in slices[1:]:
        same = len(other.position) == len(first.position) and np.allclose(other.axes, first.axes, rtol=0, atol=1e-3)
        if other.size != first.size or not same:
            raise ValueError(
                f"{source}: {other.name} has another size, pixel spacing or orientation than {first.name}, or only one "
                "of them a position. Move the slices of each stack into a folder of its own, or split the file."
            )


def find_grid(source: str, slices: Sequence[Slice]) -> tuple[list[int], np.ndarray]:
    """Orders slices by their place along the normal, whatever their names and numbers say.

    The step between slices may lean, so that a tilted gantry keeps its shear; it has to be the same everywhere.

    Args:
        source: folder or file, for messages.
        slices: at least one, all with a position.

    Returns:
        Indices of the slices in order, and the affine (4, 4) in RAS, mm.

    Raises:
        ValueError: When the slices do not form a grid: gaps, two at one place, or other sizes or directions.
    """
    _check_planes(source, slices)
    axes = slices[0].axes
    normal = axes[:, 2].copy()
    positions = np.array([entry.position for entry in slices])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, positions[0]
    if len(slices) == 1:
        affine[:3, 2] *= slices[0].thickness
        return [0], orientation_ras_lps(affine)
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    off = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * step, axis=1)
    distances = np.diff(positions @ normal)
    # the median is what most slices have, also in a short stack with one gap
    uneven = np.abs(distances - np.median(distances))
    limit = TOLERANCE * abs(step @ normal)
    if not (off.max() < limit and uneven.max() < limit):
        at = int(uneven.argmax()) if uneven.max() >= limit or limit == 0 else max(int(off.argmax()) - 1, 0)
        where = " and ".join(
            f"{slices[k].name} at ({', '.join(f'{x:g}' for x in slices[k].position)})" for k in order[at : at + 2]
        )
        raise ValueError(
            f"{source}: the {len(slices)} slices are not evenly spaced, {distances.min():g} to {distances.max():g} mm "
            f"along their normal; look at {where} mm. Add the missing slices, separate the time points or echoes, or "
            "resample to a regular grid first."
        )
    affine[:3, 2] = step
    return order.tolist(), orientation_ras_lps(affine)
