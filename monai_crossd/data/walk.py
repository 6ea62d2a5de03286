# SPDX-License-Identifier: Apache-2.0
"""The images below a folder: a volume is one image, whether it is a file or a folder of slices, and is found once."""

from __future__ import annotations

from pathlib import Path

from .readers.dicom_series import group_series
from .readers.formats import image_format, list_entries

__all__ = ["find_images", "images_by_folder"]


def _images_in(folder: Path, files: list[Path]) -> list[Path]:
    """Images among the files of one folder.

    Slices of one series are one image, the folder. Files that are each a series of their own (X-rays, multi-frame
    files) are an image each. Several series of slices are one path too, whose reading says what to do.
    """
    found = {path: kind for path in files if (kind := image_format(path))}
    series = group_series(path for path, kind in found.items() if kind == "dicom")
    others = [path for path, kind in found.items() if kind != "dicom"]
    single = all(len(names) == 1 for names in series.values())
    return others + ([names[0] for names in series.values()] if single else [folder])


def images_by_folder(folder: Path) -> dict[Path, list[str]]:
    """Finds the images below a folder, at any depth, by the folder that they lie in.

    Each image is found once, by its real place rather than through a symbolic link, and links to a folder that
    holds them are not followed. Hidden files, and files that are no images, are left out; what claims to be an image by
    its name is listed, so that its reading tells of the damage.

    Args:
        folder: the folder.

    Returns:
        Sorted paths of image files, or the folder itself where it holds the slices of a DICOM series. Folders without
        images are there when they are empty of folders too.
    """
    found: dict[Path, tuple[Path, Path]] = {}  # by the real place of an image
    places: set[Path] = set()
    seen: set[Path] = set()
    pending, links = [folder], list[Path]()  # what is reached by a link waits for what is reached without
    while pending or links:
        here = pending.pop() if pending else links.pop(0)
        if here.resolve() in seen:
            continue
        seen.add(here.resolve())
        entries = list_entries(here)
        for image in _images_in(here, [path for path in entries if path.is_file()]):
            real = image.resolve()
            if real not in found or found[real][1].is_symlink():
                found[real] = here, image
        folders = [path for path in entries if path.is_dir() and path.resolve() not in here.resolve().parents]
        for path in folders:
            (links if path.is_symlink() else pending).append(path)
        if not folders:
            places.add(here)
    places |= {place for place, _ in found.values()}
    images: dict[Path, list[str]] = {place: [] for place in sorted(places)}
    for place, image in sorted(found.values()):
        images[place].append(str(image))
    return images


def find_images(folder: Path) -> list[str]:
    """Sorted paths of all images below a folder; see :func:`images_by_folder`."""
    return sorted((path for images in images_by_folder(folder).values() for path in images), key=Path)
