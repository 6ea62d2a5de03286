# SPDX-License-Identifier: Apache-2.0
"""One image out of an array of many: paths like ``organmnist3d.npz#train_images/12``."""

from __future__ import annotations

import os
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from monai.config import PathLike

__all__ = [
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


def load_npz(path: PathLike) -> tuple[np.ndarray, int, np.ndarray, dict]:
    """Array (W, H[, D][, color]), the number of its spatial axes, the identity as affine, and no header."""
    image = read_npz_image(path)
    turned = np.swapaxes(image, 0, 1) if _is_color(image) else image.T
    # a copy: the cached array must stay as it is
    return np.array(turned, order="C"), 2 if _is_color(image) else image.ndim, np.eye(4), {}
