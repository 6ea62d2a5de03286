# SPDX-License-Identifier: Apache-2.0
"""Opening one image of any format: array, affine and header, and an error that names the file where it is broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from monai.data import orientation_ras_lps
from monai.utils import MetaKeys

from .checksums import check_meta, check_nrrd
from .dicom_series import grid_affine, read_dicom_file, read_header, read_series
from .formats import NIFTI, SUFFIXES, find_format, has_suffix
from .nifti import read_nifti
from .npz_reader import NpzReader, is_npz_path
from .pictures import read_picture

__all__ = ["NIFTI", "SUFFIXES", "Loaded", "has_suffix", "load_image", "naming"]

Loaded = tuple[np.ndarray, dict]


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Turns whatever a library raises for a broken file into an error that names the file, and how to go on."""
    try:
        yield
    # each library has its own exceptions for a broken file, zlib and EOFError among them
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, ValueError) and path in str(error)):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # MetaImage's last line is a left-over errno that says "No such file" of any truncated file
        cause = next((line for line in lines if "ERROR" in line), lines[-1] if lines else type(error).__name__)
        raise ValueError(
            f"{path} cannot be read as an image ({cause}): replace the file or drop it from the list; it may be "
            "truncated, damaged or of another format."
        ) from error


def _with_geometry(array: np.ndarray, rank: int, affine: np.ndarray, header: dict) -> Loaded:
    """All axes after the spatial ones become one channel axis, which is named in the meta."""
    if array.ndim > rank:
        array = array.reshape(*array.shape[:rank], -1)
    header[MetaKeys.AFFINE] = affine
    header[MetaKeys.SPATIAL_SHAPE] = np.asarray(array.shape[:rank])
    header[MetaKeys.ORIGINAL_CHANNEL_DIM] = -1 if array.ndim > rank else float("nan")
    return array, header


def _load_nifti(path: str) -> Loaded:
    array, header = read_nifti(path)
    if array.dtype.fields:  # RGB is a structure to nibabel
        array = np.stack([array[name] for name in array.dtype.names or ()], axis=-1)
    rank = min(3, len(header[MetaKeys.SPATIAL_SHAPE]))
    return _with_geometry(array, rank, header[MetaKeys.AFFINE], header)


def _load_picture(path: str) -> Loaded:
    array, affine, rank = read_picture(path)
    return _with_geometry(array, rank, affine, {})


def _load_dicom(path: str) -> Loaded:
    array, affine, rank = read_dicom_file(path)
    header = read_header(path, "GDCMImageIO")
    return _with_geometry(array, rank, affine, {key: header.GetMetaData(key) for key in header.GetMetaDataKeys()})


def _load_numpy(path: str) -> Loaded:
    array = np.load(path, allow_pickle=False)
    return _with_geometry(array, array.ndim, np.eye(4), {})


def _load_file(path: str, image_io: str = "") -> Loaded:
    header = read_header(path, image_io)
    image = header.Execute()
    array = sitk.GetArrayFromImage(image).T  # axes (component, x, y, z, time), the first and last where it has them
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, 0, -1)
    fields = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if not key.startswith("ITK_")}
    return _with_geometry(array, min(3, image.GetDimension()), orientation_ras_lps(grid_affine(header)), fields)


def _load_nrrd(path: str) -> Loaded:
    check_nrrd(path)
    return _load_file(path, "NrrdImageIO")


def _load_meta(path: str) -> Loaded:
    check_meta(path)
    return _load_file(path, "MetaImageIO")


def load_image(path: str, series_uid: str) -> Loaded:
    """Reads one image of any format, which its content says.

    Args:
        path: file, folder with a DICOM series, or image in an .npz file.
        series_uid: the series of a folder with several.

    Returns:
        The array, axes (x, y[, z][, channel]), and the fields of its header with affine, shape and channel axis.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When it cannot be read.
    """
    if is_npz_path(path):
        reader = NpzReader()
        return reader.get_data(reader.read(path))
    with naming(path):
        if Path(path).is_dir():
            array, affine = read_series(path, series_uid)
            return _with_geometry(array, 3, affine, {})
        return _LOAD.get(find_format(path), _load_file)(path)


_LOAD = {
    "nifti": _load_nifti,
    "dicom": _load_dicom,
    "picture": _load_picture,
    "numpy": _load_numpy,
    "nrrd": _load_nrrd,
    "meta": _load_meta,
}
