# SPDX-License-Identifier: Apache-2.0
"""Names for what is made of images, one for each, so that no output replaces another's."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from monai.utils import ensure_tuple

from .readers.formats import SUFFIXES

__all__ = ["output_key", "output_names"]

_SUFFIX = re.compile("(" + "|".join(map(re.escape, sorted(SUFFIXES, key=len, reverse=True))) + ")$", re.IGNORECASE)
_CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net's


def output_key(image: Any) -> str:
    """What MONAI's LoadImage keeps of an item's "image" as ``filename_or_obj``: its path, of several the first.

    Args:
        image: a path, or a list of the paths of its channels.

    >>> output_key(["case_0000.nii.gz", "case_0001.nii.gz"])
    'case_0000.nii.gz'
    """
    return str(ensure_tuple(image)[0])


def output_names(items: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Names, without suffix, for the outputs of a list of items.

    The name is that of the image's file or folder, without an image format's suffix (dots elsewhere stay, as in UIDs
    that name series) and, where an item is a list of channels, without nnU-Net's ``_0000``. Where two items would have
    the same name, both have their path below the folder that is common to all items, and where that is the same too,
    as of ``a.mha`` beside ``a.nii.gz``, the suffix stays.

    Args:
        items: with "image", a path or a list of paths of channels.

    Returns:
        A name for each :func:`output_key`, in the order of the items; "/" stands between folders.

    Raises:
        ValueError: When two items are the same file, or would still have one name.

    Example:
        >>> output_names([{"image": "/in/p1/ct.nii.gz"}, {"image": "/in/p2/ct.nii.gz"}, {"image": "/in/p2/1.2.840"}])
        {'/in/p1/ct.nii.gz': 'p1/ct', '/in/p2/ct.nii.gz': 'p2/ct', '/in/p2/1.2.840': '1.2.840'}
    """
    images = [item["image"] for item in items]
    keys = [output_key(image) for image in images]
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise ValueError(f"{twice[0]} is listed {keys.count(twice[0])} times: its outputs would replace each other.")
    if not keys:
        return {}
    paths = [PurePath(os.path.abspath(key)) for key in keys]
    folder = os.path.commonpath([path.parent for path in paths])
    below = [path.relative_to(folder) for path in paths]
    listed = [not isinstance(image, (str, os.PathLike)) and len(image) > 1 for image in images]
    stems = [path.with_name(_stem(path.name, channels)) for path, channels in zip(below, listed, strict=True)]
    names = [stem.name for stem in stems]
    for longer in (stems, below):
        count = Counter(names)
        names = [n if count[n] == 1 else other.as_posix() for n, other in zip(names, longer, strict=True)]
    met: dict[str, str] = {}
    for key, name in zip(keys, names, strict=True):
        if (other := met.setdefault(name, key)) != key:
            raise ValueError(f"The outputs of {other} and {key} would both be named {name!r}: rename one of the two.")
    return dict(zip(keys, names, strict=True))


def _stem(name: str, channels: bool) -> str:
    stem = _SUFFIX.sub("", name) or name
    return (_CHANNEL.sub("", stem) or stem) if channels else stem
