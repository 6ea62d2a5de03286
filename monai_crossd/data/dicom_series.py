# SPDX-License-Identifier: Apache-2.0
"""DICOM as images: one series of a folder as a volume, and one file of one or more frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from monai.data import orientation_ras_lps

from .dicom_grid import find_grid, list_slices
from .dicom_header import Dicom, read_dicom
from .dicom_voxels import read_voxels
from .walk import find_series, list_entries

__all__ = ["grid_affine", "list_series", "read_dicom_file", "read_dicom_grid", "read_header", "read_series"]

DESCRIPTION, INSTANCE, ORIENTATION = 0x0008103E, 0x00200013, 0x00200037


def read_header(path: str, image_io: str = "") -> sitk.ImageFileReader:
    """Reads an image's header; ``Execute()`` of what is returned reads the voxels."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(path)
    reader.ReadImageInformation()
    return reader


def grid_affine(header: sitk.ImageFileReader) -> np.ndarray:
    """Affine (4, 4) in ITK's LPS, mm, of an image of any rank: time has no place in it, a missing axis is unit."""
    rank = header.GetDimension()
    direction = np.reshape(header.GetDirection(), (rank, rank)) @ np.diag(header.GetSpacing())
    n = min(rank, 3)
    affine = np.eye(4)
    affine[:n, :n] = direction[:n, :n]
    affine[:n, 3] = header.GetOrigin()[:n]
    return affine


def _unplaced_affine(dicom: Dicom) -> np.ndarray:
    """Affine in RAS of one slice; of DICOM without the patient's axes, as in ultrasound, that of the pixel grid."""
    affine = grid_affine(read_header(dicom.path, "GDCMImageIO"))
    if ORIENTATION not in dicom.elements and np.array_equal(affine, np.diag(affine.diagonal())):
        return affine
    return orientation_ras_lps(affine)


def list_series(folder: str | Path) -> dict[str, tuple[str, ...]]:
    """Lists the DICOM series of a folder.

    Args:
        folder: folder with the files of one or more series, under any names; subfolders are not looked into.

    Returns:
        The files by series instance UID, in the order of their names.

    Raises:
        ValueError: When the folder holds no DICOM image.
    """
    series = find_series(list_entries(Path(folder)))
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


def read_series(folder: str | Path, series_uid: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Reads one DICOM series of a folder as a volume, slope and intercept of each slice applied (HU in CT).

    Args:
        folder: folder with the files.
        series_uid: series instance UID; may be left out where the folder holds one series.

    Returns:
        The volume, axes (x, y, z[, color]), and its affine (4, 4) in RAS, mm.

    Raises:
        ValueError: When there is no DICOM image or no such series, the folder holds several and none is named, a slice
            is missing, repeated or truncated, or slices differ in size, spacing or orientation.
    """
    files = _choose(folder, series_uid)
    order, affine = _arrange(str(folder), files)
    parts = [read_voxels(file.path) for file in files]
    if len({part.shape[1:] for part in parts}) > 1:
        raise ValueError(f"{folder}: some slices have colors and some have not. Move them into folders of their own.")
    return np.concatenate(parts)[order].swapaxes(0, 2), affine


def read_dicom_file(path: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Reads one DICOM file: an image (x, y[, color]) of one frame, a volume (x, y, z[, color]) of several.

    Args:
        path: of the file.

    Returns:
        The array, its affine (4, 4) in RAS, mm, without the patient's axes that of the pixel grid, and the number of
        its spatial axes.

    Raises:
        ValueError: When it is truncated, or its frames form no grid, as in :func:`read_series`.
    """
    order, affine = _arrange(path, [read_dicom(path)])
    voxels = read_voxels(path)
    if len(order) == 1:
        return voxels[0].swapaxes(0, 1), affine, 2
    return voxels[order].swapaxes(0, 2), affine, 3


def read_dicom_grid(path: str | Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Reads the spatial shape and the affine of a file, or of the one series of a folder; raises as reading does."""
    is_folder = Path(path).is_dir()
    files = _choose(path, "") if is_folder else [read_dicom(path)]
    if any(not file.kind for file in files):
        raise ValueError(f"{path} cannot be read as an image (it has no pixels): drop it from the list.")
    order, affine = _arrange(str(path), files)
    size = list_slices(files[0])[0].size
    return (*size, len(order)) if is_folder or len(order) > 1 else size, affine
