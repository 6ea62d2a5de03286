# SPDX-License-Identifier: Apache-2.0
"""The images below a folder: a volume is one image, whether it is a file or a folder of slices, and is found once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .dicom_header import group_series
from .formats import PICTURES, find_format, has_suffix, image_format
from .stamps import is_cache

__all__ = ["find_images", "find_series", "group_channels", "images_by_folder", "list_entries"]

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")  # nnU-Net appends the channel number to the case name


def list_entries(folder: Path) -> list[Path]:
    """Sorted entries without caches, hidden ones (macOS leaves "._" copies in many archives) and links into nowhere."""
    entries = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in entries if path.exists() and not is_cache(path))


def _by_series(dicoms: Iterable[Path]) -> dict[str, list[Path]]:
    """DICOM images by series instance UID; a file that is there by two names counts once."""
    real: dict[Path, Path] = {}
    for path in sorted(dicoms, key=lambda path: (path.is_symlink(), path)):
        real.setdefault(path.resolve(), path)
    return group_series(sorted(real.values()))


def find_series(files: Iterable[Path]) -> dict[str, list[Path]]:
    """The DICOM images among files, by series instance UID; a file that is there by two names counts once."""
    return _by_series(path for path in files if path.is_file() and find_format(path) == "dicom")


def _images_in(folder: Path, files: list[Path]) -> list[Path]:
    """Images among the files of one folder.

    Slices of one series are one image, the folder. Files that are each a series of their own (X-rays, multi-frame
    files) are an image each. Several series of slices are one path too, whose reading says what to do.
    """
    found = {path: kind for path in files if (kind := image_format(path))}
    series = _by_series(path for path, kind in found.items() if kind == "dicom")
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


def group_channels(paths: Iterable[str]) -> list[str | list[str]]:
    """Makes one image of nnU-Net's ``case_0000.nii.gz``, ``case_0001.nii.gz``: the list of its channels.

    Numbers are channels where every case of a folder has the same ones, from 0000 without a gap, and the folder has
    several cases or is one of nnU-Net's (``imagesTs``). Otherwise they are part of the names.

    Args:
        paths: image files, in order.

    Returns:
        A path, or the list of its channels, for each image.

    Raises:
        ValueError: When a case lacks a channel that another case of the folder has.

    Example:
        >>> group_channels(["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"])
        [['a_0000.nii.gz', 'a_0001.nii.gz'], ['b_0000.nii.gz', 'b_0001.nii.gz']]
    """
    paths = list(paths)
    folders: dict[Path, dict[str, dict[int, str]]] = {}
    for path in paths:
        match = _CHANNEL.fullmatch(_stem(path))
        if match and (not has_suffix(path, PICTURES) or _is_nnunet(Path(path).parent)):
            cases = folders.setdefault(Path(path).parent, {})
            cases.setdefault(match["case"], {})[int(match["channel"])] = path
    grouped: dict[str, list[str]] = {}
    for folder, cases in folders.items():
        whole = [case for case, channels in cases.items() if sorted(channels) == list(range(len(channels)))]
        count = max((len(cases[case]) for case in whole), default=1)
        if count == 1 or (len(cases) == 1 and not _is_nnunet(folder)):
            continue
        for case, channels in cases.items():
            if lacking := sorted(set(range(count)) - set(channels)):
                raise ValueError(
                    f"{folder / case} has the channels {sorted(channels)}, other cases of the folder have {count}: add "
                    f"{case}_{lacking[0]:04d}, or rename files whose last four digits are no channel."
                )
            grouped |= {path: [channels[k] for k in range(count)] for path in channels.values()}
    return [grouped.get(path, path) for path in paths if path not in grouped or grouped[path][0] == path]


def _stem(path: str) -> str:
    return Path(Path(path).name.removesuffix(".gz")).stem


def _is_nnunet(folder: Path) -> bool:
    return folder.name.startswith(("imagesT", "imagesV"))
