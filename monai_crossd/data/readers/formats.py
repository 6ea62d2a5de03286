# SPDX-License-Identifier: Apache-2.0
"""What a file is: its first bytes say it, and its name only where they do not; and what a folder holds."""

from __future__ import annotations

import zlib
from pathlib import Path

from monai.config import PathLike

from .dicom import is_dicom

__all__ = [
    "NIFTI",
    "PICTURES",
    "SUFFIXES",
    "find_format",
    "has_suffix",
    "image_format",
    "is_cache",
    "list_entries",
    "mark_cache",
]

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")
_BY_SUFFIX = {
    "nifti": NIFTI,
    "picture": PICTURES,
    "nrrd": (".nrrd", ".nhdr"),
    "meta": (".mha", ".mhd"),
    "dicom": (".dcm", ".dicom", ".ima"),
    "numpy": (".npy",),
}
SUFFIXES = tuple(suffix for suffixes in _BY_SUFFIX.values() for suffix in suffixes)

_STARTS = {
    "nrrd": (b"NRRD",),
    "numpy": (b"\x93NUMPY",),
    "picture": (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
_BITMAPS = {bytes([size, 0, 0, 0]) for size in (12, 40, 52, 56, 64, 108, 124)}  # sizes of the header that follows
_HEAD = 540  # bytes of the longest header, NIfTI-2's
# https://bford.info/cachedir: backup programs leave such folders out, and so do our lists of images
_TAG, _SIGNATURE = "CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55"
_BLOCK = 4096  # of a compressed file; more would meet damage further on


def has_suffix(path: PathLike, suffixes: tuple[str, ...]) -> bool:
    """Tells whether a file name ends in one of `suffixes`; MONAI's test takes "scan.png.mha" for a PNG as well."""
    return str(path).lower().endswith(suffixes)


def _is_nifti(head: bytes, path: PathLike) -> bool:
    """NIfTI-1 and -2, in one file or two; the pair of the older Analyze names itself by its suffix alone."""
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return True
    analyze = head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and len(head) >= 348
    return analyze and has_suffix(path, (".hdr", ".hdr.gz"))


def _is_bitmap(head: bytes) -> bool:
    return head[:2] == b"BM" and head[6:10] == bytes(4) and head[14:18] in _BITMAPS


def _content_format(path: PathLike) -> str:
    with Path(path).open("rb") as file:
        head = file.read(_BLOCK)
    if head[:2] == b"\x1f\x8b":
        try:
            return "nifti" if _is_nifti(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, _HEAD), path) else ""
        except zlib.error:
            return ""
    if is_dicom(head):
        return "dicom"
    if _is_nifti(head, path):
        return "nifti"
    if b"NDims" in head and (b"ElementType" in head or b"ObjectType" in head):
        return "meta"
    if _is_bitmap(head):
        return "picture"
    return next((name for name, starts in _STARTS.items() if head.startswith(starts)), "")


def find_format(path: PathLike) -> str:
    """The format of a file.

    Args:
        path: of an existing file.

    Returns:
        "nifti" (Analyze too), "dicom", "nrrd", "meta", "picture" (PNG, JPEG, TIFF, BMP, GIF), "numpy", or "" where
        neither content nor name tell. A file whose content says nothing, as an empty one, is what its name says.
    """
    if has_suffix(path, (".img", ".img.gz")) and partner(path).is_file():
        return find_format(partner(path))
    found = _content_format(path)
    return found or next((name for name, suffixes in _BY_SUFFIX.items() if has_suffix(path, suffixes)), "")


def partner(path: PathLike) -> Path:
    """The header beside an .img file."""
    name = Path(path).name
    at = name.lower().rindex(".img")
    return Path(path).with_name(name[:at] + (".HDR" if name[at + 1].isupper() else ".hdr") + name[at + 4 :])


def image_format(path: PathLike) -> str:
    """As :func:`find_format`, and "" of what is no image of its own: an .img file belongs to the .hdr beside it."""
    is_part = has_suffix(path, (".img", ".img.gz")) and partner(path).is_file()
    return "" if is_part else find_format(path)


def is_cache(folder: Path) -> bool:
    """Whether a folder is marked as a cache, so that what lies in it is no data of the user."""
    try:
        with (folder / _TAG).open("rb") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


def mark_cache(folder: Path) -> None:
    """Marks a folder as a cache."""
    (folder / _TAG).write_bytes(
        _SIGNATURE + b"\n# Prepared images of monai_crossd. Delete the folder to free its space.\n"
    )


def list_entries(folder: Path) -> list[Path]:
    """Sorted entries without caches, hidden ones (macOS leaves "._" copies in many archives) and links into nowhere."""
    entries = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in entries if path.exists() and not is_cache(path))
