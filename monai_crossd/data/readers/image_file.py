# SPDX-License-Identifier: Apache-2.0
"""The one way to open an image, of any format: its grid from the header, its voxels, and errors that name the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.config import PathLike
from monai.utils import MetaKeys

from .dicom_series import list_series, load_dicom, read_dicom_grid
from .formats import find_format
from .npz import is_npz_path, load_npz, read_npz_grid
from .pictures import load_picture, read_picture_grid
from .volumes import load_itk, load_nifti, read_header, read_itk_grid, read_nifti_grid

__all__ = ["Grid", "ImageFile", "Loaded", "open_image", "read_shape"]

Grid = tuple[tuple[int, ...], np.ndarray | None]
"""Shape, and affine (4, 4) in RAS, mm; None in a format that has none."""
Loaded = tuple[np.ndarray, dict]
"""Array, axes (x, y[, z][, channel]), and the fields of its header with affine, shape and channel axis."""


def _numpy_grid(path: str) -> Grid:
    return tuple(np.load(path, mmap_mode="r").shape), None


def _load_numpy(path: str) -> tuple[np.ndarray, int, np.ndarray, dict]:
    array = np.load(path, allow_pickle=False)
    return array, array.ndim, np.eye(4), {}


class _Format(NamedTuple):
    """What reads the grid of a path, and what gives array, number of spatial axes, affine and header."""

    grid: Callable[..., Grid]
    load: Callable[..., tuple[np.ndarray, int, np.ndarray, dict]]


_FORMATS = {
    "nifti": _Format(read_nifti_grid, load_nifti),
    "dicom": _Format(read_dicom_grid, load_dicom),
    "picture": _Format(read_picture_grid, load_picture),
    "numpy": _Format(_numpy_grid, _load_numpy),
    "npz": _Format(read_npz_grid, load_npz),
    "nrrd": _Format(partial(read_itk_grid, image_io="NrrdImageIO"), partial(load_itk, image_io="NrrdImageIO")),
    "meta": _Format(partial(read_itk_grid, image_io="MetaImageIO"), partial(load_itk, image_io="MetaImageIO")),
    "": _Format(read_itk_grid, load_itk),
}


@contextmanager
def _naming(path: str) -> Iterator[None]:
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


@dataclass(frozen=True)
class ImageFile:
    """An image that is there; its header and its voxels are read when they are asked for.

    Attributes:
        path: of the file, of the folder of a DICOM series, or of the image in an .npz file.
        kind: a format of :func:`~.formats.find_format`, "npz", or "".
        series_uid: the series of a folder with several.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (5, 4)).save(f"{folder}/a.png")
        ...     open_image(f"{folder}/a.png").kind
        'picture'
    """

    path: str
    kind: str
    series_uid: str = ""

    def _read(self, read: Callable[..., Any]) -> Any:
        series = {"series_uid": self.series_uid} if self.kind == "dicom" else {}
        # errors of .npz files name them already
        with nullcontext() if self.kind == "npz" else _naming(self.path):
            return read(self.path, **series)

    def check(self) -> None:
        """Raises a ValueError where a file of no known format is no image either, or a folder holds no series."""
        with _naming(self.path):
            if self.kind == "":
                read_header(self.path)
            elif self.kind == "dicom" and Path(self.path).is_dir():
                list_series(self.path)

    def grid(self) -> Grid:
        """Reads shape and affine from the header; time and channels of NIfTI and .npy are in the shape.

        Raises:
            ValueError: When it cannot be read.
        """
        return self._read(_FORMATS[self.kind].grid)

    def load(self) -> Loaded:
        """Reads the voxels; all axes after the spatial ones become one channel axis, which is named in the meta.

        Raises:
            ValueError: When it cannot be read.
        """
        array, rank, affine, header = self._read(_FORMATS[self.kind].load)
        if array.ndim > rank:
            array = array.reshape(*array.shape[:rank], -1)
        header[MetaKeys.AFFINE] = affine
        header[MetaKeys.SPATIAL_SHAPE] = np.asarray(array.shape[:rank])
        header[MetaKeys.ORIGINAL_CHANNEL_DIM] = -1 if array.ndim > rank else float("nan")
        return array, header


def open_image(path: PathLike, series_uid: str = "") -> ImageFile:
    """Finds an image and its format, which its content says.

    Args:
        path: file, folder with a DICOM series, or image in an .npz file (``FILE.npz#ARRAY/NUMBER``).
        series_uid: the series of a folder with several.

    Raises:
        FileNotFoundError: When there is no such file.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (5, 4)).save(f"{folder}/a.png")
        ...     open_image(f"{folder}/a.png").path.endswith("a.png")
        True
    """
    path = str(path)
    if is_npz_path(path):
        return ImageFile(path, "npz")
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist: correct the data list or put the file there.")
    if Path(path).is_dir():
        return ImageFile(path, "dicom", series_uid)
    with _naming(path):
        return ImageFile(path, find_format(path))


def read_shape(path: PathLike) -> tuple[int, ...]:
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

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     Image.new("L", (8, 6)).save(f"{folder}/a.png")
        ...     read_shape(f"{folder}/a.png")
        (8, 6)
    """
    return open_image(path).grid()[0]
