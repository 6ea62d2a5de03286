# SPDX-License-Identifier: Apache-2.0
"""A DICOM file: its elements, those in sequences included, and its voxels in the units of the modality."""

from __future__ import annotations

import mmap
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from monai.config import PathLike

__all__ = ["DataSet", "Dicom", "count_frames", "frame_groups", "is_dicom", "read_dicom", "read_voxels"]

SYNTAX = 0x00020010
SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
ALLOCATED, STORED, HIGH_BIT, SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
INTERCEPT, SLOPE, LUT, LUT_DESCRIPTOR, LUT_DATA = 0x00281052, 0x00281053, 0x00283000, 0x00283002, 0x00283006
SHARED_GROUPS, FRAME_GROUPS, RESCALING = 0x52009229, 0x52009230, 0x00289145
RUN_LENGTH = "1.2.840.10008.1.2.5"
GREY = ("MONOCHROME1", "MONOCHROME2")
# sequences that are needed, for files that name no types
SEQUENCES = {0x00283000, 0x00289145, 0x00289110, 0x00209113, 0x00209116, 0x52009229, 0x52009230}
PIXELS = {0x7FE00010: "integers", 0x7FE00008: "float32", 0x7FE00009: "float64"}
IMPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
NATIVE = {IMPLICIT, BIG_ENDIAN, DEFLATED, "1.2.840.10008.1.2.1", ""}
_ITEM, _ITEM_END, _SEQUENCE_END, _UNDEFINED = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF
_TYPES = set(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_TYPES = set(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


class DataSet(dict):
    """Values by tag, as bytes, or a list of data sets where the element is a sequence."""

    order = "<"

    def text(self, tag: int) -> str:
        """A text without its padding, "" where it is absent."""
        value = self.get(tag, b"")
        return value.decode("latin-1").strip(" \0") if isinstance(value, bytes) else ""

    def decimals(self, tag: int) -> list[float]:
        """Numbers that are written as text (DS, IS); none where they are absent."""
        return [float(part) for part in self.text(tag).split("\\")] if self.text(tag) else []

    def words(self, tag: int) -> list[int]:
        """Numbers of 16 bits without a sign (US)."""
        value = self.get(tag, b"")
        return np.frombuffer(value, f"{self.order}u2").tolist()

    def sequence(self, tag: int) -> list[DataSet]:
        """Items of a sequence; none where it is absent."""
        value = self.get(tag, [])
        return value if isinstance(value, list) else []


@dataclass(frozen=True)
class Dicom:
    """What :func:`read_dicom` finds in a file.

    Attributes:
        path: of the file.
        elements: of the data set, without the pixels.
        syntax: UID of the transfer syntax, "" where the file names none.
        kind: of the pixels, a value of ``PIXELS``, "" where the file has none.
        pixels: their bytes as stored; empty unless asked for.
    """

    path: str
    elements: DataSet
    syntax: str
    kind: str
    pixels: bytes


def _has_type(content: bytes | mmap.mmap, at: int) -> bool:
    return content[at + 4 : at + 6] in _TYPES | _LONG_TYPES


def _parse(content: bytes | mmap.mmap, at: int, end: int, explicit: bool, order: str, last: int) -> tuple[DataSet, int]:
    """Elements until `end`, the end of an item, the pixels, or a tag after `last`; and the place behind them."""
    found = DataSet()
    found.order = order
    while at + 8 <= end:
        group, element = struct.unpack_from(f"{order}HH", content, at)
        tag = group << 16 | element
        if tag in (_ITEM_END, _SEQUENCE_END):
            return found, at + 8
        if tag in PIXELS or tag > last:
            return found, at
        kind = content[at + 4 : at + 6] if explicit else b""
        if kind in _TYPES:
            (length,), start = struct.unpack_from(f"{order}H", content, at + 6), at + 8
        elif kind in _LONG_TYPES and at + 12 <= end:
            (length,), start = struct.unpack_from(f"{order}I", content, at + 8), at + 12
        else:  # no types, or a private item written without them
            (length,), start = struct.unpack_from(f"{order}I", content, at + 4), at + 8
        if length == _UNDEFINED or kind == b"SQ" or (not kind and tag in SEQUENCES):
            stop = end if length == _UNDEFINED else start + length
            found[tag], at = _parse_items(content, start, min(stop, end), explicit and kind != b"UN", order)
            continue
        if start + length > end:
            raise ValueError(f"element {group:04x},{element:04x} is cut off: the file is truncated")
        found[tag], at = content[start : start + length], start + length
    return found, at


def _parse_items(
    content: bytes | mmap.mmap, at: int, end: int, explicit: bool, order: str
) -> tuple[list[DataSet], int]:
    items = []
    while at + 8 <= end:
        group, element, length = struct.unpack_from(f"{order}HHI", content, at)
        at += 8
        if group << 16 | element != _ITEM:
            break
        stop = end if length == _UNDEFINED else min(at + length, end)
        item, behind = _parse(content, at, stop, explicit, order, _UNDEFINED)
        items.append(item)
        at = behind if length == _UNDEFINED else stop
    return items, at


def is_dicom(head: bytes) -> bool:
    """Tells DICOM by its first 132 bytes; old files begin with the data set, in the order of its tags."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16 or head[:2] not in (b"\x02\x00", b"\x08\x00") or head[3] != 0:
        return False
    return _has_type(head, 0) or struct.unpack_from("<I", head, 4)[0] <= 64


@contextmanager
def _mapped(path: PathLike) -> Iterator[mmap.mmap]:
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def read_dicom(path: PathLike, last: int = _UNDEFINED, pixels: bool = False) -> Dicom:
    """Reads a file's elements.

    Args:
        path: the file.
        last: highest tag that is read.
        pixels: whether the pixels are read too: their bytes, or where they are compressed their whole element.

    Returns:
        The data set; with ``last`` the pixels are not looked for.

    Raises:
        ValueError: When the file is no DICOM or is truncated.
    """
    try:
        with _mapped(path) as mapped:
            content: bytes | mmap.mmap = mapped
            at = 132 if content[128:132] == b"DICM" else 0
            meta, at = _parse(content, at, len(content), True, "<", 0x0002FFFF)
            syntax = meta.text(SYNTAX)
            if syntax == DEFLATED:
                content, at = zlib.decompress(content[at:], -15), 0
            order = ">" if syntax == BIG_ENDIAN else "<"
            explicit = _has_type(content, at) if syntax in ("", IMPLICIT) else True
            elements, at = _parse(content, at, len(content), explicit, order, last)
            tag, start, length = 0, at + (12 if explicit else 8), 0
            if start <= len(content):
                group, element = struct.unpack_from(f"{order}HH", content, at)
                tag, (length,) = group << 16 | element, struct.unpack_from(f"{order}I", content, start - 4)
            stored = b""
            if pixels:
                native = length != _UNDEFINED
                stored = content[start : start + length] if native else content[at:]
    except (ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}): replace the file.") from error
    return Dicom(str(path), elements, syntax, PIXELS.get(tag, ""), stored)


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
