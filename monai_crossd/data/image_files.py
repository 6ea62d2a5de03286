# SPDX-License-Identifier: Apache-2.0
"""Opening one image of any format: array, affine and header, and an error that names the file where it is broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from monai.config import PathLike
from monai.data import NibabelReader, PILReader
from monai.utils import MetaKeys
from PIL import Image

from .dicom_series import SOP_CLASS, grid_affine, patient_affine, read_header, read_series

__all__ = ["NIFTI", "SUFFIXES", "Loaded", "has_suffix", "load_image", "naming"]

NIFTI = (".nii", ".nii.gz")
PHOTOS = (".jpg", ".jpeg", ".bmp")
PNG, TIFF = (".png",), (".tif", ".tiff")
SUFFIXES = (*NIFTI, *PHOTOS, *PNG, *TIFF, ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".dicom", ".ima")

Loaded = tuple[np.ndarray, dict]


def has_suffix(path: PathLike, suffixes: tuple[str, ...]) -> bool:
    """Tells whether a file name ends in one of `suffixes`; MONAI's test takes "scan.png.mha" for a PNG as well."""
    return str(path).lower().endswith(suffixes)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Turns whatever a library raises for a broken file into an error that names the file."""
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
            f"{path} cannot be read as an image ({cause}): it may be truncated or of another format. "
            "Replace the file or drop it from the list."
        ) from error


def _rgb(image: Image.Image) -> Image.Image:
    """A palette's indices mean nothing without the palette."""
    return image.convert("RGB") if image.mode == "P" else image


def _with_geometry(array: np.ndarray, rank: int, affine: np.ndarray, header: dict) -> Loaded:
    """All axes after the spatial ones become one channel axis, which is named in the meta."""
    if array.ndim > rank:
        array = array.reshape(*array.shape[:rank], -1)
    header[MetaKeys.AFFINE] = affine
    header[MetaKeys.SPATIAL_SHAPE] = np.asarray(array.shape[:rank])
    header[MetaKeys.ORIGINAL_CHANNEL_DIM] = -1 if array.ndim > rank else float("nan")
    return array, header


def _load_nifti(path: str) -> Loaded:
    reader = NibabelReader()
    array, header = reader.get_data(reader.read(path))
    if array.dtype.fields:  # RGB is a structure to nibabel
        array = np.stack([array[name] for name in array.dtype.names], axis=-1)
    rank = min(3, len(header[MetaKeys.SPATIAL_SHAPE]))
    return _with_geometry(array, rank, header[MetaKeys.AFFINE], header)


def _load_photo(path: str) -> Loaded:
    with Image.open(path) as image:
        array, header = PILReader().get_data(_rgb(image))
    return _with_geometry(array, 2, np.eye(4), header)


def _to_array(image: sitk.Image) -> np.ndarray:
    """Axes (x, y, z, time, component); the last two where the image has them."""
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        return array.T
    return np.moveaxis(array.T, 0, -1)


def _load_file(path: str) -> Loaded:
    header = read_header(path)
    image = header.Execute()
    array = _to_array(image)
    rank = min(3, image.GetDimension())
    if has_suffix(path, PNG):
        affine = np.eye(4)
    else:
        affine = grid_affine(header) if has_suffix(path, TIFF) else patient_affine(header)
    if header.HasMetaDataKey(SOP_CLASS) and image.GetSize()[2:] == (1,):
        array, rank = array[:, :, 0], 2  # one DICOM slice is a 2D image that knows its plane
    fields = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if not key.startswith("ITK_")}
    return _with_geometry(array, rank, affine, fields)


def _load_series(folder: str, series_uid: str) -> Loaded:
    image, affine = read_series(folder, series_uid)
    return _with_geometry(_to_array(image), 3, affine, {})


def load_image(path: str, series_uid: str) -> Loaded:
    """Reads one image of any format.

    Args:
        path: file, or folder with a DICOM series.
        series_uid: the series of a folder with several.

    Returns:
        The array, axes (x, y[, z][, channel]), and the fields of its header with affine, shape and channel axis.

    Raises:
        ValueError: When it cannot be read.
    """
    with naming(path):
        if Path(path).is_dir():
            return _load_series(path, series_uid)
        if has_suffix(path, NIFTI):
            return _load_nifti(path)
        return _load_photo(path) if has_suffix(path, PHOTOS) else _load_file(path)
