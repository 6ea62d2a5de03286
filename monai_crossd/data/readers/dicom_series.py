# SPDX-License-Identifier: Apache-2.0
"""DICOM as images: where slices and frames lie, one grid for all of them, a series of a folder, one file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai.config import PathLike
from monai.data import orientation_ras_lps

from .dicom import COLUMNS, FRAME_GROUPS, ROWS, DataSet, Dicom, count_frames, frame_groups, read_dicom, read_voxels
from .formats import find_format, list_entries
from .volumes import grid_affine, read_header

__all__ = ["group_series", "list_series", "load_dicom", "read_dicom_grid"]

SERIES, DESCRIPTION, INSTANCE = 0x0020000E, 0x0008103E, 0x00200013
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


def _unplaced_affine(dicom: Dicom) -> np.ndarray:
    """Affine in RAS of one slice; of DICOM without the patient's axes, as in ultrasound, that of the pixel grid."""
    affine = grid_affine(read_header(dicom.path, "GDCMImageIO"))
    if ORIENTATION not in dicom.elements and np.array_equal(affine, np.diag(affine.diagonal())):
        return affine
    return orientation_ras_lps(affine)


def group_series(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Groups DICOM files by their series instance UID, without those that hold no image, as reports and DICOMDIR.

    A file that is there by two names counts once, by its real place.
    """
    real: dict[Path, Path] = {}
    for path in sorted(paths, key=lambda path: (path.is_symlink(), path)):
        real.setdefault(path.resolve(), path)
    series: dict[str, list[Path]] = {}
    for path in sorted(real.values()):
        elements = read_dicom(path, last=ROWS).elements
        if ROWS in elements:
            series.setdefault(elements.text(SERIES), []).append(path)
    return series


def list_series(folder: PathLike) -> dict[str, tuple[str, ...]]:
    """Lists the DICOM series of a folder.

    Args:
        folder: folder with the files of one or more series, under any names; subfolders are not looked into.

    Returns:
        The files by series instance UID, in the order of their names.

    Raises:
        ValueError: When the folder holds no DICOM image.
    """
    files = (path for path in list_entries(Path(folder)) if path.is_file() and find_format(path) == "dicom")
    series = group_series(files)
    if not series:
        raise ValueError(f"{folder} holds no DICOM image: name the folder that holds the files of a series.")
    return {uid: tuple(map(str, names)) for uid, names in sorted(series.items())}


def _describe(series: dict[str, tuple[str, ...]]) -> str:
    lines = []
    for uid, names in series.items():
        text = read_dicom(names[0], last=DESCRIPTION).elements.text(DESCRIPTION) or "no description"
        lines.append(f"{uid} ({text}, {len(names)} files)")
    return "; ".join(lines)


def _choose(folder: str | Path, series_uid: str) -> list[Dicom]:
    """The files of one series, in the order of their instance numbers as far as those go."""
    series = list_series(folder)
    if series_uid and series_uid not in series:
        raise ValueError(f"{folder} holds no series {series_uid!r}; it holds {_describe(series)}.")
    if not series_uid and len(series) > 1:
        raise ValueError(
            f"{folder} holds {len(series)} series: {_describe(series)}. Move the files of each into a folder of its "
            "own, or choose one of them with series_uid=."
        )
    files = [read_dicom(name) for name in series[series_uid or next(iter(series))]]
    return sorted(files, key=lambda file: (file.elements.decimals(INSTANCE) or [0])[0])


def _arrange(source: str, files: list[Dicom]) -> tuple[list[int], np.ndarray]:
    """Order of all frames and their affine in RAS.

    Raises:
        ValueError: When they form no grid.
    """
    slices = [entry for file in files for entry in list_slices(file)]
    if 1 < len(files) < len(slices):
        raise ValueError(
            f"{source}: {len(files)} files of one series, some of several frames. Move each multi-frame file into a "
            "folder of its own."
        )
    if any(entry.position for entry in slices) and len(slices) > 1:
        return find_grid(source, slices)
    return list(range(len(slices))), _unplaced_affine(files[0])  # one slice, or the frames of a film


def _open(path: str, series_uid: str) -> tuple[list[Dicom], list[int], np.ndarray]:
    """The files of a series, or the one file, the order of all their frames, and the affine."""
    files = _choose(path, series_uid) if Path(path).is_dir() else [read_dicom(path)]
    if empty := [file.path for file in files if not file.kind]:
        raise ValueError(f"{empty[0]} cannot be read as an image (it has no pixels): drop it from the list.")
    return files, *_arrange(path, files)


def read_dicom_grid(path: str, series_uid: str = "") -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of a file, or of a series of a folder; raises as reading the voxels does."""
    files, order, affine = _open(path, series_uid)
    size = list_slices(files[0])[0].size
    return (*size, len(order)) if Path(path).is_dir() or len(order) > 1 else size, affine


def load_dicom(path: str, series_uid: str = "") -> tuple[np.ndarray, int, np.ndarray, dict]:
    """Reads a file or one series of a folder, slope and intercept of each slice applied (HU in CT).

    Args:
        path: folder or file.
        series_uid: series instance UID; may be left out where the folder holds one series.

    Returns:
        The array: a volume (x, y, z[, color]) of a folder or of several frames, otherwise an image (x, y[, color]); the
        number of its spatial axes; its affine (4, 4) in RAS, mm, without the patient's axes that of the pixel grid; and
        of a file the fields of its header.

    Raises:
        ValueError: When there is no DICOM image or no such series, the folder holds several and none is named, a slice
            is missing, repeated or truncated, or slices differ in size, spacing or orientation.
    """
    files, order, affine = _open(path, series_uid)
    parts = [read_voxels(file.path) for file in files]
    if len({part.shape[1:] for part in parts}) > 1:
        raise ValueError(f"{path}: some slices have colors and some have not. Move them into folders of their own.")
    voxels = np.concatenate(parts)[order]
    if Path(path).is_dir():
        return voxels.swapaxes(0, 2), 3, affine, {}
    header = read_header(path, "GDCMImageIO")
    fields = {key: header.GetMetaData(key) for key in header.GetMetaDataKeys()}
    if len(order) == 1:
        return voxels[0].swapaxes(0, 1), 2, affine, fields
    return voxels.swapaxes(0, 2), 3, affine, fields
