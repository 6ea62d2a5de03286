# SPDX-License-Identifier: Apache-2.0
"""Checks of files before training: that each one can be read, and that label maps have the shape of their images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monai.utils import ensure_tuple

__all__ = ["check_files", "check_pairs", "read_shape"]


def read_shape(path: str | Path) -> tuple[int, ...]:
    """Reads an image's shape from its header alone.

    NIfTI is read by nibabel, as MONAI does; .npy by numpy; a folder as a DICOM series and all else by SimpleITK.

    Args:
        path: image file, or folder of one DICOM series.

    Returns:
        The shape in voxels, in the axis order of MONAI's LoadImage; channels of a NIfTI or .npy file are in it.

    Raises:
        FileNotFoundError: When ``path`` does not exist.
        ValueError: When it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: correct the data list or put the file there.")
    try:
        if path.name.endswith((".nii", ".nii.gz")):
            return tuple(int(n) for n in nib.load(path).shape)
        if path.suffix == ".npy":
            return tuple(np.load(path, mmap_mode="r").shape)
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


def check_files(items: Sequence[dict]) -> None:
    """Raises when an image of a classification list cannot be read; the header alone is looked at.

    Args:
        items: dictionaries with "image", a path or a list of paths (channels).

    Raises:
        FileNotFoundError: When a file does not exist.
        ValueError: When a file cannot be read.
    """
    for item in items:
        for path in ensure_tuple(item["image"]):
            read_shape(path)


def check_pairs(items: Sequence[dict]) -> None:
    """Raises when an image or label map cannot be read or their spatial shapes differ; headers alone are looked at.

    Args:
        items: dictionaries with "image" and "label", each a path or a list of paths (channels).

    Raises:
        FileNotFoundError: When a file does not exist.
        ValueError: When a file cannot be read, or a label map has another shape than its image.
    """
    for item in items:
        paths = [*ensure_tuple(item["image"]), *ensure_tuple(item["label"])]
        shape = read_shape(paths[0])[:3]  # a fourth axis holds channels
        for other in paths[1:]:
            if (found := read_shape(other)[:3]) != shape:
                raise ValueError(
                    f"Shapes differ: image {paths[0]} is {shape}, {other} is {found}. "
                    "Resample one to the grid of the other, or correct the pairing."
                )
