# SPDX-License-Identifier: Apache-2.0
"""Checks of files before training: that each one can be read, and that label maps have the shape of their images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from monai.utils import ensure_tuple

from .dicom_series import read_dicom_shape, read_header
from .formats import find_format
from .image_files import naming
from .nifti import read_nifti_shape
from .npz_reader import is_npz_path, read_npz_image
from .pictures import read_picture_shape

__all__ = ["check_files", "check_pairs", "find_faults", "read_shape"]


def read_shape(path: str | Path) -> tuple[int, ...]:
    """Reads an image's shape from its header alone.

    Every format is read as :class:`~monai_crossd.data.SimpleITKReader` reads it, and a DICOM series or multi-frame file
    whose slices form no grid is refused here too. Of an image in an .npz file (``FILE.npz#ARRAY/NUMBER``) the whole
    array is read, once.

    Args:
        path: image file, folder of one DICOM series, or image in an .npz file.

    Returns:
        The shape in voxels, in the axis order of MONAI's LoadImage; time and channels of NIfTI and .npy are in it.

    Raises:
        FileNotFoundError: When ``path`` does not exist.
        ValueError: When it cannot be read.
    """
    if is_npz_path(path):
        image = read_npz_image(path)
        return image.shape[1::-1] if image.shape[-1] == 3 else image.shape[::-1]
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist: correct the data list or put the file there.")
    with naming(str(path)):
        kind = "dicom" if Path(path).is_dir() else find_format(path)
        return _SHAPE.get(kind, _itk_shape)(path)


def _numpy_shape(path: str | Path) -> tuple[int, ...]:
    return tuple(np.load(path, mmap_mode="r").shape)


def _itk_shape(path: str | Path, image_io: str = "") -> tuple[int, ...]:
    return tuple(read_header(str(path), image_io).GetSize())


_SHAPE: dict[str, Callable[[str | Path], tuple[int, ...]]] = {
    "nifti": read_nifti_shape,
    "dicom": read_dicom_shape,
    "picture": read_picture_shape,
    "numpy": _numpy_shape,
    "nrrd": partial(_itk_shape, image_io="NrrdImageIO"),
    "meta": partial(_itk_shape, image_io="MetaImageIO"),
}


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
