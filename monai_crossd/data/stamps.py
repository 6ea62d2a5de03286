# SPDX-License-Identifier: Apache-2.0
"""What tells that a file has changed: its own stamp, and those of the files that are read with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["is_cache", "mark_cache", "stamp_file", "stamp_image"]

# https://bford.info/cachedir: backup programs leave such folders out, and so do our lists of images
_TAG, _SIGNATURE = "CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55"
_PARTNERS = {
    ".hdr": (".img", ".img.gz", ".mat"),
    ".img": (".hdr", ".mat"),
    ".head": (".brik", ".brik.gz"),
    ".brik": (".head",),
    ".par": (".rec",),
    ".rec": (".par",),
}
_DATA_FILE = re.compile(rb"^\s*(?:ElementDataFile\s*=|data ?file\s*:)\s*(\S.*?)\s*$", re.MULTILINE | re.IGNORECASE)
_HEADER = 1 << 16  # bytes, of a text header


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


def _stat(path: str) -> tuple | None:
    """Place, size and times; the second time is that of the system's own record, which no program sets back."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # nothing there, or a text that is no path
        return None
    return os.path.abspath(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _below(folder: str) -> Iterator[tuple | None]:
    for root, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not is_cache(Path(root, name)))
        yield from (_stat(os.path.join(root, name)) for name in sorted(names))


def _named_in(header: Path) -> list[Path]:
    """Files with the voxels of a MetaImage or NRRD header."""
    with header.open("rb") as file:
        text = file.read(_HEADER)
    found = _DATA_FILE.search(text)
    if found is None or found[1].upper() == b"LOCAL":
        return []
    lines = [found[1], *text[found.end() :].split(b"\n")]  # after the word LIST, a file each
    paths = [header.parent / os.fsdecode(line.strip()) for line in lines if line.strip()]
    if paths[0].is_file():
        return paths[:1]
    # a list, or a pattern as slice%03d.raw
    return [*paths[1:], *(path for path in sorted(header.parent.iterdir()) if path.is_file())]


def _partners(path: Path) -> list[Path]:
    suffix = path.suffix.lower()
    if suffix in (".mhd", ".nhdr"):
        return _named_in(path)
    stem = path.with_name(path.name.removesuffix(".gz")).with_suffix("")
    ends = _PARTNERS.get(suffix, ())
    return [
        stem.with_name(stem.name + end)
        for suffix in ends
        for end in (suffix, suffix.upper(), suffix.upper().replace(".GZ", ".gz"))
    ]


def stamp_file(text: str) -> tuple | None:
    """Stamp of the file that a text names; None where it names none."""
    return _stat(text) if os.path.isfile(text) else None


def stamp_image(text: str) -> list | None:
    """Stamps of all files that decide the image which a text names; None where it names none.

    Those of a folder are all files below it, but for marked caches; of a MetaImage, NRRD, Analyze, AFNI or Philips
    header also the files with its voxels; of ``FILE.npz#ARRAY/NUMBER`` the file.

    Args:
        text: path, or any other text.

    Example:
        >>> stamp_image("benign") is None
        True
    """
    try:
        for name in filter(None, (text, text.rpartition("#")[0])):
            if os.path.isdir(name):
                return list(_below(name))
            if os.path.isfile(name):
                return [_stat(name), *(_stat(str(path)) for path in _partners(Path(name)))]
    except ValueError:  # a text that is no path
        pass
    return None
