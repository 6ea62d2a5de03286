# SPDX-License-Identifier: Apache-2.0
"""One DICOM series of a folder as a volume: which one, whether its slices are complete, its place in the patient."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from monai.data import orientation_ras_lps

__all__ = ["SOP_CLASS", "grid_affine", "list_series", "patient_affine", "read_header", "read_series"]

SOP_CLASS, DESCRIPTION, POSITION, ORIENTATION = "0008|0016", "0008|103e", "0020|0032", "0020|0037"
GAP_TOLERANCE = 0.1  # part of the slice distance: scanners round positions, a missing slice is 1


def read_header(path: str) -> sitk.ImageFileReader:
    """Reads an image's header; ``Execute()`` of what is returned reads the voxels."""
    reader = sitk.ImageFileReader()
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


def patient_affine(header: sitk.ImageFileReader) -> np.ndarray:
    """Affine (4, 4) in RAS, mm; of DICOM without the patient's axes, as in ultrasound, that of the pixel grid."""
    affine = grid_affine(header)
    dicom, oriented = header.HasMetaDataKey(SOP_CLASS), header.HasMetaDataKey(ORIENTATION)
    # enhanced multi-frame files have their orientation in a sequence, which SimpleITK does not list
    if dicom and not oriented and np.array_equal(affine, np.diag(affine.diagonal())):
        return affine
    return orientation_ras_lps(affine)


def list_series(folder: str | Path) -> dict[str, tuple[str, ...]]:
    """Lists the DICOM series of a folder.

    Args:
        folder: folder with the files of one or more series; subfolders are not looked into.

    Returns:
        The files by series instance UID, in the order of their place along the slice normal.

    Raises:
        ValueError: When the folder holds no DICOM image.
    """
    folder = str(folder)
    uids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(folder)
    if not uids:
        raise ValueError(f"{folder} holds no DICOM image: name the folder that holds the files of a series.")
    return {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder, uid) for uid in uids}


def _is_dicom(path: Path) -> bool:
    if not path.is_file() or path.name == "DICOMDIR":
        return False
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def _warn_of_unlisted(folder: Path, series: dict[str, tuple[str, ...]]) -> None:
    """GDCM leaves out what it cannot read; where that is the last slice, no gap tells of it."""
    listed = {Path(name).name for names in series.values() for name in names}
    left_out = sorted(path.name for path in folder.iterdir() if path.name not in listed and _is_dicom(path))
    if left_out:
        warnings.warn(
            f"{folder}: {len(left_out)} DICOM file(s) hold no readable image and were left out ({left_out[:3]}, ...): "
            "a slice among them is truncated and has to be replaced; a report or presentation state can be removed.",
            stacklevel=2,
        )


def _describe(series: dict[str, tuple[str, ...]]) -> str:
    lines = []
    for uid, names in series.items():
        header = read_header(names[0])
        text = header.GetMetaData(DESCRIPTION).strip() if header.HasMetaDataKey(DESCRIPTION) else "no description"
        lines.append(f"{uid} ({text}, {len(names)} files)")
    return "; ".join(lines)


def _choose(folder: str | Path, series: dict[str, tuple[str, ...]], series_uid: str) -> tuple[str, ...]:
    if series_uid and series_uid not in series:
        raise ValueError(f"{folder} holds no series {series_uid!r}; it holds {_describe(series)}.")
    if not series_uid and len(series) > 1:
        raise ValueError(
            f"{folder} holds {len(series)} series: {_describe(series)}. Choose one of them with series_uid=."
        )
    return series[series_uid] if series_uid else next(iter(series.values()))


def _stack_affine(folder: str | Path, names: tuple[str, ...]) -> np.ndarray:
    """Affine of the stacked slices from the first and the last one, so that a tilted gantry keeps its shear.

    Raises:
        ValueError: When the slices do not form a grid.
    """
    headers = [read_header(name) for name in names]
    affines = np.array([patient_affine(header) for header in headers])
    affine = affines[0].copy()
    if len(names) == 1:
        return affine
    for name, header, other in zip(names, headers, affines, strict=True):
        same_plane = np.allclose(other[:3, :2], affine[:3, :2], rtol=0, atol=1e-3)
        if header.GetSize() != (*headers[0].GetSize()[:2], 1) or not same_plane:
            raise ValueError(
                f"{folder}: {name} has several frames, or another size, pixel spacing or orientation than {names[0]}. "
                "Move the slices of each stack, and each multi-frame file, into a folder of its own."
            )
    if not any(header.HasMetaDataKey(POSITION) for header in headers):
        return affine  # frames of a film
    positions = affines[:, :3, 3]
    step = (positions[-1] - positions[0]) / (len(names) - 1)
    distances = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    # the median is what most slices have, also in a short stack with one gap
    if not np.abs(distances - np.median(distances)).max() < GAP_TOLERANCE * np.linalg.norm(step):
        raise ValueError(
            f"{folder}: the {len(names)} slices are not evenly spaced, {distances.min():g} to {distances.max():g} mm. "
            "Add the missing slices, separate the time points or echoes, or resample to a regular grid first."
        )
    affine[:3, 2] = step
    return affine


def read_series(folder: str | Path, series_uid: str = "") -> tuple[sitk.Image, np.ndarray]:
    """Reads one DICOM series of a folder as a volume, slope and intercept applied (HU in CT).

    Args:
        folder: folder with the files.
        series_uid: series instance UID; may be left out where the folder holds one series.

    Returns:
        The volume, and its affine (4, 4) in RAS, mm. SimpleITK's own direction does not hold a tilted gantry.

    Raises:
        ValueError: When there is no DICOM image or no such series, the folder holds several and none is named, a slice
            is missing or repeated, or files differ in size, spacing or orientation.
    """
    series = list_series(folder)
    names = _choose(folder, series, series_uid)
    _warn_of_unlisted(Path(folder), series)
    affine = _stack_affine(folder, names)
    if len(names) == 1:  # may be a multi-frame file
        return sitk.ReadImage(names[0]), affine
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    return reader.Execute(), affine
