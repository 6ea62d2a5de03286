# SPDX-License-Identifier: Apache-2.0
"""The elements of a DICOM file, those in sequences included, which SimpleITK does not list, and its stored pixels."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai.config import PathLike

__all__ = ["DataSet", "Dicom", "group_series", "is_dicom", "read_dicom"]

SYNTAX, SERIES, ROWS = 0x00020010, 0x0020000E, 0x00280010
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


def group_series(paths: Iterable[PathLike]) -> dict[str, list[Path]]:
    """Groups DICOM files by their series instance UID, without those that hold no image, as reports and DICOMDIR."""
    series: dict[str, list[Path]] = {}
    for path in paths:
        elements = read_dicom(path, last=ROWS).elements
        if ROWS in elements:
            series.setdefault(elements.text(SERIES), []).append(Path(path))
    return series
