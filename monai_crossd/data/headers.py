# SPDX-License-Identifier: Apache-2.0
"""Checks of files before training: that each one can be read, and that label maps lie on the grids of their images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from monai.data import orientation_ras_lps
from monai.utils import ensure_tuple

from ..transforms.grid import describe_dimensions, describe_grids, same_grid
from .dicom_series import grid_affine, read_dicom_grid, read_header
from .formats import find_format
from .image_files import naming
from .nifti import read_nifti_grid
from .npz_reader import is_npz_path, read_npz_image
from .pictures import read_picture_shape

__all__ = ["check_files", "check_pairs", "find_faults", "read_grid", "read_shape"]

Grid = tuple[tuple[int, ...], np.ndarray | None]


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
    return read_grid(path)[0]


def read_grid(path: str | Path) -> Grid:
    """Shape as :func:`read_shape` gives it, and the affine (4, 4) in RAS, mm, or None in a format that has none."""
    if is_npz_path(path):
        image = read_npz_image(path)
        return image.shape[1::-1] if image.shape[-1] == 3 else image.shape[::-1], None
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist: correct the data list or put the file there.")
    with naming(str(path)):
        kind = "dicom" if Path(path).is_dir() else find_format(path)
        return _GRID.get(kind, _itk_grid)(path)


def _numpy_grid(path: str | Path) -> Grid:
    return tuple(np.load(path, mmap_mode="r").shape), None


def _picture_grid(path: str | Path) -> Grid:
    return read_picture_shape(path), None


def _itk_grid(path: str | Path, image_io: str = "") -> Grid:
    header = read_header(str(path), image_io)
    return tuple(header.GetSize()), orientation_ras_lps(grid_affine(header))


_GRID: dict[str, Callable[[str | Path], Grid]] = {
    "nifti": read_nifti_grid,
    "dicom": read_dicom_grid,
    "picture": _picture_grid,
    "numpy": _numpy_grid,
    "nrrd": partial(_itk_grid, image_io="NrrdImageIO"),
    "meta": partial(_itk_grid, image_io="MetaImageIO"),
}


def _spatial(shape: tuple[int, ...], spatial_dims: int | None) -> tuple[int, ...]:
    """Without what comes after three axes (time, channels), and without the slice axis of an image in a volume."""
    return shape[:2] if spatial_dims == 2 and shape[2:] == (1,) else shape[:3]


def _check_item(item: dict, pairs: bool, spatial_dims: int | None) -> None:
    images, labels = ensure_tuple(item["image"]), ensure_tuple(item["label"]) if pairs else ()
    shape, affine = read_grid(images[0])
    first = _spatial(shape, spatial_dims)
    if spatial_dims is not None and len(first) != spatial_dims:
        raise ValueError(f"{images[0]} {describe_dimensions(first, spatial_dims)}")
    for other in (*images[1:], *labels):
        shape, place = read_grid(other)
        if (found := _spatial(shape, spatial_dims)) != first:
            raise ValueError(
                f"Shapes differ: image {images[0]} is {first}, {other} is {found}. "
                "Resample one to the grid of the other, or correct the pairing."
            )
        if affine is not None and place is not None and not same_grid(affine, place, first):
            raise ValueError(f"image {images[0]} and {other} {describe_grids(affine, place)}")


def find_faults(
    items: Sequence[dict], pairs: bool = False, spatial_dims: int | None = None
) -> Iterator[tuple[int, OSError | ValueError]]:
    """Finds the items whose files cannot be read or do not fit, by their headers.

    Args:
        items: as in :func:`check_files`, with ``pairs`` as in :func:`check_pairs`.
        pairs: whether "label" is a file too.
        spatial_dims: 2 or 3, that every image must have; a volume of one slice is an image. None takes any.

    Yields:
        Index of the item and the error.
    """
    for index, item in enumerate(items):
        try:
            _check_item(item, pairs, spatial_dims)
        except (OSError, ValueError) as error:
            yield index, error


def check_files(items: Sequence[dict], spatial_dims: int | None = None) -> None:
    """Raises when an image of a classification list cannot be read; the header alone is looked at.

    Args:
        items: dictionaries with "image", a path or a list of paths (channels).
        spatial_dims: 2 or 3, that every image must have; a volume of one slice is an image. None takes any.

    Raises:
        FileNotFoundError: When a file does not exist.
        ValueError: When a file cannot be read, or an image has other dimensions.
    """
    for _, error in find_faults(items, spatial_dims=spatial_dims):
        raise error


def check_pairs(items: Sequence[dict]) -> None:
    """Raises when an image or label map cannot be read or their grids differ; headers alone are looked at.

    Args:
        items: dictionaries with "image" and "label", each a path or a list of paths (channels).

    Raises:
        FileNotFoundError: When a file does not exist.
        ValueError: When a file cannot be read, or a label map has another shape or affine than its image.
    """
    for _, error in find_faults(items, pairs=True):
        raise error
