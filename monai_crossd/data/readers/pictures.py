# SPDX-License-Identifier: Apache-2.0
"""PNG, JPEG, TIFF, BMP and GIF by Pillow: upright, in grey or colors, and a file of several pages as a volume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, ImageSequence, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from .volumes import load_itk, read_itk_grid

__all__ = ["load_picture", "read_picture_grid"]

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _X_RESOLUTION, _Y_RESOLUTION, _UNIT, _SAMPLE_FORMAT = (
    254,
    256,
    257,
    258,
    282,
    283,
    296,
    339,
)  # tags of TIFF
_MILLIMETRES = {2: 25.4, 3: 10.0}  # of the unit of a resolution
_STACKS = ("TIFF", "GIF")
_AS = {"P": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    # without its name: Pillow would map the file into memory, and gets the shape of a turned TIFF wrong then
    with Path(path).open("rb") as file, Image.open(file) as image:
        yield image


def _is_tiff(path: str | Path) -> bool:
    with Path(path).open("rb") as file:
        return file.read(2) in (b"II", b"MM")


def _orientation(image: Image.Image) -> int:
    exif = Image.Image.getexif(image)  # the class's own, of PNG, unpacks the whole picture to look behind it
    return int(exif.get(ExifTags.Base.Orientation, 1))


def _is_wide(image: Image.Image) -> bool:
    """Whether Pillow would take the lower bits away, or a sign for a number."""
    if isinstance(image, PngImageFile):
        return image.mode != "I;16" and ";16B" in str(image.tile)
    if not isinstance(image, TiffImageFile):
        return False
    bits = image.tag_v2.get(_BITS, (1,))
    unsigned = image.tag_v2.get(_SAMPLE_FORMAT, (1,))[0] == 1
    return (len(bits) > 1 and max(bits) > 8) or (max(bits) == 32 and unsigned)


def _upright(image: Image.Image) -> np.ndarray:
    """(rows, columns[, channels]) as the orientation tag says it is meant to be seen."""
    image = ImageOps.exif_transpose(image)
    mode = "RGBA" if image.mode == "P" and "transparency" in image.info else _AS.get(image.mode, image.mode)
    array = np.asarray(image.convert(mode) if mode != image.mode else image)
    return array.astype(np.uint8 if array.dtype == bool else array.dtype.newbyteorder("="))


def _pages(path: str | Path, image: Image.Image) -> list[np.ndarray]:
    if image.format not in _STACKS:
        return [_upright(image)]
    # a TIFF may keep smaller copies of its page
    frames = (frame for frame in ImageSequence.Iterator(image) if not _is_reduced(frame))
    pages = [_upright(frame) for frame in frames]
    if len({page.shape for page in pages}) > 1:
        raise ValueError(
            f"{path} has pages of the shapes {sorted({page.shape for page in pages})}, which are no volume: save each "
            "page as a file."
        )
    return pages


def _is_reduced(frame: Image.Image) -> bool:
    return isinstance(frame, TiffImageFile) and bool(frame.tag_v2.get(_SUBFILE, 0) & 1)


def _spacing(image: Image.Image) -> tuple[float, float]:
    """Pixel size in mm of a TIFF; the resolution of other formats is that of a printer."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    unit, x, y = (tags.get(tag, 0) for tag in (_UNIT, _X_RESOLUTION, _Y_RESOLUTION))
    if unit not in _MILLIMETRES or not (x > 0 and y > 0):
        return 1.0, 1.0
    size = float(_MILLIMETRES[unit] / x), float(_MILLIMETRES[unit] / y)
    return size[::-1] if _orientation(image) > 4 else size


def _without_opaque_alpha(array: np.ndarray) -> np.ndarray:
    """Of grey and alpha, or RGBA: an alpha that says nothing is dropped, another stays a channel."""
    if array.shape[-1] not in (2, 4) or not (array[..., -1] == np.iinfo(array.dtype).max).all():
        return array
    return array[..., 0] if array.shape[-1] == 2 else array[..., :-1]


def _read(path: str, image: Image.Image) -> tuple[np.ndarray, int]:
    if _is_wide(image):
        if "LA;16B" in str(getattr(image, "tile", "")) or _orientation(image) > 1:
            raise ValueError(
                f"{path} cannot be read as an image (16 bits with alpha, or turned by its orientation tag): save it "
                "upright and without alpha."
            )
        return load_itk(path)[:2]
    pages = _pages(path, image)
    return (pages[0].swapaxes(0, 1), 2) if len(pages) == 1 else (np.stack(pages).swapaxes(0, 2), 3)


def read_picture_grid(path: str) -> tuple[tuple[int, ...], None]:
    """Shape from the header, upright, and no affine: what a picture says of its pixels is often a printer's."""
    try:
        with _opened(path) as image:
            pages = 1
            if image.format in _STACKS:
                pages = sum(not _is_reduced(frame) for frame in ImageSequence.Iterator(image))
                image.seek(0)
            size = image.size
            if isinstance(image, TiffImageFile):  # newer Pillow turns its size already
                size = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
            size = size[::-1] if _orientation(image) > 4 else size
    except UnidentifiedImageError:
        if not _is_tiff(path):
            raise
        return read_itk_grid(path)[0], None
    return (*size, pages) if pages > 1 else size, None


def load_picture(path: str) -> tuple[np.ndarray, int, np.ndarray, dict]:
    """Reads a picture as Pillow does, upright.

    Palettes and the colors of printers become RGB, one bit becomes 0 and 1, an opaque alpha channel is dropped and
    a transparent one kept. Colors of 16 bits and numbers that Pillow has no type for are read by SimpleITK.

    Args:
        path: of the file.

    Returns:
        The array (x, y[, page][, channel]), the number of its spatial axes, its affine (4, 4): the pixel size of a
        TIFF, otherwise the identity, and no header.

    Raises:
        ValueError: When its pages differ in shape, or it has to be turned and Pillow cannot.
    """
    try:
        with _opened(path) as image:
            if image.format == "PNG":
                image.verify()  # the checksums, which loading leaves out
        with _opened(path) as image:
            spacing = _spacing(image)
            array, rank = _read(path, image)
    except UnidentifiedImageError:
        if not _is_tiff(path):
            raise
        array, rank, affine, _ = load_itk(path)
        spacing = tuple(np.linalg.norm(affine[:, :2], axis=0))
    if array.ndim > rank and array.dtype.kind == "u":
        array = _without_opaque_alpha(array)
    return array, rank, np.diag([*spacing, 1.0, 1.0]), {}
