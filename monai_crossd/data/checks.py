# SPDX-License-Identifier: Apache-2.0
"""Checks of files before training: that each one can be read, and that label maps lie on the grids of their images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from monai.utils import ensure_tuple

from ..transforms.grid import describe_dimensions, describe_grids, same_grid
from .readers import open_image

__all__ = ["check_files", "check_pairs", "find_faults"]


def _spatial(shape: tuple[int, ...], spatial_dims: int | None) -> tuple[int, ...]:
    """Without what comes after three axes (time, channels), and without the slice axis of an image in a volume."""
    return shape[:2] if spatial_dims == 2 and shape[2:] == (1,) else shape[:3]


def _check_item(item: dict, pairs: bool, spatial_dims: int | None) -> None:
    images, labels = ensure_tuple(item["image"]), ensure_tuple(item["label"]) if pairs else ()
    shape, affine = open_image(images[0]).grid()
    first = _spatial(shape, spatial_dims)
    if spatial_dims is not None and len(first) != spatial_dims:
        raise ValueError(f"{images[0]} {describe_dimensions(first, spatial_dims)}")
    for other in (*images[1:], *labels):
        shape, place = open_image(other).grid()
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

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     Image.new("L", (8, 8)).save(f"{folder}/a.png")
        ...     check_files([{"image": f"{folder}/a.png"}], spatial_dims=2)  # nothing to complain about
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

    Example:
        >>> import nibabel
        >>> import numpy as np
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name, depth in (("image", 4), ("label", 3)):
        ...         image = nibabel.Nifti1Image(np.zeros((8, 8, depth), np.uint8), np.eye(4))
        ...         nibabel.save(image, f"{folder}/{name}.nii.gz")
        ...     try:
        ...         check_pairs([{"image": f"{folder}/image.nii.gz", "label": f"{folder}/label.nii.gz"}])
        ...     except ValueError as error:
        ...         "(8, 8, 3)" in str(error)
        True
    """
    for _, error in find_faults(items, pairs=True):
        raise error
