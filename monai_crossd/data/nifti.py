# SPDX-License-Identifier: Apache-2.0
"""NIfTI by nibabel, whatever its file is called, and to the end of a compressed file, where its checksum is."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
from monai.data import NibabelReader
from monai.data.utils import correct_nifti_header_if_necessary

from .checksums import check_gzip, drain
from .formats import has_suffix

__all__ = ["read_nifti", "read_nifti_grid"]

_PAIRS = (".hdr", ".img", ".hdr.gz", ".img.gz")


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[nib.Nifti1Image, IO[bytes]]]:
    """An image of one file, whose data are still to be read from the stream."""
    with Path(path).open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=file) if compressed else file  # type: ignore[assignment]
        kind = nib.Nifti2Image if stream.read(4) in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image
        stream.seek(0)
        yield kind.from_file_map(kind.make_file_map({"image": stream})), stream


def read_nifti_grid(path: str | Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Reads shape and affine from the header."""
    if has_suffix(path, _PAIRS):
        image = nib.load(path)
        return tuple(int(n) for n in image.shape), image.affine
    with _opened(path) as (image, _):
        return tuple(int(n) for n in image.shape), image.affine


def read_nifti(path: str) -> tuple[np.ndarray, dict]:
    """Reads an image as MONAI's NibabelReader does.

    Args:
        path: file of NIfTI-1 or -2, compressed or not, or one of a pair .hdr and .img.

    Returns:
        Array and header.
    """
    reader = NibabelReader()
    if has_suffix(path, _PAIRS):
        image = reader.read(path)
        for holder in image.file_map.values():
            if has_suffix(holder.filename, (".gz",)):
                check_gzip(holder.filename)
        return reader.get_data(image)
    reader.filenames = (path,)
    with _opened(path) as (image, stream):
        array, header = reader.get_data(correct_nifti_header_if_necessary(image))
        if isinstance(stream, gzip.GzipFile):
            drain(stream)
    return array, header
