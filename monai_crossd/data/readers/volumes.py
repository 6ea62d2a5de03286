# SPDX-License-Identifier: Apache-2.0
"""NIfTI, NRRD, MetaImage and what else SimpleITK reads: grid, voxels to their checksum, files beside a header."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monai.data import NibabelReader, orientation_ras_lps
from monai.data.utils import correct_nifti_header_if_necessary
from monai.utils import MetaKeys

from .formats import has_suffix

__all__ = ["grid_affine", "load_itk", "load_nifti", "partners", "read_header", "read_itk_grid", "read_nifti_grid"]

_PAIRS = (".hdr", ".img", ".hdr.gz", ".img.gz")
_PARTNERS = {
    ".hdr": (".img", ".img.gz", ".mat"),
    ".img": (".hdr", ".mat"),
    ".head": (".brik", ".brik.gz"),
    ".brik": (".head",),
    ".par": (".rec",),
    ".rec": (".par",),
}
_FIELD = re.compile(rb"\s*([^:=]+?)\s*[:=]\s*(.*?)\s*")  # "key = value" of MetaImage, "key: value" of NRRD
_DATA_FILE = ("elementdatafile", "data file", "datafile")
_BLOCK = 1 << 20
_HEADER = 1 << 16  # bytes, of a list of files


def _drain(stream: IO[bytes] | gzip.GzipFile) -> None:
    """Reads the rest of a stream; one of gzip compares its checksum at the end."""
    while stream.read(_BLOCK):
        pass


def _fields(file: IO[bytes]) -> dict[str, str]:
    """Fields of a MetaImage or NRRD header; the file then stands behind it, or at its list of files."""
    fields: dict[str, str] = {}
    while (line := file.readline(_BLOCK)).strip():
        if found := _FIELD.fullmatch(line):
            key, value = found[1].decode("latin-1").lower(), os.fsdecode(found[2])
            fields[key] = value
            if key == _DATA_FILE[0] or (key in _DATA_FILE and value.upper().startswith("LIST")):
                break
    return fields


def _data_file(fields: dict[str, str]) -> str:
    """The file with the voxels, or the word or pattern for several; "" where they follow the header."""
    found = next((fields[key] for key in _DATA_FILE if key in fields), "LOCAL")
    return "" if found.upper() == "LOCAL" else found


def _check_rest(file: IO[bytes]) -> None:
    """Decompresses the rest of a file, of zlib or gzip, to the checksum at its end."""
    decompress = zlib.decompressobj(zlib.MAX_WBITS | 32)
    while not decompress.eof:
        block = decompress.unconsumed_tail or file.read(_BLOCK)
        if not block:
            raise EOFError("compressed voxels end before their checksum")
        decompress.decompress(block, _BLOCK)


def _check_compressed(path: str) -> None:
    """Raises where the compressed voxels of a MetaImage or NRRD file, or of the file that it names, are damaged."""
    with Path(path).open("rb") as file:
        fields = _fields(file)
        if fields.get("encoding", "").lower() in ("gzip", "gz") or fields.get("compresseddata", "").lower() in (
            "true",
            "1",
        ):
            name = _data_file(fields)
            if not name:
                _check_rest(file)
            elif (voxels := Path(path).parent / name).is_file():  # else a list or pattern of files
                with voxels.open("rb") as other:
                    _check_rest(other)


def partners(path: Path) -> list[Path]:
    """Files that may be read with one: the voxels of a MetaImage, NRRD, Analyze, AFNI or Philips header, the header."""
    suffix = path.suffix.lower()
    if suffix in (".mhd", ".nhdr"):
        with path.open("rb") as file:
            name, rest = _data_file(_fields(file)), file.read(_HEADER)
        if not name or (path.parent / name).is_file():
            return [path.parent / name] if name else []
        # a list, a file each line, or a pattern as slice%03d.raw
        listed = [path.parent / os.fsdecode(line.strip()) for line in rest.split(b"\n") if line.strip()]
        return [*listed, *(entry for entry in sorted(path.parent.iterdir()) if entry.is_file())]
    if suffix not in _PARTNERS:
        return []
    stem = path.with_name(path.name.removesuffix(".gz")).with_suffix("")
    return [
        stem.with_name(stem.name + end)
        for other in _PARTNERS[suffix]
        for end in (other, other.upper(), other.upper().replace(".GZ", ".gz"))
    ]


@contextmanager
def _opened(path: str) -> Iterator[tuple[nib.Nifti1Image, IO[bytes]]]:
    """An image of one file, whose data are still to be read from the stream."""
    with Path(path).open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=file) if compressed else file  # type: ignore[assignment]
        kind = nib.Nifti2Image if stream.read(4) in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image
        stream.seek(0)
        yield kind.from_file_map(kind.make_file_map({"image": stream})), stream


def read_nifti_grid(path: str) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of NIfTI or Analyze from the header, whatever the file is called."""
    if has_suffix(path, _PAIRS):
        image = nib.load(path)
        return tuple(int(n) for n in image.shape), image.affine
    with _opened(path) as (image, _):
        return tuple(int(n) for n in image.shape), image.affine


def load_nifti(path: str) -> tuple[np.ndarray, int, np.ndarray, dict]:
    """Array, number of spatial axes, affine and header as MONAI's NibabelReader gives them, of a file or a pair."""
    reader = NibabelReader()
    if has_suffix(path, _PAIRS):
        image = reader.read(path)
        for holder in image.file_map.values():
            if has_suffix(holder.filename, (".gz",)):
                with gzip.open(holder.filename) as stream:
                    _drain(stream)
        array, header = reader.get_data(image)
    else:
        reader.filenames = (path,)
        with _opened(path) as (image, stream):
            array, header = reader.get_data(correct_nifti_header_if_necessary(image))
            if isinstance(stream, gzip.GzipFile):
                _drain(stream)
    if array.dtype.fields:  # RGB is a structure to nibabel
        array = np.stack([array[name] for name in array.dtype.names or ()], axis=-1)
    return array, min(3, len(header[MetaKeys.SPATIAL_SHAPE])), header[MetaKeys.AFFINE], header


def read_header(path: str, image_io: str = "") -> sitk.ImageFileReader:
    """Reads an image's header by SimpleITK; ``Execute()`` of what is returned reads the voxels."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(path)
    reader.ReadImageInformation()
    return reader


def grid_affine(header: sitk.ImageFileReader) -> np.ndarray:
    """Affine (4, 4) in ITK's LPS, mm, of an image of any rank: time has no place in it, a missing axis is unit."""
    rank = header.GetDimension()
    direction = np.reshape(header.GetDirection(), (rank, rank)) @ np.diag(header.GetSpacing())
    n = min(rank, 3)
    affine = np.eye(4)
    affine[:n, :n] = direction[:n, :n]
    affine[:n, 3] = header.GetOrigin()[:n]
    return affine


def read_itk_grid(path: str, image_io: str = "") -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine by SimpleITK, of the format with that name in ITK, or of any."""
    header = read_header(path, image_io)
    return tuple(header.GetSize()), orientation_ras_lps(grid_affine(header))


def load_itk(path: str, image_io: str = "") -> tuple[np.ndarray, int, np.ndarray, dict]:
    """Array, number of spatial axes, affine and header by SimpleITK; arguments as of :func:`read_itk_grid`."""
    if image_io:
        _check_compressed(path)
    header = read_header(path, image_io)
    image = header.Execute()
    array = sitk.GetArrayFromImage(image).T  # axes (component, x, y, z, time), the first and last where it has them
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, 0, -1)
    fields = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if not key.startswith("ITK_")}
    return array, min(3, image.GetDimension()), orientation_ras_lps(grid_affine(header)), fields
