# SPDX-License-Identifier: Apache-2.0
"""Voxels of a DICOM file in the units of its modality: what is stored, and its rescaling frame by frame."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .dicom_header import NATIVE, DataSet, Dicom, read_dicom

__all__ = ["count_frames", "frame_groups", "read_voxels"]

SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
ALLOCATED, STORED, HIGH_BIT, SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
INTERCEPT, SLOPE, LUT, LUT_DESCRIPTOR, LUT_DATA = 0x00281052, 0x00281053, 0x00283000, 0x00283002, 0x00283006
SHARED_GROUPS, FRAME_GROUPS, RESCALING = 0x52009229, 0x52009230, 0x00289145
RUN_LENGTH = "1.2.840.10008.1.2.5"
GREY = ("MONOCHROME1", "MONOCHROME2")


def count_frames(elements: DataSet) -> int:
    """Number of frames, 1 where the file does not say."""
    return int((elements.decimals(FRAMES) or [1])[0])


def frame_groups(elements: DataSet, tag: int) -> list[DataSet]:
    """The item of a functional group for each frame: the frame's own, or the shared, or the data set itself."""
    shared = next(iter(elements.sequence(SHARED_GROUPS)), DataSet())
    common = next(iter(shared.sequence(tag)), elements)
    frames = elements.sequence(FRAME_GROUPS) or [DataSet()] * count_frames(elements)
    return [next(iter(frame.sequence(tag)), common) for frame in frames]


def _number(elements: DataSet, tag: int, default: int = 0) -> int:
    return (elements.words(tag) or [default])[0]


def _check_complete(path: str, found: int, expected: int) -> None:
    if found < expected:
        raise ValueError(
            f"{path} cannot be read as an image ({found} of {expected} pixels): it is truncated. Replace the file."
        )


def _native(dicom: Dicom) -> np.ndarray:
    """Stored values (frames, rows, columns); what old scanners wrote into the unused bits is taken off."""
    elements = dicom.elements
    allocated, order = _number(elements, ALLOCATED), elements.order
    shape = (count_frames(elements), _number(elements, ROWS), _number(elements, COLUMNS))
    signed = bool(_number(elements, SIGNED))
    if allocated == 1:  # segmentations: eight voxels a byte, also across frames
        bits = np.unpackbits(np.frombuffer(dicom.pixels, np.uint8), bitorder="little")
        _check_complete(dicom.path, bits.size, int(np.prod(shape)))
        return bits[: np.prod(shape)].reshape(shape)
    dtype = np.dtype(f"{order}{'i' if signed else 'u'}{allocated // 8}" if dicom.kind == "integers" else dicom.kind)
    expected = int(np.prod(shape))
    _check_complete(dicom.path, len(dicom.pixels) // dtype.itemsize, expected)
    dtype = dtype if dicom.kind == "integers" else np.dtype(f"{order}f{dtype.itemsize}")
    array = np.frombuffer(dicom.pixels, dtype, expected).reshape(shape)
    array = array.astype(dtype.newbyteorder("="))
    stored = _number(elements, STORED, allocated)
    if dicom.kind == "integers" and stored < allocated:
        above = max(0, allocated - 1 - _number(elements, HIGH_BIT, stored - 1))
        array = (array << above) >> (allocated - stored)
    return array


def _element(tag: int, kind: bytes, value: bytes) -> bytes:
    value += (b"\0" if kind == b"UI" else b" ") * (len(value) % 2)
    length = struct.pack("<HI", 0, len(value)) if kind == b"OB" else struct.pack("<H", len(value))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind + length + value


def _decompressed(dicom: Dicom) -> np.ndarray:
    """Stored values of compressed pixels, by GDCM; it sees no rescaling and no MONOCHROME1, which it would invert."""
    elements = dicom.elements
    uid = b"1.2.840.10008.5.1.4.1.1.7.3"  # secondary capture of several frames: no geometry, no rescaling
    meta = _element(0x00020001, b"OB", b"\0\1") + _element(0x00020002, b"UI", uid)
    meta += _element(0x00020003, b"UI", b"2.25.1") + _element(0x00020010, b"UI", dicom.syntax.encode())
    body = _element(0x00080016, b"UI", uid) + _element(0x00080018, b"UI", b"2.25.1")
    values = {tag: (b"US", elements[tag]) for tag in (SAMPLES, ROWS, COLUMNS, ALLOCATED, STORED, HIGH_BIT, SIGNED)}
    values |= {PHOTOMETRIC: (b"CS", b"MONOCHROME2"), FRAMES: (b"IS", str(count_frames(elements)).encode())}
    body += b"".join(_element(tag, *values[tag]) for tag in sorted(values))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pixels.dcm")
        head = bytes(128) + b"DICM" + _element(0x00020000, b"UL", struct.pack("<I", len(meta)))
        path.write_bytes(head + meta + body + dicom.pixels)
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
    return array.reshape(-1, *array.shape[-2:])


def _look_up(stored: np.ndarray, table: DataSet) -> np.ndarray:
    """The table of a modality, for what no slope can say."""
    count, first, bits = table.words(LUT_DESCRIPTOR)
    first = first - 0x10000 if first > 0x7FFF and stored.dtype.kind == "i" else first
    data = np.frombuffer(table[LUT_DATA], f"{table.order}u{1 if len(table[LUT_DATA]) == count and bits <= 8 else 2}")
    return data[np.clip(stored.astype(np.int64) - first, 0, (count or 0x10000) - 1)]


def _rescale(stored: np.ndarray, slopes: np.ndarray, intercepts: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers stay whole, in the smallest type that holds whatever may be stored."""
    if (slopes == 1).all() and (intercepts == 0).all():
        return stored
    real = stored.dtype.kind == "f" or (slopes % 1).any() or (intercepts % 1).any()
    ends = (-(1 << bits - 1), (1 << bits - 1) - 1) if stored.dtype.kind == "i" else (0, (1 << bits) - 1)
    limits = [int(end) * int(a) + int(b) for a, b in zip(slopes, intercepts, strict=True) for end in ends]
    fits = (np.iinfo(dtype) for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", "i8"))
    dtype = next((info.dtype for info in fits if info.min <= min(limits) and max(limits) <= info.max), None)
    if real or dtype is None:
        return stored * slopes[:, None, None] + intercepts[:, None, None]
    a, b = (part.astype(np.int64).astype(dtype)[:, None, None] for part in (slopes, intercepts))
    return stored.astype(dtype) * a + b  # what overflows on the way comes back


def read_voxels(path: str) -> np.ndarray:
    """Reads the frames of a file.

    Slopes, intercepts and tables are applied to the values as stored. MONOCHROME1 says how to show an image; its
    values stay. Colours are SimpleITK's.

    Args:
        path: of the file.

    Returns:
        (frames, rows, columns) or (frames, rows, columns, colours).

    Raises:
        ValueError: When it has no pixels or is truncated.
    """
    dicom = read_dicom(path, pixels=True)
    elements = dicom.elements
    if not dicom.kind:
        raise ValueError(f"{path} cannot be read as an image (it has no pixels): drop it from the list.")
    photometric, samples = elements.text(PHOTOMETRIC), _number(elements, SAMPLES, 1)
    if dicom.kind == "integers" and (photometric not in GREY or samples != 1):
        if dicom.syntax == RUN_LENGTH and _number(elements, ALLOCATED) > 8:
            raise ValueError(
                f"{path} has colors of more than 8 bits in run-length encoding, which GDCM mixes up: decompress it "
                "first, as by dcmdrle of DCMTK."
            )
        image = sitk.ReadImage(path, imageIO="GDCMImageIO")
        array = sitk.GetArrayFromImage(image)
        colours = (image.GetNumberOfComponentsPerPixel(),) if image.GetNumberOfComponentsPerPixel() > 1 else ()
        return array.reshape(-1, *image.GetSize()[1::-1], *colours)
    native = dicom.syntax in NATIVE
    stored = _native(dicom) if native else _decompressed(dicom)
    if tables := elements.sequence(LUT):
        return _look_up(stored, tables[0])
    groups = frame_groups(elements, RESCALING)
    slopes = np.array([(group.decimals(SLOPE) or [1.0])[0] for group in groups])
    intercepts = np.array([(group.decimals(INTERCEPT) or [0.0])[0] for group in groups])
    if len(slopes) != len(stored):
        raise ValueError(f"{path} has {len(stored)} frames and describes {len(slopes)}: replace the file.")
    return _rescale(stored, slopes, intercepts, _number(elements, STORED, stored.dtype.itemsize * 8))
