# SPDX-License-Identifier: Apache-2.0
"""Items that are the same image: one file by several names, or files with the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from monai.utils import ensure_tuple

from .image_files import load_image
from .npz_reader import is_npz_path

__all__ = ["check_copies", "find_copies"]

_CHUNK = 1 << 14
_CHUNKS = 9  # of a large file, spread over it: uncompressed volumes of one shape all have the same size


def _files(image: str | Sequence[str]) -> list[str]:
    """The files of an image: of its channels, and of a folder all."""
    found: list[str] = []
    for path in ensure_tuple(image):
        if os.path.isdir(path):
            found += sorted(str(entry) for entry in Path(path).iterdir() if entry.is_file())
        else:
            found.append(str(path))
    return found


def _identity(image: str | Sequence[str]) -> Hashable:
    """The same for a file, its hard links and the symbolic links to it; None where it cannot be told."""
    try:
        stats = [os.stat(path) for path in ensure_tuple(image)]
    except OSError:
        return None
    return tuple((stat.st_dev, stat.st_ino) for stat in stats)


def _sizes(image: str | Sequence[str]) -> Hashable:
    return tuple(os.path.getsize(path) for path in _files(image))


def _sample(image: str | Sequence[str]) -> Hashable:
    """Digest of pieces of every file; of small ones that is all."""
    digest = blake2b(digest_size=16)
    for path in _files(image):
        last = max(0, os.path.getsize(path) - _CHUNK)
        with open(path, "rb") as file:
            for place in sorted({last * k // (_CHUNKS - 1) for k in range(_CHUNKS)}):
                file.seek(place)
                digest.update(file.read(_CHUNK))
    return digest.digest()


def _content(image: str | Sequence[str]) -> Hashable:
    digest = blake2b(digest_size=16)
    for path in _files(image):
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.digest()


def _alike(groups: Iterable[list[int]], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Parts each group by a key, and keeps the parts with several members."""
    parts: list[list[int]] = []
    for group in groups:
        found: dict[Hashable, list[int]] = {}
        for index in group:
            try:
                found.setdefault(key(index), []).append(index)
            except OSError:
                continue  # the reading of its header says what is wrong
        parts += [part for part in found.values() if len(part) > 1]
    return parts


def _is_blank(image: str | Sequence[str]) -> bool:
    """Whether all voxels are alike: such images are equal without being of the same patient."""
    try:
        voxels = [load_image(str(path), "")[0] for path in ensure_tuple(image)]
    # whatever a library raises for a bad file, which its header's reading reports
    except Exception:
        return True
    return all(array.min() == array.max() for array in voxels)


def find_copies(images: Sequence[str | Sequence[str]]) -> list[list[int]]:
    """Finds images that are the same: one file under several names, or files with the same bytes.

    Sizes are compared first, then pieces, and only what is alike in both is read whole. Images without content (all
    voxels alike) are no copies of each other unless they are one file. Images in .npz files are not looked at.

    Args:
        images: paths of each: file, folder of a series, or list of channels.

    Returns:
        Groups of several indices, in rising order.
    """
    files = [index for index, image in enumerate(images) if not any(map(is_npz_path, ensure_tuple(image)))]
    identities = {index: _identity(images[index]) for index in files}
    first: dict[Hashable, list[int]] = {}
    for index in files:
        if identities[index] is not None:
            first.setdefault(identities[index], []).append(index)
    parts: list[list[int]] = [[group[0] for group in first.values()]]
    for key in (_sizes, _sample, _content):
        parts = _alike(parts, lambda index, key=key: key(images[index]))  # type: ignore[misc]
    same = [part for part in parts if not _is_blank(images[part[0]])]
    alike = {index for part in same for index in part}
    groups = [[index for one in part for index in first[identities[one]]] for part in same]
    groups += [group for group in first.values() if len(group) > 1 and group[0] not in alike]
    return sorted(sorted(group) for group in groups)


def _name(item: dict) -> str:
    return str(ensure_tuple(item["image"])[0])


def check_copies(items: Sequence[dict], sections: Sequence[str], task: str) -> list[list[int]]:
    """Finds copies among the items of a data set, and refuses what no split can mend.

    Args:
        items: of all sections.
        sections: of each item.
        task: "segmentation" or "classification".

    Returns:
        Groups of indices as those of :func:`find_copies`.

    Raises:
        ValueError: When copies have different labels, or are in two sections.
    """
    groups = find_copies([item["image"] for item in items])
    for group in groups:
        first = group[0]
        for other in group[1:]:
            same = f"{_name(items[first])} and {_name(items[other])} are the same image"
            labels = items[first]["label"], items[other]["label"]
            if labels[0] != labels[1] and (task == "classification" or _differ(*labels)):
                raise ValueError(
                    f"{same}, with the labels {labels[0]} and {labels[1]}: correct one of them, or remove a copy."
                )
            if sections[first] != sections[other]:
                raise ValueError(
                    f'{same}, in the sections "{sections[first]}" and "{sections[other]}": remove it from one of them.'
                )
    return groups


def _differ(label: str | Sequence[str], other: str | Sequence[str]) -> bool:
    """Whether two label maps that are there have different bytes."""
    identities = _identity(label), _identity(other)
    if None in identities or identities[0] == identities[1]:
        return False
    return _content(label) != _content(other)
