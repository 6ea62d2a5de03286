# SPDX-License-Identifier: Apache-2.0
"""One image out of an array of many: paths like ``organmnist3d.npz#train_images/12``, and their reader for MONAI."""

from __future__ import annotations

import os
import re
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, ensure_tuple

__all__ = [
    "NpzReader",
    "is_npz_path",
    "list_npz_arrays",
    "load_npz",
    "npz_path",
    "read_npz_array",
    "read_npz_grid",
    "read_npz_image",
    "read_npz_shape",
]

_PATH = re.compile(r"(?P<file>.+\.npz)#(?P<key>\w+)[/\\](?P<index>\d+)")
_ARRAYS = 2  # training and validation
_LOCK = threading.Lock()  # threads that fill a cache wait for one to decompress the array


def npz_path(file: PathLike, key: str, index: int) -> str:
    """Path of image `index` of the array `key`.

    Example:
        >>> npz_path("organmnist3d.npz", "train_images", 12)
        'organmnist3d.npz#train_images/12'
    """
    return f"{file}#{key}/{index}"


def is_npz_path(path: PathLike) -> bool:
    """Whether a path is one of :func:`npz_path`."""
    return _PATH.fullmatch(str(path)) is not None


@contextmanager
def _opened(file: PathLike) -> Iterator[np.lib.npyio.NpzFile]:
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} does not exist: correct the path or put the file there.")
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("no zip archive, or cut off")
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays
    # a damaged archive raises errors of zipfile, zlib, numpy or the file system
    except Exception as error:
        cause = str(error) or type(error).__name__
        raise ValueError(f"{file} cannot be read as .npz ({cause}): get the file again.") from error


def list_npz_arrays(file: PathLike) -> list[str]:
    """Names of the arrays in an .npz file; raises as :func:`read_npz_array` does."""
    with _opened(file) as arrays:
        return list(arrays)


def _check_key(file: PathLike, key: str) -> None:
    if key not in (names := list_npz_arrays(file)):
        raise ValueError(f"{file} has no array {key!r} (found: {names}). Correct the key, or the file.")


def read_npz_shape(file: PathLike, key: str) -> tuple[int, ...]:
    """Reads the shape of one array without the array; raises as :func:`read_npz_array` does."""
    _check_key(file, key)
    with _opened(file), zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as member:
        is_first = np.lib.format.read_magic(member) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
        return read(member)[0]


def read_npz_array(file: PathLike, key: str) -> np.ndarray:
    """Reads one array of an .npz file, whole, so that its checksum is compared too.

    Args:
        file: the .npz file.
        key: name of the array.

    Raises:
        FileNotFoundError: When the file does not exist.
        ValueError: When it is no .npz file, is damaged, or has no such array.
    """
    _check_key(file, key)
    with _opened(file) as arrays:
        return arrays[key]


@lru_cache(maxsize=_ARRAYS)
def _cached_array(file: str, key: str, changed: int) -> np.ndarray:
    """`changed`, the file's time stamp, makes a new file under the old name a new array."""
    array = read_npz_array(file, key)
    array.setflags(write=False)
    return array


def read_npz_image(path: PathLike) -> np.ndarray:
    """Reads one image; the array that it is in stays in the memory of the process.

    Worker processes that are forked after the first call share it.

    Args:
        path: as :func:`npz_path` makes it.

    Returns:
        (H, W), (H, W, 3) or (D, H, W), read-only.

    Raises:
        FileNotFoundError: When the file does not exist.
        ValueError: When the path has another form, or the file cannot be read or has no such image.
    """
    match = _PATH.fullmatch(str(path))
    if match is None:
        raise ValueError(f"{path} is no path of an image in an .npz file; expected FILE.npz#ARRAY/NUMBER.")
    file, key, index = match["file"], match["key"], int(match["index"])
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} does not exist: correct the path or put the file there.")
    with _LOCK:
        array = _cached_array(file, key, os.stat(file).st_mtime_ns)
    if array.ndim not in (3, 4) or index >= len(array):
        raise ValueError(
            f"{path} does not exist: {key} has the shape {array.shape}; expected (images, height, width), "
            "(images, height, width, 3) or (images, depth, height, width) with that many images."
        )
    return array[index]


def _is_color(image: np.ndarray) -> bool:
    return image.ndim == 3 and image.shape[-1] == 3


def read_npz_grid(path: PathLike) -> tuple[tuple[int, ...], None]:
    """Shape as MONAI's readers have it, and no affine; the array is read, once."""
    image = read_npz_image(path)
    return image.shape[1::-1] if _is_color(image) else image.shape[::-1], None


def _turned(image: np.ndarray) -> np.ndarray:
    """A copy with the axes of MONAI's readers, (W, H[, D][, color]): the cached array must stay as it is."""
    return np.array(np.swapaxes(image, 0, 1) if _is_color(image) else image.T, order="C")


def load_npz(path: PathLike) -> tuple[np.ndarray, int, np.ndarray, dict]:
    """Array (W, H[, D][, color]), the number of its spatial axes, the identity as affine, and no header."""
    image = read_npz_image(path)
    return _turned(image), 2 if _is_color(image) else image.ndim, np.eye(4), {}


class NpzReader(ImageReader):
    """Reads one image of an array of many, for MONAI's LoadImage.

    The axes come out as those of MONAI's other readers: (W, H) and (W, H, channel), what PILReader gives for the same
    picture saved as PNG, and (W, H, D) for a volume (D, H, W), its slices last. A last axis of 3 is colour.
    MedMNIST gives no voxel sizes and no directions, so the affine is the identity. Several paths are stacked as
    channels.

    Example:
        >>> import tempfile
        >>> from monai.transforms import LoadImage
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/a.npz", train_images=np.zeros((5, 3, 4), np.uint8))
        ...     LoadImage(reader=NpzReader)(npz_path(f"{folder}/a.npz", "train_images", 2)).shape
        torch.Size([4, 3])
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether all paths are of images in .npz files."""
        return all(is_npz_path(name) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike) -> list[np.ndarray]:
        """Reads the images of one or several paths; see :func:`read_npz_image` for what it raises."""
        return [read_npz_image(path) for path in ensure_tuple(data)]

    def get_data(self, img: Sequence[np.ndarray]) -> tuple[np.ndarray, dict]:
        """Array and meta data of what :meth:`read` gave.

        Args:
            img: images (H, W), (H, W, 3) or (D, H, W).

        Returns:
            The array, axes (W, H[, D]) and a channel axis: last for colour, first for several images.

        Raises:
            ValueError: When several images differ in shape, or are in colour.
        """
        if len(img) > 1 and (any(map(_is_color, img)) or len({image.shape for image in img}) > 1):
            raise ValueError(
                f"Images of the shapes {[image.shape for image in img]} cannot be channels of one; expected grey ones "
                "of one shape."
            )
        array = _turned(img[0]) if len(img) == 1 else np.stack([_turned(image) for image in img])
        channel = 0 if len(img) > 1 else -1 if _is_color(img[0]) else None
        meta = {
            MetaKeys.AFFINE: np.eye(4),
            MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape if channel is None else np.delete(array.shape, channel)),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if channel is None else channel,
        }
        return array, meta
