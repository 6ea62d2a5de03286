# SPDX-License-Identifier: Apache-2.0
"""Checks of files before training: that each one can be read, and that label maps have the shape of their images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monai.utils import ensure_tuple
from PIL import Image

from .image_files import has_suffix
from .npz_reader import is_npz_path, read_npz_image

__all__ = ["check_files", "check_pairs", "find_faults", "read_shape"]

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")  # PIL is 15 times as fast as SimpleITK here


def read_shape(path: str | Path) -> tuple[int, ...]:
    """Reads an image's shape from its header alone.

    NIfTI is read by nibabel and PNG, JPEG and BMP by PIL, as MONAI does; .npy by numpy; a folder as a DICOM series and
    all else by SimpleITK. Of an image in an .npz file (``FILE.npz#ARRAY/NUMBER``) the whole array is read, once.

    Args:
        path: image file, folder of one DICOM series, or image in an .npz file.

    Returns:
        The shape in voxels, in the axis order of MONAI's LoadImage; channels of a NIfTI or .npy file are in it.

    Raises:
        FileNotFoundError: When ``path`` does not exist.
        ValueError: When it cannot be read.
    """
    if is_npz_path(path):
        image = read_npz_image(path)
        return image.shape[1::-1] if image.shape[-1] == 3 else image.shape[::-1]
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: correct the data list or put the file there.")
    try:
        if path.name.endswith((".nii", ".nii.gz")):
            return tuple(int(n) for n in nib.load(path).shape)
        if path.suffix == ".npy":
            return tuple(np.load(path, mmap_mode="r").shape)
        if has_suffix(path, _PICTURES):
            with Image.open(path) as picture:
                return picture.size
        if path.is_dir():
            names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
            if not names:
                raise ValueError("the folder holds no DICOM series")
            return (*_itk_size(names[0])[:2], len(names))
        return _itk_size(str(path))
    # each library has its own exceptions for a broken file, zlib and EOFError among them
    except Exception as error:
        cause = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ValueError(
            f"{path} cannot be read as an image ({cause[0]}): replace the file or drop it from the list."
        ) from error


def _itk_size(path: str) -> tuple[int, ...]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    return tuple(reader.GetSize())


def _check_image(item: dict) -> None:
    for path in ensure_tuple(item["image"]):
        read_shape(path)


def _check_pair(item: dict) -> None:
    paths = [*ensure_tuple(item["image"]), *ensure_tuple(item["label"])]
    shape = read_shape(paths[0])[:3]  # a fourth axis holds channels
    for other in paths[1:]:
        if (found := read_shape(other)[:3]) != shape:
            raise ValueError(
                f"Shapes differ: image {paths[0]} is {shape}, {other} is {found}. "
                "Resample one to the grid of the other, or correct the pairing."
            )


def find_faults(items: Sequence[dict], pairs: bool = False) -> Iterator[tuple[int, OSError | ValueError]]:
    """Finds the items whose files cannot be read, by their headers.

    Args:
        items: as in :func:`check_files`, with ``pairs`` as in :func:`check_pairs`.
        pairs: whether "label" is a file too.

    Yields:
        Index of the item and the error.
    """
    check = _check_pair if pairs else _check_image
    for index, item in enumerate(items):
        try:
            check(item)
        except (OSError, ValueError) as error:
            yield index, error


def check_files(items: Sequence[dict]) -> None:
    """Raises when an image of a classification list cannot be read; the header alone is looked at.

    Args:
        items: dictionaries with "image", a path or a list of paths (channels).

    Raises:
        FileNotFoundError: When a file does not exist.
        ValueError: When a file cannot be read.
    """
    for _, error in find_faults(items):
        raise error


def check_pairs(items: Sequence[dict]) -> None:
    """Raises when an image or label map cannot be read or their spatial shapes differ; headers alone are looked at.

    Args:
        items: dictionaries with "image" and "label", each a path or a list of paths (channels).

    Raises:
        FileNotFoundError: When a file does not exist.
        ValueError: When a file cannot be read, or a label map has another shape than its image.
    """
    for _, error in find_faults(items, pairs=True):
        raise error
